"""The verdict on a cell, on made-up latencies."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.artifacts.benchmark import Estimate, Steadiness
from pipeline.bootstrap import ratio_estimate
from serve.steadiness import Surroundings, judge_steadiness, widen

RUNS = 40
QUIET = Surroundings(warm=True, threads=2, cores=4, busy_elsewhere=0.1)


def latencies(scatter: float = 0.01, seed: int = 0, median_ms: float = 10.0) -> NDArray[np.float64]:
    return median_ms * np.exp(scatter * np.random.default_rng(seed).normal(size=RUNS))


def judge(
    first_ms: NDArray[np.float64],
    control_ms: NDArray[np.float64],
    tokens: NDArray[np.int64] | None = None,
    **seen: Any,
) -> Steadiness:
    if tokens is None:
        tokens = np.full(len(first_ms), 64)
    surroundings = dataclasses.replace(QUIET, **seen)
    return judge_steadiness(
        first_ms, control_ms, tokens, surroundings, bootstrap_samples=200, seed=0
    )


def test_a_quiet_machine_is_steady() -> None:
    found = judge(latencies(seed=1), latencies(seed=2))
    assert (found.verdict, found.reasons) == ("steady", ())
    assert found.coefficient_of_variation < 0.02
    assert found.control is not None
    assert found.control.value == pytest.approx(1.0, abs=0.01)


def test_scatter_is_noise() -> None:
    first = latencies(scatter=0.14)
    found = judge(first, first)
    assert found.verdict == "noisy"
    assert "vary by" in found.reasons[0]


def test_one_slow_run_of_forty_is_noise_but_medians_stand() -> None:
    first = latencies()
    first[7] *= 10.0
    assert judge(first, latencies(seed=1)).verdict == "noisy"


def test_a_slow_drift_is_noise_though_the_scatter_is_small() -> None:
    first = np.linspace(10.0, 11.5, RUNS)
    found = judge(first, first)
    assert found.coefficient_of_variation < 0.10
    assert "drift by +7%" in " ".join(found.reasons)


def test_a_planted_slow_phase_is_unusable() -> None:
    """A third of the time, something else takes the cores, from all models alike."""
    first, control = latencies(seed=1), latencies(seed=2)
    first[10:24] *= 2.5
    control[10:24] *= 2.5
    found = judge(first, control)
    assert found.control is not None
    assert found.control.value == pytest.approx(1.0, abs=0.02)  # the pairs hide it
    assert found.verdict == "unusable"
    assert "spread over" in found.reasons[0]


def test_a_neighbour_that_slows_only_the_copy_is_unusable() -> None:
    """Two equal models read 0.4: no ratio of this cell can be believed."""
    found = judge(latencies(seed=1), 0.4 * latencies(seed=2))
    assert found.verdict == "unusable"
    assert "0.40 times" in found.reasons[0]
    assert found.reasons[0].endswith(".")


@pytest.mark.parametrize(
    ("factor", "verdict"), [(1.005, "steady"), (1.03, "noisy"), (0.9, "noisy")]
)
def test_a_copy_that_is_surely_slower_or_faster_is_noise(factor: float, verdict: str) -> None:
    first = latencies(scatter=0.001, seed=1)
    found = judge(first, factor * latencies(scatter=0.001, seed=2))
    assert found.verdict == verdict
    assert bool(found.reasons) == (verdict == "noisy")


@pytest.mark.parametrize(
    ("seen", "reason"),
    [
        ({"warm": False}, "did not come to a stable time"),
        ({"busy_elsewhere": 2.5}, "Others kept 2.5 of the 4 usable cores busy"),
        ({"threads": 4, "busy_elsewhere": 0.3}, "4 threads leave 0 to them"),
        ({"threads": 8, "busy_elsewhere": 0.3}, "8 threads leave 0 to them"),
    ],
)
def test_what_is_seen_beside_the_latencies_counts(seen: dict[str, Any], reason: str) -> None:
    found = judge(latencies(seed=1), latencies(seed=2), **seen)
    assert found.verdict == "noisy"
    assert reason in found.reasons[0]


@pytest.mark.parametrize("seen", [{"busy_elsewhere": 2.0}, {"busy_elsewhere": None}])
def test_others_on_idle_cores_do_not(seen: dict[str, Any]) -> None:
    assert judge(latencies(seed=1), latencies(seed=2), **seen).verdict == "steady"


def texts_of_many_lengths() -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Tokens, and the time of a model whose attention grows with their square."""
    tokens = np.random.default_rng(3).integers(5, 400, size=RUNS)
    return tokens, 1.0 + 0.05 * tokens + 1e-4 * tokens**2


def test_texts_of_different_length_are_no_noise() -> None:
    tokens, expected_ms = texts_of_many_lengths()
    first, control = (expected_ms * latencies(seed=seed) / 10.0 for seed in (1, 2))
    assert np.std(first) / np.mean(first) > 0.5
    assert judge(first, control, tokens).verdict == "steady"
    assert judge(first, control).verdict == "unusable"  # as it were without the lengths


def test_a_slow_phase_is_seen_beneath_different_lengths() -> None:
    tokens, expected_ms = texts_of_many_lengths()
    first, control = (expected_ms * latencies(seed=seed) / 10.0 for seed in (1, 2))
    first[RUNS // 2 :] *= 1.3
    control[RUNS // 2 :] *= 1.3
    found = judge(first, control, tokens)
    assert found.drift == pytest.approx(0.3, abs=0.07)
    assert found.verdict == "noisy"


def test_three_runs_are_judged_too() -> None:
    first = np.array([1.0, 1.01, 1.02])
    assert judge(first, first, np.array([4, 9, 6])).verdict == "steady"


positive = st.floats(0.2, 5.0)


@given(st.lists(st.tuples(positive, positive, positive), min_size=3, max_size=30))
def test_the_widened_interval_contains_the_bootstraps(
    runs: list[tuple[float, float, float]],
) -> None:
    model, first, copy = np.array(runs).T
    ratio = ratio_estimate(model, first, samples=100, seed=0)
    control = ratio_estimate(copy, first, samples=100, seed=0)
    wide = widen(ratio, control)
    assert wide.value == ratio.value
    assert wide.low <= ratio.low * (1 + 1e-12)
    assert wide.high >= ratio.high * (1 - 1e-12)


@given(positive, positive, positive)
def test_a_copy_widens_alike_whether_it_is_slower_or_faster(
    value: float, width: float, off: float
) -> None:
    ratio = Estimate(value, value / (1 + width), value * (1 + width))
    slower, faster = (widen(ratio, Estimate(c, c, c)) for c in (off, 1.0 / off))
    assert slower.low == pytest.approx(faster.low)
    assert slower.high == pytest.approx(faster.high)
    # The copy itself is never told apart from the first model.
    same = widen(Estimate(off, off, off), Estimate(off, off, off))
    assert same.low <= 1.0 + 1e-12
    assert same.high >= 1.0 - 1e-12
