import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from pipeline.bootstrap import median_estimate, metric_estimate, ratio_estimate
from pipeline.metrics import accuracy, pearson

positive = st.floats(0.5, 100.0)


def test_the_interval_of_a_share_is_that_of_the_binomial() -> None:
    truth = np.zeros(400, dtype=np.int64)
    guesses = (np.arange(400) < 80).astype(np.int64)  # 0.8 are right
    estimate = metric_estimate(accuracy, guesses, truth, samples=4000, seed=0)
    low, high = scipy.stats.binom(400, 0.8).interval(0.95)
    assert estimate.value == 0.8
    assert estimate.low == pytest.approx(low / 400, abs=0.004)
    assert estimate.high == pytest.approx(high / 400, abs=0.004)


def test_examples_are_resampled_as_pairs() -> None:
    truth = np.random.default_rng(0).normal(size=50)
    estimate = metric_estimate(pearson, 2.0 * truth + 1.0, truth, samples=200, seed=0)
    assert estimate.low == pytest.approx(1.0)


def test_the_seed_decides_the_draws() -> None:
    guesses, truth = np.arange(30) % 2, np.arange(30) % 3 % 2

    def estimate(seed: int) -> object:
        return metric_estimate(accuracy, guesses, truth, samples=101, seed=seed)

    assert estimate(1) == estimate(1)
    assert len({str(estimate(seed)) for seed in range(20)}) > 1


def test_the_interval_narrows_with_the_root_of_the_examples() -> None:
    widths = []
    for size in (100, 1600):
        guesses = np.arange(size) % 2
        estimate = metric_estimate(
            accuracy, guesses, np.zeros(size, dtype=np.int64), samples=2000, seed=3
        )
        widths.append(estimate.high - estimate.low)
    assert widths[0] / widths[1] == pytest.approx(4.0, rel=0.15)


def test_the_interval_of_a_median_covers_the_true_one_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    hits = 0
    for seed in range(300):
        estimate = median_estimate(generator.lognormal(size=30), samples=400, seed=seed)
        hits += estimate.low <= 1.0 <= estimate.high
    assert 0.90 <= hits / 300 <= 0.99


@given(st.lists(positive, min_size=3, max_size=40), st.floats(0.1, 10.0), st.integers(0, 9))
def test_noise_that_hits_both_alike_cancels(
    reference: list[float], factor: float, seed: int
) -> None:
    first = np.array(reference)
    estimate = ratio_estimate(factor * first, first, samples=100, seed=seed)
    assert estimate.low == pytest.approx(factor)
    assert estimate.value == pytest.approx(factor)
    assert estimate.high == pytest.approx(factor)


@given(st.lists(st.tuples(positive, positive), min_size=3, max_size=40))
def test_the_ratio_is_one_of_medians_and_its_interval_within_the_extremes(
    pairs: list[tuple[float, float]],
) -> None:
    values, reference = np.array(pairs).T
    estimate = ratio_estimate(values, reference, samples=100, seed=0)
    assert estimate.value == pytest.approx(np.median(values) / np.median(reference))
    assert estimate.low <= estimate.high
    assert values.min() / reference.max() <= estimate.low * (1 + 1e-12)
    assert estimate.high <= values.max() / reference.min() * (1 + 1e-12)
