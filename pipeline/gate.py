"""The gate of continuous integration: is a benchmark worse than an earlier one?

Latency is judged by its ratio to the first model of the same benchmark, never in milliseconds:
the two benchmarks may come from two machines.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pipeline.artifacts.benchmark import Benchmark, ModelResult, read_benchmark
from pipeline.config import CheckConfig
from pipeline.errors import DataError

__all__ = ["GateResult", "Judgement", "check", "print_gate"]

# Differences below it are rounding: 0.880 - 0.875 is not quite half a point in binary.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Judgement:
    """One comparison.

    Attributes:
        model: the model's name.
        quantity: what was compared, with its unit.
        baseline: the earlier value; None if there is none.
        bench: the value to judge.
        change: how much worse it is, in the limit's unit: points lost, or growth as a ratio.
        limit: the largest change allowed.
        verdict: ``not judged`` never fails the gate.
        reason: why it was not judged; empty otherwise.
    """

    model: str
    quantity: str
    baseline: float | None
    bench: float
    change: float | None
    limit: float
    verdict: Literal["passed", "failed", "not judged"]
    reason: str = ""


@dataclass(frozen=True)
class GateResult:
    """The gate's verdict.

    Attributes:
        passed: no comparison failed.
        judgements: all comparisons, model by model.
        notes: what makes the comparison less sure, a sentence each.
    """

    passed: bool
    judgements: tuple[Judgement, ...]
    notes: tuple[str, ...]


def check(config: CheckConfig) -> GateResult:
    """Hold a benchmark against a baseline.

    Raises:
        ArtifactError: one of the files is missing, corrupt, or of a newer schema.
        DataError: the two did not measure the same: other data, labels, metric, models or grid.
    """
    bench, baseline = read_benchmark(config.bench), read_benchmark(config.baseline)
    _check_comparable(config.bench, bench, config.baseline, baseline)
    earlier = {model.name: model for model in baseline.models}
    judgements: list[Judgement] = []
    for position, model in enumerate(bench.models):
        judgements += _judge_model(
            model, earlier.get(model.name), bench.task.metric, config, is_first=position == 0
        )
    passed = all(judgement.verdict != "failed" for judgement in judgements)
    return GateResult(passed, tuple(judgements), tuple(_notes(bench, baseline)))


def _check_comparable(
    bench_path: Path, bench: Benchmark, baseline_path: Path, baseline: Benchmark
) -> None:
    compared: list[tuple[str, Any, Any]] = [
        ("the SHA-256 of the data", bench.data.sha256, baseline.data.sha256),
        ("the examples", bench.data.example_ids, baseline.data.example_ids),
        ("the task", bench.task.kind, baseline.task.kind),
        ("the labels", bench.task.labels, baseline.task.labels),
        ("the metric", bench.task.metric, baseline.task.metric),
        ("the labels of the examples", bench.data.references, baseline.data.references),
        ("the first model", bench.models[0].name, baseline.models[0].name),
        ("the latency grid", _grid(bench), _grid(baseline)),
    ]
    for what, found, expected in compared:
        if found != expected:
            raise DataError(
                f"{bench_path} cannot be held against {baseline_path}: {what} must be "
                f"{_shorten(expected)} as in the baseline, got {_shorten(found)}; run "
                "`smp-pipeline bench` again as for the baseline, or write a new baseline"
            )
    names = [model.name for model in bench.models]
    missing = [model.name for model in baseline.models if model.name not in names]
    if missing:
        raise DataError(
            f"{bench_path} lacks the model {missing[0]!r} of {baseline_path}, it has "
            f"{', '.join(names)}; measure it too, or write a new baseline"
        )


def _grid(benchmark: Benchmark) -> list[str]:
    return [f"{cell.batch_size}x{cell.sequence_length}" for cell in benchmark.noise]


def _shorten(value: Any) -> str:
    text = value if isinstance(value, str) else ", ".join(map(str, value))
    return text if len(text) <= 70 else f"{text[:67]}..."


def _judge_model(
    model: ModelResult,
    earlier: ModelResult | None,
    metric: str,
    config: CheckConfig,
    *,
    is_first: bool,
) -> list[Judgement]:
    quality = model.metrics[metric].value
    earlier_quality = None if earlier is None else earlier.metrics[metric].value
    drop = None if earlier_quality is None else (earlier_quality - quality) * 100.0
    judgements = [
        _judge(
            model.name,
            f"{metric}, points lost",
            earlier_quality,
            quality,
            drop,
            config.max_accuracy_drop,
        )
    ]
    size_mb = model.size.directory_bytes / 1e6
    earlier_size_mb = None if earlier is None else earlier.size.directory_bytes / 1e6
    growth = None if earlier_size_mb is None else size_mb / earlier_size_mb
    judgements.append(
        _judge(model.name, "size, MB", earlier_size_mb, size_mb, growth, config.max_size_ratio)
    )
    for index, cell in enumerate(model.latency):
        quantity = f"latency ratio, {cell.batch_size} x {cell.sequence_length}"
        limit = config.max_latency_ratio
        if is_first:
            judgements.append(
                Judgement(
                    model.name,
                    quantity,
                    None,
                    cell.ratio.value,
                    None,
                    limit,
                    "not judged",
                    "reference",
                )
            )
            continue
        earlier_ratio = None if earlier is None else earlier.latency[index].ratio.value
        growth = None if earlier_ratio is None else cell.ratio.value / earlier_ratio
        judgements.append(
            _judge(model.name, quantity, earlier_ratio, cell.ratio.value, growth, limit)
        )
    return judgements


def _judge(
    model: str,
    quantity: str,
    baseline: float | None,
    bench: float,
    change: float | None,
    limit: float,
) -> Judgement:
    if change is None:
        reason = "new model"
        return Judgement(model, quantity, baseline, bench, None, limit, "not judged", reason)
    verdict: Literal["passed", "failed"] = "passed" if change <= limit + _ROUNDING else "failed"
    return Judgement(model, quantity, baseline, bench, change, limit, verdict)


def _notes(bench: Benchmark, baseline: Benchmark) -> list[str]:
    notes = []
    if len(bench.models) == 1:
        notes.append(
            "Latency was not judged: there is one model, and so none to measure it against; "
            "bench a reference model, for instance the dense one, before it."
        )
    compared = [
        ("processor", bench.machine.cpu, baseline.machine.cpu),
        ("thread count", str(bench.threads), str(baseline.threads)),
        *(
            (f"version of {name}", version, baseline.versions.get(name, "unknown"))
            for name, version in bench.versions.items()
        ),
    ]
    for what, found, expected in compared:
        if found != expected:
            notes.append(f"The {what} is {found}, in the baseline it was {expected}.")
    if bench.models[0].model_sha256 != baseline.models[0].model_sha256:
        notes.append("The first model's file is another one than in the baseline.")
    for name, benchmark in (("benchmark", bench), ("baseline", baseline)):
        if benchmark.noisy_cells and len(bench.models) > 1:
            notes.append(
                f"The timing of the {name} was noisy in {benchmark.noisy_cells} of "
                f"{len(benchmark.noise)} cells."
            )
    return notes


def print_gate(result: GateResult) -> None:
    """Print the comparisons, the notes and the verdict to stdout."""
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(highlight=False)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("model", overflow="fold", min_width=8)
    table.add_column("quantity", no_wrap=True)
    for header in ("baseline", "now", "change", "limit"):
        table.add_column(header, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    colours = {"passed": "green", "failed": "red", "not judged": "yellow"}
    for judgement in result.judgements:
        verdict = f"[{colours[judgement.verdict]}]{judgement.reason or judgement.verdict}[/]"
        table.add_row(
            escape(judgement.model),
            judgement.quantity,
            _number(judgement.baseline),
            _number(judgement.bench),
            _number(judgement.change),
            f"{judgement.limit:g}",
            verdict,
        )
    console.print(table)
    for note in result.notes:
        console.print(note, markup=False)
    failed = sum(judgement.verdict == "failed" for judgement in result.judgements)
    beyond = "1 beyond its limit" if failed == 1 else f"{failed} beyond their limits"
    console.print("passed" if result.passed else f"failed: {beyond}")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
