"""Percentile bootstrap (Efron and Tibshirani 1993, chapter 13) for metrics and timings."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts.benchmark import Estimate

__all__ = ["median_estimate", "metric_estimate", "ratio_estimate"]

_PERCENTILES = (2.5, 97.5)


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
    """The median of ``values``, [n], with its 95 % interval."""
    drawn = _draw(len(values), samples, seed)
    return _estimate(float(np.median(values)), np.median(values[drawn], axis=1))


def ratio_estimate(
    values: NDArray[np.float64], reference: NDArray[np.float64], *, samples: int, seed: int
) -> Estimate:
    """The ratio of two medians with its 95 % interval, over resampled pairs.

    Args:
        values: positive, [n].
        reference: positive, [n]; entry i was measured together with entry i of ``values``.
        samples: number of bootstrap samples.
        seed: of the draws.
    """
    drawn = _draw(len(values), samples, seed)
    ratios = np.median(values[drawn], axis=1) / np.median(reference[drawn], axis=1)
    return _estimate(float(np.median(values) / np.median(reference)), ratios)


def _draw(size: int, samples: int, seed: int) -> NDArray[np.int64]:
    return np.random.default_rng(seed).integers(size, size=(samples, size))


def _estimate(value: float, values: NDArray[np.float64]) -> Estimate:
    low, high = np.percentile(values, _PERCENTILES)
    return Estimate(value, float(low), float(high))
