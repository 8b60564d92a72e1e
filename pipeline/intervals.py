"""The 95 % interval of a metric: Wilson's score interval for shares, the bootstrap for others."""

import math
from statistics import NormalDist
from typing import Any

from numpy.typing import NDArray

from pipeline.artifacts.benchmark import Estimate
from pipeline.bootstrap import metric_estimate
from pipeline.metrics import metric_of_task

__all__ = ["share_estimate", "with_interval"]

_Z = NormalDist().inv_cdf(0.975)


def share_estimate(hits: int, examples: int) -> Estimate:
    """A share of independent examples with its 95 % score interval (Wilson 1927).

    It has a width where the share is 0 or 1, where resampling the examples gives none.

    Args:
        hits: examples that count, from 0 to ``examples``.
        examples: all of them, at least 1.
    """
    share = hits / examples
    weight = _Z**2 / examples
    centre = (share + weight / 2.0) / (1.0 + weight)
    half = math.sqrt(share * (1.0 - share) * weight + weight**2 / 4.0) / (1.0 + weight)
    # Rounding must not put the share outside of its interval where it is 0 or 1.
    low, high = min(share, centre - half), max(share, centre + half)
    return Estimate(share, max(0.0, low), min(1.0, high))


def with_interval(
    metric: str,
    predictions: NDArray[Any],
    references: NDArray[Any],
    *,
    classes: int,
    samples: int,
    seed: int,
) -> Estimate:
    """A metric with its 95 % interval.

    Args:
        metric: a name in :mod:`pipeline.metrics`.
        predictions: [n], label indices or numbers.
        references: [n], likewise.
        classes: classes of the task, 0 where it has none.
        samples: number of bootstrap samples, for metrics other than accuracy.
        seed: of the draws.
    """
    if metric == "accuracy":
        return share_estimate(int((predictions == references).sum()), len(references))
    function = metric_of_task(metric, classes)
    return metric_estimate(function, predictions, references, samples=samples, seed=seed)
