"""Percentile bootstrap (Efron and Tibshirani 1993, chapter 13) for metrics and timings.

Examples of a data file are drawn one by one. Timed runs are drawn in blocks of neighbours (Künsch
1989), since a run resembles those just before and after it: drawn one by one, their interval would
be too narrow.
"""

import math
from collections.abc import Callable
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts.benchmark import Estimate

__all__ = ["block_length", "median_estimate", "metric_estimate", "ratio_estimate"]

# Fewer blocks than this say nothing of how blocks vary.
_LEAST_BLOCKS = 3


def metric_estimate(
    metric: Callable[[Any, Any], float],
    predictions: NDArray[Any],
    references: NDArray[Any],
    *,
    samples: int,
    seed: int,
) -> Estimate:
    """A metric with its 95 % interval over resampled examples.

    The same seed resamples the same examples, so that models are compared on equal draws.

    Args:
        metric: a function of predictions and references, as in :mod:`pipeline.metrics`.
        predictions: [n].
        references: [n].
        samples: number of bootstrap samples.
        seed: of the draws.
    """
    generator = np.random.default_rng(seed)
    size = len(references)
    # Sample by sample: all draws at once would be samples x n indices, gigabytes on large data.
    values = np.empty(samples)
    for sample in range(samples):
        drawn = generator.integers(size, size=size)
        values[sample] = metric(predictions[drawn], references[drawn])
    return _estimate(metric(predictions, references), values)


def median_estimate(values: NDArray[np.float64], *, samples: int, seed: int) -> Estimate:
    """The median of ``values``, [n] in the order of time, with its 95 % interval."""
    length = block_length(values)
    drawn = _draw_blocks(len(values), length, samples, seed)
    medians = np.median(values[drawn], axis=1)
    return _estimate(float(np.median(values)), medians, tail=_tail(len(values) / length))


def ratio_estimate(
    values: NDArray[np.float64], reference: NDArray[np.float64], *, samples: int, seed: int
) -> Estimate:
    """The ratio of two medians with its 95 % interval, over resampled pairs.

    Args:
        values: positive, [n] in the order of time.
        reference: positive, [n]; entry i was measured together with entry i of ``values``.
        samples: number of bootstrap samples.
        seed: of the draws.
    """
    length = block_length(values / reference)
    drawn = _draw_blocks(len(values), length, samples, seed)
    ratios = np.median(values[drawn], axis=1) / np.median(reference[drawn], axis=1)
    value = float(np.median(values) / np.median(reference))
    return _estimate(value, ratios, tail=_tail(len(values) / length))


def block_length(values: NDArray[np.float64]) -> int:
    """Neighbours that are drawn together, for the median of ``values``, [n] in the order of time.

    The length that is best for the variance of a mean of an autoregressive series of order one
    (Carlstein 1986, for blocks that overlap: Hall, Horowitz and Jing 1995),
    ``n^(1/3) (6 rho^2 / (1 - rho^2)^2)^(1/3)``. ``rho`` is the correlation of neighbours after the
    median's influence function, the sign of the distance to it: one slow run does not hide it.
    From few values ``rho`` comes out too small on average, by ``(1 + 3 rho) / n`` (Kendall 1954),
    which is added.

    Returns:
        1 where neighbours do not resemble each other, at most a third of n.
    """
    size = len(values)
    signs = np.sign(values - np.median(values))
    signs -= signs.mean()
    power = float(signs @ signs)
    if size < 2 * _LEAST_BLOCKS or power == 0.0:
        return 1
    found = float(signs[1:] @ signs[:-1]) / power
    correlation = min(0.99, max(0.0, (size * found + 1.0) / (size - 3.0)))
    best = math.cbrt(6.0 * size * correlation**2 / (1.0 - correlation**2) ** 2)
    return max(1, min(round(best), size // _LEAST_BLOCKS))


def _draw_blocks(size: int, length: int, samples: int, seed: int) -> NDArray[np.int64]:
    """Indices, [samples, size]: blocks of neighbours; the first value follows the last.

    Closing the circle (Politis and Romano 1992) draws the ends as often as the middle.
    """
    starts = np.random.default_rng(seed).integers(size, size=(samples, -(-size // length), 1))
    drawn = (starts + np.arange(length)) % size
    return drawn.reshape(samples, -1)[:, :size]


def _tail(blocks: float) -> float:
    """The percentile at which a 95 % interval over so many independent blocks begins.

    2.5 for many of them; less for few, whose interval would be too narrow: by Student's t in place
    of the normal distribution, and by the root of ``blocks / (blocks - 1)`` (the expanded
    percentile interval, Hesterberg 2015). The quantile of t is the series of Fisher and Cornish.
    """
    normal = NormalDist()
    z = normal.inv_cdf(0.975)
    freedom = blocks - 1.0
    t = (
        z
        + (z**3 + z) / (4.0 * freedom)
        + (5.0 * z**5 + 16.0 * z**3 + 3.0 * z) / (96.0 * freedom**2)
    )
    return 100.0 * normal.cdf(-t * math.sqrt(blocks / freedom))


def _estimate(value: float, values: NDArray[np.float64], *, tail: float = 2.5) -> Estimate:
    low, high = np.percentile(values, (tail, 100.0 - tail))
    return Estimate(value, float(low), float(high))
