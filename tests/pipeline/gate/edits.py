"""Benchmarks that differ from a real one in one respect."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pipeline.artifacts.benchmark import (
    Benchmark,
    Estimate,
    ModelResult,
    Steadiness,
    Timing,
    TimingSummary,
)
from pipeline.config import CheckConfig
from pipeline.gate.judge import judge
from pipeline.gate.judgement import GateResult
from pipeline.metrics import METRICS

Edit = Callable[[ModelResult], ModelResult]


def edited(benchmark: Benchmark, position: int, *edits: Edit) -> Benchmark:
    models = list(benchmark.models)
    for edit in edits:
        models[position] = edit(models[position])
    return dataclasses.replace(benchmark, models=tuple(models))


def predicting(benchmark: Benchmark, labels: Sequence[int]) -> Edit:
    """The model with these labels, and the metrics that go with them."""
    import numpy as np

    assert benchmark.data is not None
    references = np.array(benchmark.data.references)

    def edit(model: ModelResult) -> ModelResult:
        assert model.quality is not None
        predictions = dataclasses.replace(model.quality.predictions, labels=tuple(labels))
        metrics = {
            name: Estimate(value, value, value)
            for name in model.quality.metrics
            for value in (METRICS[name](np.array(labels), references),)
        }
        quality = dataclasses.replace(model.quality, predictions=predictions, metrics=metrics)
        return dataclasses.replace(model, quality=quality)

    return edit


def wrong(benchmark: Benchmark, examples: Sequence[int]) -> Edit:
    """The model wrong on these examples, right on all others."""
    assert benchmark.data is not None
    labels = [
        1 - int(reference) if example in set(examples) else int(reference)
        for example, reference in enumerate(benchmark.data.references)
    ]
    return predicting(benchmark, labels)


def ratio(value: float, error: float = 0.01, cells: Sequence[int] = (0, 1)) -> Edit:
    """The model with this latency ratio in some cells; ``error`` is half an interval's width."""

    def edit(model: ModelResult) -> ModelResult:
        timings = list(model.timings)
        for cell in cells:
            summary = timings[cell].summary
            assert summary is not None
            estimate = Estimate(value, value / (1 + error), value * (1 + error))
            timings[cell] = dataclasses.replace(
                timings[cell], summary=dataclasses.replace(summary, ratio=estimate)
            )
        return dataclasses.replace(model, timings=tuple(timings))

    return edit


def steady(benchmark: Benchmark) -> Benchmark:
    """The benchmark as a machine without noise would have timed it: all models take 1 ms."""
    one = Estimate(1.0, 1.0, 1.0)
    timing = Timing((1.0, 1.0, 1.0), TimingSummary(one, 1.0, 1.0, 1000.0, one, None))
    cells = tuple(
        dataclasses.replace(cell, steadiness=Steadiness(0.0, 0.0, None, True, "steady", ()))
        for cell in benchmark.cells
    )
    models = tuple(
        dataclasses.replace(model, timings=(timing,) * len(cells)) for model in benchmark.models
    )
    return dataclasses.replace(benchmark, cells=cells, models=models)


def size(size_bytes: int) -> Edit:
    def edit(model: ModelResult) -> ModelResult:
        assert model.size is not None
        return dataclasses.replace(
            model, size=dataclasses.replace(model.size, directory_bytes=size_bytes)
        )

    return edit


def unusable(benchmark: Benchmark, cell: int) -> Benchmark:
    """The benchmark with one cell that the machine was too unsteady for."""
    cells = list(benchmark.cells)
    steadiness = dataclasses.replace(
        cells[cell].steadiness, verdict="unusable", reasons=("another program ran.",)
    )
    cells[cell] = dataclasses.replace(cells[cell], steadiness=steadiness)
    models = []
    for model in benchmark.models:
        timings = list(model.timings)
        timings[cell] = dataclasses.replace(timings[cell], summary=None)
        models.append(dataclasses.replace(model, timings=tuple(timings)))
    return dataclasses.replace(benchmark, cells=tuple(cells), models=tuple(models))


def judged(bench: Benchmark, baseline: Benchmark, **limits: Any) -> GateResult:
    return judge(bench, baseline, CheckConfig(Path("bench.json"), Path("baseline.json"), **limits))


def failures(result: GateResult) -> list[tuple[str, str]]:
    return [(j.model, j.quantity) for j in result.of_verdict("failed")]
