"""How much worse something became, and whether chance explains it.

All of it is paired: the same examples answered by two models, or two models timed in the same
turns. The question is always one-sided, "could this be no change at all?".
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts.benchmark import Estimate

__all__ = [
    "Evidence",
    "accuracy_evidence",
    "binomial_tail",
    "latency_evidence",
    "metric_evidence",
]

_NORMAL = NormalDist()
_HALF_WIDTH = _NORMAL.inv_cdf(0.975)  # of a 95 % interval, in standard errors
# Bootstrap samples beyond the smallest p-value that is looked at.
_TAIL_SAMPLES = 20


@dataclass(frozen=True)
class Evidence:
    """A change for the worse.

    Attributes:
        change: points (hundredths) lost, or growth as a ratio.
        p_value: probability of this change or a larger one if nothing had changed.
        detectable: the smallest change that would be told from chance at the level asked for.
    """

    change: float
    p_value: float
    detectable: float


def accuracy_evidence(
    before: NDArray[np.bool_], now: NDArray[np.bool_], *, level: float
) -> Evidence:
    """The drop of accuracy, by McNemar's exact test (McNemar 1947).

    Examples that both models get right, or both wrong, say nothing of a change. If there is none,
    each of the others is as likely to have been broken as mended.

    Args:
        before: which examples the earlier model gets right, [n].
        now: the same of the new model, [n].
        level: the p-value below which ``detectable`` must be.
    """
    broken, mended = int(np.sum(before & ~now)), int(np.sum(~before & now))
    low, high = mended, mended + 1
    while binomial_tail(high, high + mended) > level:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        if binomial_tail(middle, middle + mended) > level:
            low = middle
        else:
            high = middle
    point = 100.0 / len(now)
    return Evidence(
        (broken - mended) * point, binomial_tail(broken, broken + mended), (high - mended) * point
    )


def binomial_tail(successes: int, trials: int) -> float:
    """Probability of ``successes`` or more in ``trials`` tosses of a fair coin."""
    tosses = np.arange(1, trials + 1)
    log_choose = np.concatenate([[0.0], np.cumsum(np.log(trials + 1 - tosses) - np.log(tosses))])
    return min(1.0, float(np.exp(log_choose[successes:] - trials * math.log(2.0)).sum()))


def metric_evidence(
    metric: Callable[[Any, Any], float],
    before: NDArray[Any],
    now: NDArray[Any],
    references: NDArray[Any],
    *,
    level: float,
    seed: int = 0,
) -> Evidence:
    """The drop of any metric, by the paired bootstrap (Efron and Tibshirani 1993, chapter 16).

    Args:
        metric: a function of predictions and references, as in :mod:`pipeline.metrics`.
        before: predictions of the earlier model, [n].
        now: predictions of the new model, [n].
        references: [n].
        level: as for :func:`accuracy_evidence`; it decides the number of samples too.
        seed: of the draws.
    """
    generator = np.random.default_rng(seed)
    drops = np.empty(math.ceil(_TAIL_SAMPLES / level))
    for sample in range(len(drops)):
        drawn = generator.integers(len(references), size=len(references))
        drops[sample] = metric(before[drawn], references[drawn]) - metric(
            now[drawn], references[drawn]
        )
    drop = metric(before, references) - metric(now, references)
    p_value = (1.0 + float(np.sum(drops <= 0.0))) / (len(drops) + 1.0)
    margin = max(0.0, drop - float(np.quantile(drops, level)))
    return Evidence(100.0 * drop, p_value, 100.0 * margin)


def latency_evidence(before: Estimate, now: Estimate, *, level: float) -> Evidence:
    """The growth of a latency ratio, from the intervals of both benchmarks.

    The distance of each value to the end of its interval on the side of the other one is its
    error. The two are added, and not their squares as errors without anything in common would be
    (Zou and Donner 2008): opened anew, the same two models differ by more than either interval
    knows, and with squares real benchmarks without a change failed too often.

    Args:
        before: ratio to the first model, with its 95 % interval.
        now: the same in the new benchmark.
        level: as for :func:`accuracy_evidence`.
    """
    growth = now.value / before.value
    below = math.log(now.value / min(now.value, now.low))
    above = math.log(max(before.value, before.high) / before.value)
    error = (below + above) / _HALF_WIDTH
    if error == 0.0:
        return Evidence(growth, 0.0 if growth > 1.0 else 1.0, 1.0)
    p_value = _NORMAL.cdf(-math.log(growth) / error)
    return Evidence(growth, p_value, math.exp(_NORMAL.inv_cdf(1.0 - level) * error))
