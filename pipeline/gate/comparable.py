"""Whether two benchmarks measured the same, so that a verdict on them means something."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.artifacts.benchmark import Benchmark, ModelResult
from pipeline.errors import DataError
from pipeline.gate.terminal import printable

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
            f"{bench_path} cannot be held against {baseline_path}: {printable(what)} must be "
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
            has = printable(", ".join(models))
            raise DataError(
                f"{bench_path} lacks the model {before.name!r} of {baseline_path}, it has {has}; "
                "measure it too, or accept the change with --update"
            )
        if now is not None:
            for what in ("engine", "provider", "tokenizer_sha256"):
                expected, found = getattr(before, what), getattr(now, what)
                if found != expected:
                    name = what.replace("_sha256", "'s SHA-256")
                    refuse(f"the {name} of {before.name}", expected, found)


def _conditions(bench: Benchmark, baseline: Benchmark) -> Iterator[tuple[str, Any, Any]]:
    """What must be equal: its name, as it was, and as it is."""
    yield "the first model", baseline.models[0].name, bench.models[0].name
    yield "the cells", _cells(baseline), _cells(bench)
    earlier, now = baseline.task, bench.task
    yield "the labelled texts", _presence(earlier), _presence(now)
    if earlier is not None and now is not None:
        yield "the task", earlier.kind, now.kind
        yield "the labels", earlier.labels, now.labels
        yield "the metric", earlier.metric, now.metric
    before, data = baseline.data, bench.data
    if before is not None and data is not None:
        yield "the SHA-256 of the data", before.sha256, data.sha256
        yield "the examples", before.example_ids, data.example_ids
        yield "the labels of the examples", before.references, data.references


def _presence(value: object | None) -> str:
    return "none" if value is None else "some"


def _cells(benchmark: Benchmark) -> list[str]:
    return [measured.cell.name for measured in benchmark.cells]


def _shorten(value: Any) -> str:
    text = printable(value if isinstance(value, str) else ", ".join(map(str, value)))
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
