"""One model against itself in the baseline: quality, size, and latency in each cell."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from pipeline.artifacts.benchmark import (
    Benchmark,
    BenchmarkData,
    BenchmarkTask,
    Estimate,
    ModelResult,
)
from pipeline.config import CheckConfig
from pipeline.example_values import ExampleValues, example_values
from pipeline.gate.judgement import Judgement
from pipeline.gate.paired import Evidence, accuracy_evidence, latency_evidence, metric_evidence

__all__ = ["compare_model"]


def compare_model(
    model: ModelResult, bench: Benchmark, baseline: Benchmark, config: CheckConfig, *, level: float
) -> Iterator[Judgement]:
    """All comparisons of a model; none has failed yet.

    Args:
        model: one of ``bench``.
        bench: the benchmark to judge.
        baseline: the earlier one, which measured the same.
        config: the limits.
        level: the p-value at which a single comparison is surely no chance.
    """
    before = next((entry for entry in baseline.models if entry.name == model.name), None)
    if model.quality is not None:
        yield _quality(model, before, bench, config.max_accuracy_drop, level)
    if model.size is not None:
        yield _size(model, before, config.max_size_ratio)
    if model.name != bench.models[0].name:
        for cell in range(len(bench.cells)):
            yield _latency(model, before, bench, baseline, cell, config, level)


def _quality(
    model: ModelResult, before: ModelResult | None, bench: Benchmark, limit: float, level: float
) -> Judgement:
    assert bench.task is not None and model.quality is not None
    metric = bench.task.metric
    now = model.quality.metrics[metric].value
    judgement = Judgement(model.name, "quality", metric, limit, bench=now)
    if before is None or before.quality is None:
        return _new(judgement)
    evidence = _quality_evidence(before, model, bench, level)
    return _judged(judgement, before.quality.metrics[metric].value, evidence)


def _quality_evidence(
    before: ModelResult, now: ModelResult, bench: Benchmark, level: float
) -> Evidence:
    assert bench.task is not None and bench.data is not None
    # In the order of the ids, so that the order of the file does not decide what is drawn.
    order = np.argsort(bench.data.example_ids, kind="stable")
    earlier, later = (
        _values(model, bench.task, bench.data).select(order) for model in (before, now)
    )
    if earlier.is_share:
        right = (values.rows[:, 0] == 1 for values in (earlier, later))
        return accuracy_evidence(*right, level=level)
    return metric_evidence(
        lambda rows, _: earlier.compute(rows), earlier.rows, later.rows, earlier.rows, level=level
    )


def _values(model: ModelResult, task: BenchmarkTask, data: BenchmarkData) -> ExampleValues:
    """What the task's metric is computed from."""
    assert model.quality is not None
    return example_values(task, task.metric, model.quality.predictions, data.references)


def _size(model: ModelResult, before: ModelResult | None, limit: float) -> Judgement:
    assert model.size is not None
    now = model.size.directory_bytes / 1e6
    judgement = Judgement(model.name, "size", "size in MB", limit, bench=now)
    if before is None or before.size is None:
        return _new(judgement)
    value = before.size.directory_bytes / 1e6
    return replace(judgement, baseline=value, change=now / value)


def _latency(
    model: ModelResult,
    before: ModelResult | None,
    bench: Benchmark,
    baseline: Benchmark,
    cell: int,
    config: CheckConfig,
    level: float,
) -> Judgement:
    now = _ratio(model, cell)
    judgement = Judgement(
        model.name,
        "latency",
        f"latency ratio, {bench.cells[cell].cell.name}",
        config.max_latency_ratio,
        bench=None if now is None else now.value,
    )
    if before is None:
        return _new(judgement)
    earlier = _ratio(before, cell)
    if now is not None and earlier is not None:
        return _judged(judgement, earlier.value, latency_evidence(earlier, now, level=level))
    where, unusable = ("benchmark", bench) if now is None else ("baseline", baseline)
    why = " ".join(unusable.cells[cell].steadiness.reasons).rstrip(".")
    return replace(
        judgement,
        baseline=None if earlier is None else earlier.value,
        verdict="not judged" if config.allow_unmeasured else "unmeasured",
        reason=f"unusable timing in the {where} ({why})",
    )


def _ratio(model: ModelResult, cell: int) -> Estimate | None:
    summary = model.timings[cell].summary
    return None if summary is None else summary.ratio


def _new(judgement: Judgement) -> Judgement:
    return replace(judgement, verdict="not judged", reason="not in the baseline")


def _judged(judgement: Judgement, baseline: float, evidence: Evidence) -> Judgement:
    return replace(
        judgement,
        baseline=baseline,
        change=evidence.change,
        p_value=evidence.p_value,
        detectable=evidence.detectable,
    )
