"""The 95 % interval of a metric: Wilson's score interval for shares, the bootstrap for others."""

import math
from statistics import NormalDist

from pipeline.artifacts.benchmark import Estimate
from pipeline.bootstrap import metric_estimate
from pipeline.example_values import ExampleValues

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


def with_interval(values: ExampleValues, *, samples: int, seed: int) -> Estimate:
    """A metric with its 95 % interval.

    Args:
        values: what it is computed from.
        samples: number of bootstrap samples, for metrics that are no share of the examples.
        seed: of the draws.
    """
    if values.is_share:
        return share_estimate(int(values.rows.sum()), len(values.rows))
    return metric_estimate(
        lambda rows, _: values.compute(rows), values.rows, values.rows, samples=samples, seed=seed
    )
