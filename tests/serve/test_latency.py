from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from serve import open_session
from serve.latency import fixed_length_inputs, judge_noise, summarise_cell, time_cell, time_grid


@pytest.mark.parametrize("shape", [(1, 7), (3, 5), (4, 64)])
def test_inputs_have_the_exact_shape_and_the_ids_of_the_texts(
    make_model: Callable[..., Path], tmp_path: Path, shape: tuple[int, int]
) -> None:
    session = open_session(make_model(tmp_path / "model"), threads=1)
    texts = ["good film", "the plot was bad"]
    inputs = fixed_length_inputs(session, texts, *shape)
    stream = [token for encoding in session.encode(texts) for token in encoding.ids]
    expected = np.resize(np.array(stream), shape)
    np.testing.assert_array_equal(inputs["input_ids"], expected)
    np.testing.assert_array_equal(inputs["attention_mask"], np.ones(shape))
    np.testing.assert_array_equal(inputs["token_type_ids"], np.zeros(shape))


class Recorder:
    """Stands for a session whose runs are only noted down."""

    def __init__(self, name: str, calls: list[str]) -> None:
        self.name = name
        self.calls = calls

    def run(self, inputs: Any) -> None:
        self.calls.append(self.name)


def order_of_runs(seed: int) -> list[str]:
    calls: list[str] = []
    sessions: Any = [Recorder(name, calls) for name in "abc"]
    latencies = time_cell(sessions, [{}] * 3, 2, 20, Random(seed), lambda: None)
    assert latencies.shape == (3, 20)
    assert (latencies > 0).all()
    return calls


def test_every_repetition_runs_every_model_once_in_a_new_order() -> None:
    calls = order_of_runs(seed=0)
    assert sorted(calls[:6]) == list("aabbcc")
    repetitions = ["".join(calls[start : start + 3]) for start in range(6, len(calls), 3)]
    assert len(repetitions) == 20
    assert all(sorted(repetition) == list("abc") for repetition in repetitions)
    assert len(set(repetitions)) > 1


def test_the_seed_decides_the_order() -> None:
    assert order_of_runs(seed=1) == order_of_runs(seed=1)
    assert order_of_runs(seed=1) != order_of_runs(seed=2)


def test_steady_runs_are_not_noisy() -> None:
    noise = judge_noise(1, 8, np.array([10.0, 10.2, 9.9, 10.1, 10.0, 9.8]))
    assert not noise.noisy
    assert noise.coefficient_of_variation < 0.05


def test_scattered_runs_are_noisy() -> None:
    noise = judge_noise(1, 8, np.array([10.0, 14.0, 10.0, 14.0, 10.0, 14.0, 10.0, 14.0]))
    assert noise.noisy
    assert noise.coefficient_of_variation == pytest.approx(2 / 12)
    assert noise.drift == pytest.approx(0.0)


def test_a_slow_drift_is_noisy_though_the_scatter_is_small() -> None:
    noise = judge_noise(1, 8, np.linspace(10.0, 11.5, 30))
    assert noise.coefficient_of_variation < 0.10
    assert noise.drift == pytest.approx(11.15 / 10.36 - 1, abs=0.01)
    assert noise.noisy


def test_a_cell_has_the_percentiles_and_the_paired_ratio() -> None:
    first = np.array([10.0, 20.0, 10.0, 20.0, 10.0, 20.0, 10.0])
    cell = summarise_cell(4, 8, first / 2, first, bootstrap_samples=200, seed=0)
    assert cell.p50_ms.value == 5.0
    assert cell.p99_ms <= 10.0
    assert cell.texts_per_second == pytest.approx(4 * 7 / 0.050)
    # Repetition by repetition the model takes half the time, however noisy the machine.
    assert (cell.ratio.low, cell.ratio.value, cell.ratio.high) == (0.5, 0.5, 0.5)
    assert cell.p50_ms.low < cell.p50_ms.high


def test_the_grid_is_every_batch_size_with_every_length(
    make_model: Callable[..., Path], tmp_path: Path
) -> None:
    session = open_session(make_model(tmp_path / "model"), threads=1)
    (cells,), noise = time_grid(
        [session],
        ["good film"],
        batch_sizes=(1, 2),
        sequence_lengths=(4, 6),
        warmup=1,
        repetitions=3,
        bootstrap_samples=100,
        seed=0,
        advance=lambda: None,
    )
    grid = [(1, 4), (1, 6), (2, 4), (2, 6)]
    assert [(cell.batch_size, cell.sequence_length) for cell in cells] == grid
    assert [(cell.batch_size, cell.sequence_length) for cell in noise] == grid
    assert all(cell.ratio.value == 1.0 for cell in cells)
