"""Whether two benchmarks measured the same, so that a verdict on them means something."""

from pathlib import Path
from typing import Any

from pipeline.artifacts.benchmark import Benchmark, ModelResult
from pipeline.errors import DataError

__all__ = ["check_comparable", "is_peer"]

_LONGEST = 70


def is_peer(model: ModelResult) -> bool:
    """Whether it is the first model on another engine, measured to compare with, not to ship."""
    return model.engine != "onnxruntime"


def check_comparable(
    bench: Benchmark, baseline: Benchmark, *, bench_path: Path, baseline_path: Path
) -> None:
    """Refuse benchmarks of other data, tokenizers, labels, metrics, cells or models.

    Raises:
        DataError: with the first difference.
    """

    def refuse(what: str, expected: Any, found: Any) -> None:
        raise DataError(
            f"{bench_path} cannot be held against {baseline_path}: {what} must be "
            f"{_shorten(expected)} as in the baseline, got {_shorten(found)}; run "
            "`smp-pipeline bench` again as for the baseline, or accept it with --update"
        )

    for what, expected, found in _conditions(bench, baseline):
        if found != expected:
            refuse(what, expected, found)
    models = {model.name: model for model in bench.models}
    for before in baseline.models:
        now = models.get(before.name)
        if now is None and not is_peer(before):
            raise DataError(
                f"{bench_path} lacks the model {before.name!r} of {baseline_path}, it has "
                f"{', '.join(models)}; measure it too, or accept the change with --update"
            )
        if now is not None:
            for what in ("engine", "provider", "tokenizer_sha256"):
                expected, found = getattr(before, what), getattr(now, what)
                if found != expected:
                    name = what.replace("_sha256", "'s SHA-256")
                    refuse(f"the {name} of {before.name}", expected, found)


def _conditions(bench: Benchmark, baseline: Benchmark) -> list[tuple[str, Any, Any]]:
    """What must be equal: its name, as it was, and as it is."""
    conditions: list[tuple[str, Any, Any]] = [
        ("the first model", baseline.models[0].name, bench.models[0].name),
        ("the cells", _cells(baseline), _cells(bench)),
    ]
    if None in (bench.task, baseline.task) and bench.task != baseline.task:
        present = ["no" if b.task is None else "some" for b in (baseline, bench)]
        return [*conditions, ("the labelled texts", *present)]
    for name, what in (("kind", "the task"), ("labels", "the labels"), ("metric", "the metric")):
        conditions.append(
            (what, getattr(baseline.task, name, None), getattr(bench.task, name, None))
        )
    for name, what in (
        ("sha256", "the SHA-256 of the data"),
        ("example_ids", "the examples"),
        ("references", "the labels of the examples"),
    ):
        conditions.append(
            (what, getattr(baseline.data, name, None), getattr(bench.data, name, None))
        )
    return conditions


def _cells(benchmark: Benchmark) -> list[str]:
    return [measured.cell.name for measured in benchmark.cells]


def _shorten(value: Any) -> str:
    text = value if isinstance(value, str) else ", ".join(map(str, value))
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
