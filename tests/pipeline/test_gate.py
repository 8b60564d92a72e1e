import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.artifacts.benchmark import Benchmark, Estimate, ModelResult, write_benchmark
from pipeline.config import CheckConfig
from pipeline.errors import ArtifactError, DataError
from pipeline.gate import GateResult, check, print_gate

Edit = Callable[[ModelResult], ModelResult]


def edited(benchmark: Benchmark, position: int, edit: Edit) -> Benchmark:
    models = list(benchmark.models)
    models[position] = edit(models[position])
    return dataclasses.replace(benchmark, models=tuple(models))


def with_accuracy(value: float) -> Edit:
    def edit(model: ModelResult) -> ModelResult:
        metrics = {**model.metrics, "accuracy": Estimate(value, value - 0.1, value + 0.1)}
        return dataclasses.replace(model, metrics=metrics)

    return edit


def with_latency(ratio: float, milliseconds: float = 1.0) -> Edit:
    def edit(model: ModelResult) -> ModelResult:
        cells = tuple(
            dataclasses.replace(
                cell,
                ratio=Estimate(ratio, ratio, ratio),
                p50_ms=Estimate(milliseconds, milliseconds, milliseconds),
            )
            for cell in model.latency
        )
        return dataclasses.replace(model, latency=cells)

    return edit


def with_size(size_bytes: int) -> Edit:
    return lambda model: dataclasses.replace(
        model, size=dataclasses.replace(model.size, directory_bytes=size_bytes)
    )


@pytest.fixture
def judge(tmp_path: Path) -> Callable[..., GateResult]:
    def judge(bench: Benchmark, baseline: Benchmark, **limits: float) -> GateResult:
        write_benchmark(tmp_path / "bench.json", bench)
        write_benchmark(tmp_path / "baseline.json", baseline)
        return check(CheckConfig(tmp_path / "bench.json", tmp_path / "baseline.json", **limits))

    return judge


def failures(result: GateResult) -> list[tuple[str, str]]:
    return [(j.model, j.quantity) for j in result.judgements if j.verdict == "failed"]


def test_a_benchmark_passes_against_itself(
    benchmark: Benchmark, judge: Callable[..., GateResult]
) -> None:
    result = judge(benchmark, benchmark)
    assert result.passed
    # Both models: metric and size; the second: two cells of latency.
    assert sum(j.verdict == "passed" for j in result.judgements) == 2 * 2 + 2
    assert {j.reason for j in result.judgements} == {"", "reference"}


@pytest.mark.parametrize(
    ("before", "after", "passes"),
    [
        (0.880, 0.875, True),  # half a point, the limit, which binary fractions overshoot
        (0.880, 0.874, False),
        (0.880, 0.990, True),
    ],
)
def test_accuracy_may_fall_by_the_limit_in_points(
    benchmark: Benchmark,
    judge: Callable[..., GateResult],
    before: float,
    after: float,
    passes: bool,
) -> None:
    result = judge(
        edited(benchmark, 1, with_accuracy(after)), edited(benchmark, 1, with_accuracy(before))
    )
    assert result.passed is passes
    assert failures(result) == ([] if passes else [("inverted", "accuracy, points lost")])


def test_the_first_models_accuracy_is_judged_too(
    benchmark: Benchmark, judge: Callable[..., GateResult]
) -> None:
    result = judge(edited(benchmark, 0, with_accuracy(0.9)), benchmark)
    assert failures(result) == [("right", "accuracy, points lost")]
    assert judge(edited(benchmark, 0, with_accuracy(0.9)), benchmark, max_accuracy_drop=10).passed


def test_latency_is_judged_by_its_ratio_and_never_in_milliseconds(
    benchmark: Benchmark, judge: Callable[..., GateResult]
) -> None:
    fast = edited(benchmark, 1, with_latency(0.5, milliseconds=1.0))
    slow_machine = edited(benchmark, 1, with_latency(0.54, milliseconds=50.0))
    assert judge(slow_machine, fast).passed
    slower = edited(benchmark, 1, with_latency(0.56, milliseconds=1.0))
    result = judge(slower, fast)
    assert failures(result) == [
        ("inverted", "latency ratio, 1 x 16"),
        ("inverted", "latency ratio, 4 x 16"),
    ]
    assert judge(slower, fast, max_latency_ratio=1.2).passed


def test_size_may_grow_by_the_limit(benchmark: Benchmark, judge: Callable[..., GateResult]) -> None:
    baseline = edited(benchmark, 1, with_size(1000))
    assert judge(edited(benchmark, 1, with_size(1020)), baseline).passed
    result = judge(edited(benchmark, 1, with_size(1021)), baseline)
    assert failures(result) == [("inverted", "size, MB")]


def test_the_latency_of_a_single_model_is_not_judged_and_this_is_said(
    benchmark: Benchmark, judge: Callable[..., GateResult]
) -> None:
    single = dataclasses.replace(benchmark, models=benchmark.models[:1])
    result = judge(single, single)
    assert result.passed
    assert any("Latency was not judged" in note for note in result.notes)


def test_a_model_that_the_baseline_lacks_is_not_judged(
    benchmark: Benchmark, judge: Callable[..., GateResult]
) -> None:
    result = judge(benchmark, dataclasses.replace(benchmark, models=benchmark.models[:1]))
    assert result.passed
    new = [j for j in result.judgements if j.model == "inverted"]
    assert {(j.verdict, j.reason) for j in new} == {("not judged", "new model")}


def replace_data(**changes: Any) -> Callable[[Benchmark], Benchmark]:
    return lambda b: dataclasses.replace(b, data=dataclasses.replace(b.data, **changes))


def replace_task(**changes: Any) -> Callable[[Benchmark], Benchmark]:
    return lambda b: dataclasses.replace(b, task=dataclasses.replace(b.task, **changes))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (replace_data(sha256="0" * 64), "the SHA-256 of the data must be "),
        (replace_data(example_ids=("0" * 16,) * 48), "the examples must be "),
        (replace_data(references=(0,) * 48), "the labels of the examples must be "),
        (replace_task(labels=("no", "yes")), "the labels must be 0, 1 .* got no, yes"),
        (replace_task(metric="f1"), "the metric must be accuracy .* got f1"),
        (
            lambda b: dataclasses.replace(b, models=b.models[::-1]),
            "the first model must be right .* got inverted",
        ),
        (
            lambda b: dataclasses.replace(b, models=b.models[:1]),
            "lacks the model 'inverted' .* it has right",
        ),
        (
            lambda b: dataclasses.replace(
                b,
                noise=b.noise[:1],
                models=tuple(dataclasses.replace(m, latency=m.latency[:1]) for m in b.models),
            ),
            "the latency grid must be 1x16, 4x16 .* got 1x16",
        ),
    ],
)
def test_what_did_not_measure_the_same_is_refused(
    benchmark: Benchmark,
    judge: Callable[..., GateResult],
    change: Callable[[Benchmark], Benchmark],
    message: str,
) -> None:
    with pytest.raises(DataError, match=message):
        judge(change(benchmark), benchmark)


def test_a_missing_baseline_is_an_error(benchmark: Benchmark, tmp_path: Path) -> None:
    write_benchmark(tmp_path / "bench.json", benchmark)
    with pytest.raises(ArtifactError, match=r"absent\.json is missing"):
        check(CheckConfig(tmp_path / "bench.json", tmp_path / "absent.json"))


def test_other_conditions_are_noted(benchmark: Benchmark, judge: Callable[..., GateResult]) -> None:
    machine = dataclasses.replace(benchmark.machine, cpu="Another CPU")
    versions = {**benchmark.versions, "onnxruntime": "1.0"}
    other = dataclasses.replace(benchmark, machine=machine, versions=versions, threads=7)
    notes = " ".join(judge(other, benchmark).notes)
    assert "The processor is Another CPU" in notes
    assert "The thread count is 7, in the baseline it was 1" in notes
    assert "The version of onnxruntime is 1.0" in notes


def test_the_table_names_what_failed_and_fits_80_columns(
    benchmark: Benchmark,
    judge: Callable[..., GateResult],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    print_gate(judge(edited(benchmark, 0, with_accuracy(0.5)), benchmark))
    lines = capsys.readouterr().out.splitlines()
    assert all(len(line) <= 80 for line in lines)
    (failed,) = [line for line in lines if "failed" in line and "accuracy" in line]
    assert failed.split()[-6:] == ["lost", "1", "0.5", "50", "0.5", "failed"]
    assert any("latency ratio, 4 x 16" in line and "reference" in line for line in lines)
    assert lines[-1] == "failed: 1 beyond its limit"
    print_gate(judge(benchmark, benchmark))
    assert capsys.readouterr().out.splitlines()[-1] == "passed"
