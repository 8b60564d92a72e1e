import numpy as np
import pytest
import scipy.signal
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.bootstrap import block_length, median_estimate, metric_estimate, ratio_estimate
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


def autoregressive(
    correlation: float, size: int, generator: np.random.Generator
) -> NDArray[np.float64]:
    """Latencies with median 1, each of which resembles the one before."""
    shocks = generator.normal(size=size + 100)
    return np.exp(0.05 * scipy.signal.lfilter([1.0], [1.0, -correlation], shocks)[100:])


@pytest.mark.parametrize(
    ("correlation", "runs", "least"), [(0.3, 30, 0.88), (0.5, 100, 0.85), (0.7, 100, 0.80)]
)
def test_runs_that_resemble_their_neighbours_are_covered_too(
    correlation: float, runs: int, least: float
) -> None:
    """Drawn one by one, the last of these would be covered in six of ten cases."""
    generator = np.random.default_rng(0)
    hits = 0
    for seed in range(150):
        latencies = autoregressive(correlation, runs, generator)
        estimate = median_estimate(latencies, samples=300, seed=seed)
        hits += estimate.low <= 1.0 <= estimate.high
    assert hits / 150 >= least


def test_few_runs_make_wide_intervals() -> None:
    """Three values say little: their interval goes from the least to the largest."""
    estimate = median_estimate(np.array([1.0, 2.0, 4.0]), samples=1000, seed=0)
    assert (estimate.low, estimate.value, estimate.high) == (1.0, 2.0, 4.0)


def test_blocks_grow_with_the_likeness_of_neighbours() -> None:
    generator = np.random.default_rng(0)
    means = [
        np.mean([block_length(autoregressive(rho, 200, generator)) for _ in range(40)])
        for rho in (0.0, 0.5, 0.9)
    ]
    assert means[0] < 2.0
    # The rule at the correlation of the signs, 2/pi asin(0.5) = 1/3: 5.5.
    assert means[1] == pytest.approx(5.5, abs=1.5)
    assert means[2] > 2.0 * means[1]


@given(st.lists(positive, min_size=1, max_size=40))
def test_at_least_three_blocks_are_drawn(values: list[float]) -> None:
    length = block_length(np.array(values))
    assert length == 1 or 3 * length <= len(values)


def test_one_slow_run_does_not_hide_the_likeness_of_the_others() -> None:
    latencies = autoregressive(0.8, 200, np.random.default_rng(1))
    spiked = latencies.copy()
    spiked[60] *= 1000.0
    assert block_length(spiked) == pytest.approx(block_length(latencies), abs=2)


def test_the_same_runs_in_another_order_have_another_interval() -> None:
    generator = np.random.default_rng(0)
    values = autoregressive(0.8, 100, generator)
    reference = np.exp(0.02 * generator.normal(size=100))
    ordered = ratio_estimate(values, reference, samples=500, seed=0)
    shuffled = ratio_estimate(generator.permutation(values), reference, samples=500, seed=0)
    assert ordered.value == shuffled.value
    assert ordered.high - ordered.low > 1.5 * (shuffled.high - shuffled.low)


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
