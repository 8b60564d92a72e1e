"""Benchmarks as `bench` writes them, made of what a measurement of the gate has."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts.benchmark import (
    Benchmark,
    BenchmarkData,
    BenchmarkTask,
    Cell,
    Estimate,
    Machine,
    MeasuredCell,
    ModelResult,
    Predictions,
    Quality,
    Robustness,
    Steadiness,
    Timing,
    TimingSummary,
)
from pipeline.config import CheckConfig
from pipeline.gate.judge import judge
from pipeline.metrics import METRICS

__all__ = ["STEADY", "Rate", "benchmark_of", "verdict", "with_predictions"]

_STEADINESS = Steadiness(0.0, 0.0, None, True, "steady", ())
_MS = Estimate(1.0, 1.0, 1.0)
_TIMING = Timing((1.0,), TimingSummary(_MS, 1.0, 1.0, 1.0, _MS, None))
# The default grid of `bench`, in which nothing has changed.
STEADY = tuple(
    (MeasuredCell(Cell("grid", batch, batch, length, 1), _STEADINESS), (_TIMING, _TIMING))
    for batch in (1, 8)
    for length in (32, 128)
)


@dataclass
class Rate:
    """How checks of one kind ended.

    Attributes:
        what: what they were of.
        checks: how many got a verdict.
        failed: how many of these failed.
        unmeasured: how many got none, since the machine was too unsteady.
    """

    what: str
    checks: int = 0
    failed: int = 0
    unmeasured: int = 0

    def count(self, verdict: str) -> None:
        """Add a check."""
        self.unmeasured += verdict == "unmeasured"
        self.checks += verdict != "unmeasured"
        self.failed += verdict == "failed"


def benchmark_of(
    machine: Machine,
    cells: Sequence[tuple[MeasuredCell, Sequence[Timing]]],
    *,
    models: int,
) -> Benchmark:
    """A benchmark without labelled texts; the models are called 0, 1, ..."""
    return Benchmark(
        smp_pipeline_version="benchmark",
        created="",
        machine=machine,
        versions={},
        task=None,
        data=None,
        settings={},
        cells=tuple(cell for cell, _ in cells),
        models=tuple(
            ModelResult(
                name=str(index),
                source="",
                engine="onnxruntime",
                provider="CPUExecutionProvider",
                export=None,
                model_sha256=None,
                tokenizer_sha256="",
                size=None,
                startup=None,
                quality=None,
                timings=tuple(timings[index] for _, timings in cells),
                profile=None,
            )
            for index in range(models)
        ),
    )


def with_predictions(
    benchmark: Benchmark,
    metric: str,
    references: NDArray[np.int64],
    predictions: Sequence[NDArray[np.int64]],
) -> Benchmark:
    """The benchmark with labelled texts.

    Args:
        benchmark: without them.
        metric: that the task is judged by.
        references: labels 0 and 1, [n].
        predictions: the labels that each model gives, [n].
    """
    rows = len(references)
    ids = tuple(f"{row:016x}" for row in range(rows))
    data = BenchmarkData("", "", rows, "text", None, "label", ids, tuple(references.tolist()))
    models = []
    for model, labels in zip(benchmark.models, predictions, strict=True):
        value = METRICS[metric](labels, references)
        said = Predictions(tuple(labels.tolist()), ())
        quality = Quality(
            0, {metric: Estimate(value, value, value)}, said, (), Robustness(0, 0, 0.0), None
        )
        models.append(replace(model, quality=quality))
    task = BenchmarkTask("classification", ("0", "1"), metric)
    return replace(benchmark, task=task, data=data, models=tuple(models))


def verdict(baseline: Benchmark, bench: Benchmark, **limits: Any) -> str:
    """What the gate says."""
    return judge(bench, baseline, CheckConfig(Path("bench"), Path("baseline"), **limits)).verdict
