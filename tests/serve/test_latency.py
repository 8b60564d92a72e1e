from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from pipeline import energy
from pipeline.artifacts.benchmark import Cell, Estimate
from pipeline.config import BenchConfig
from serve import open_session
from serve.latency import TimedModel, measure_cell, summarise_runs, time_turn
from serve.subjects import Subject


class Recorder:
    """Stands for a model whose runs are only noted down."""

    def __init__(self, name: str, calls: list[tuple[str, int]]) -> None:
        self.name = name
        self.calls = calls

    def __call__(self, number: int) -> None:
        self.calls.append((self.name, number))


def order_of_runs(seed: int) -> list[str]:
    calls: list[tuple[str, int]] = []
    models = [Recorder(name, calls) for name in "abc"]
    random = Random(seed)
    for number in range(20):
        latencies = time_turn(models, number, random)
        assert latencies.shape == (3,)
        assert (latencies > 0).all()
    assert [number for _, number in calls] == [number for number in range(20) for _ in "abc"]
    return ["".join(name for name, of in calls if of == number) for number in range(20)]


def test_every_turn_runs_every_model_once_in_a_new_order() -> None:
    turns = order_of_runs(seed=0)
    assert all(sorted(turn) == list("abc") for turn in turns)
    assert len(set(turns)) > 1


def test_the_seed_decides_the_order() -> None:
    assert order_of_runs(seed=1) == order_of_runs(seed=1)
    assert order_of_runs(seed=1) != order_of_runs(seed=2)


def test_a_run_is_all_its_batches_and_after_the_last_run_comes_the_first() -> None:
    seen: list[Any] = []
    batches: Any = [[{"a": 1}, {"a": 2}], [{"a": 3}]]
    model = TimedModel(seen.append, batches)
    for number in (0, 1, 2):
        model(number)
    assert [batch["a"] for batch in seen] == [1, 2, 3, 1, 2]


def test_a_summary_has_the_percentiles_and_the_paired_ratio() -> None:
    first = np.array([10.0, 20.0, 10.0, 20.0, 10.0, 20.0, 10.0])
    settings: dict[str, Any] = {"bootstrap_samples": 200, "seed": 0, "joules_per_text": 0.5}
    summary = summarise_runs(4, first / 2, first, control=None, **settings)
    assert summary.p50_ms.value == 5.0
    assert summary.p99_ms <= 10.0
    assert summary.texts_per_second == pytest.approx(4 * 7 / 0.050)
    assert summary.joules_per_text == 0.5
    # Repetition by repetition the model takes half the time, however noisy the machine.
    assert (summary.ratio.low, summary.ratio.value, summary.ratio.high) == (0.5, 0.5, 0.5)
    assert summary.p50_ms.low < summary.p50_ms.high
    control = Estimate(1.25, 1.2, 1.3)
    widened = summarise_runs(4, first / 2, first, control=control, **settings).ratio
    assert (widened.low, widened.value, widened.high) == pytest.approx((0.4, 0.5, 0.625))


@pytest.fixture
def subject(make_model: Callable[..., Path], tmp_path: Path) -> Subject:
    session = open_session(make_model(tmp_path / "model"), threads=1)
    return Subject("model", "model", "onnxruntime", "CPUExecutionProvider", session, session.run)


def measure(
    subject: Subject, monkeypatch: pytest.MonkeyPatch, control_ms: float, **changes: Any
) -> Any:
    """Time a model with itself and a copy, on a clock that only their runs advance."""
    now_ns = 0

    def taking(milliseconds: float) -> Callable[..., object]:
        def run(inputs: object) -> None:
            nonlocal now_ns
            now_ns += round(milliseconds * 1e6)

        return run

    monkeypatch.setattr("serve.latency._clock_ns", lambda: now_ns)
    monkeypatch.setattr("serve.latency.cores_of_others", lambda before, after: 0.0)
    config = BenchConfig(models=(Path("m"),), repetitions=6, bootstrap_samples=100)
    subjects = [
        Subject(name, name, "onnxruntime", "cpu", subject.session, taking(milliseconds))  # type: ignore[arg-type]
        for name, milliseconds in (("first", 4.0), ("second", 2.0), ("control", control_ms))
    ]
    advanced: list[None] = []
    settings: dict[str, Any] = {"meter": None, "random": Random(0), **changes}
    found = measure_cell(
        Cell("grid", 2, 2, 8, 1),
        subjects[:2],
        subjects[2],
        None,
        config,
        advance=lambda: advanced.append(None),
        **settings,
    )
    assert len(advanced) == 6
    return found


def test_the_copys_distance_widens_every_ratio_but_the_firsts(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured, (first, second) = measure(subject, monkeypatch, 4.4)
    assert measured.cell.texts == 2
    assert measured.steadiness.verdict == "noisy"
    assert measured.steadiness.control.value == pytest.approx(1.1)
    assert first.latencies_ms == (4.0,) * 6
    assert (first.summary.ratio.low, first.summary.ratio.high) == (1.0, 1.0)
    assert second.summary.ratio.value == 0.5
    assert second.summary.ratio.low == pytest.approx(0.5 / 1.1)
    assert second.summary.ratio.high == pytest.approx(0.5 * 1.1)
    assert second.summary.texts_per_second == pytest.approx(1000.0)
    assert second.summary.joules_per_text is None


def test_latencies_of_an_unusable_cell_are_kept_and_nothing_is_derived(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured, timings = measure(subject, monkeypatch, 1.6)
    assert measured.steadiness.verdict == "unusable"
    assert "0.40 times" in measured.steadiness.reasons[0]
    assert [timing.summary for timing in timings] == [None, None]
    assert [timing.latencies_ms for timing in timings] == [(4.0,) * 6, (2.0,) * 6]


def test_energy_is_measured_where_there_is_a_meter(
    subject: Subject, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    package = tmp_path / "intel-rapl:0"
    package.mkdir()
    for name, content in (("name", "package-0"), ("max_energy_range_uj", "10"), ("energy_uj", "7")):
        (package / name).write_text(content)
    monkeypatch.setattr(energy, "_POWERCAP", tmp_path)
    monkeypatch.setattr("serve.energy.BLOCK_MS", 20.0)
    _, timings = measure(subject, monkeypatch, 4.0, meter=energy.find_energy_meter())
    # The counter stands still: nothing is used, and that is what is said.
    assert [timing.summary.joules_per_text for timing in timings] == [0.0, 0.0]
