import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.artifacts.benchmark import BenchmarkTask, Predictions
from pipeline.bootstrap import metric_estimate
from pipeline.example_values import ExampleValues, example_values
from pipeline.intervals import share_estimate, with_interval
from pipeline.metrics import METRICS


def values(metric: str, guesses: NDArray[np.int64], truth: NDArray[np.int64]) -> ExampleValues:
    task = BenchmarkTask("classification", ("0", "1"), metric)
    return example_values(task, metric, Predictions(tuple(guesses.tolist()), ()), truth.tolist())


shares = st.integers(1, 5000).flatmap(
    lambda examples: st.tuples(st.integers(0, examples), st.just(examples))
)


@given(shares)
def test_the_interval_of_a_share_is_scipys(share: tuple[int, int]) -> None:
    hits, examples = share
    estimate = share_estimate(hits, examples)
    expected = scipy.stats.binomtest(hits, examples).proportion_ci(method="wilson")
    assert estimate.value == hits / examples
    assert estimate.low == pytest.approx(expected.low, abs=1e-12)
    assert estimate.high == pytest.approx(expected.high, abs=1e-12)


@given(shares)
def test_the_interval_has_a_width_and_holds_the_share(share: tuple[int, int]) -> None:
    estimate = share_estimate(*share)
    assert 0.0 <= estimate.low <= estimate.value <= estimate.high <= 1.0
    assert estimate.low < estimate.high


@given(shares)
def test_what_is_missed_has_the_mirrored_interval(share: tuple[int, int]) -> None:
    hits, examples = share
    found, missed = share_estimate(hits, examples), share_estimate(examples - hits, examples)
    assert missed.low == pytest.approx(1.0 - found.high, abs=1e-12)
    assert missed.high == pytest.approx(1.0 - found.low, abs=1e-12)


def test_accuracy_has_an_honest_interval_where_nothing_is_wrong() -> None:
    truth = np.array([0, 1] * 50)
    estimate = with_interval(values("accuracy", truth, truth), samples=100, seed=0)
    assert (estimate.value, estimate.high) == (1.0, 1.0)
    assert estimate.low == pytest.approx(1.0 - 3.7 / 100, abs=1e-3)
    resampled = metric_estimate(METRICS["accuracy"], truth, truth, samples=100, seed=0)
    assert resampled.low == 1.0  # which is why


@pytest.mark.parametrize("metric", ["f1", "matthews", "pearson", "spearman"])
def test_other_metrics_are_resampled(metric: str) -> None:
    guesses, truth = np.arange(40) % 2, np.arange(40) % 3 % 2
    found = with_interval(values(metric, guesses, truth), samples=100, seed=3)
    assert found == metric_estimate(METRICS[metric], guesses, truth, samples=100, seed=3)
