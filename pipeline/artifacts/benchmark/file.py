"""The benchmark file itself, and whether its parts fit together."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.artifacts.benchmark.machine import Machine
from pipeline.artifacts.benchmark.quality import (
    BenchmarkData,
    BenchmarkTask,
    Predictions,
    Quality,
    Reference,
)
from pipeline.artifacts.benchmark.timing import MeasuredCell, OperatorProfile, Startup, Timing
from pipeline.artifacts.files import read_json
from pipeline.artifacts.manifest import from_json, to_json
from pipeline.errors import ArtifactError
from pipeline.metrics import TASK_METRICS

__all__ = [
    "Benchmark",
    "ExportFacts",
    "ModelResult",
    "SizeOnDisk",
    "read_benchmark",
    "write_benchmark",
]

KIND = "smp-benchmark"
SCHEMA_VERSION = 2


@dataclass(frozen=True)
class SizeOnDisk:
    """What a model directory takes.

    Attributes:
        model_bytes: model.onnx, and model.onnx.data where there is one.
        directory_bytes: all files of the directory.
        zipped_bytes: a zip file (deflate) of the directory.
    """

    model_bytes: int
    directory_bytes: int
    zipped_bytes: int


@dataclass(frozen=True)
class ExportFacts:
    """What the manifest of a model directory says; other ONNX files have none.

    Attributes:
        format: how the weights are stored: ``dense``, ``sparse``, ``packed`` or ``engine``.
        method: how the model was trained.
        density: kept weights over all weights of the pruned matrices.
        base_model: id of the pretrained model.
        densities: pruned matrix -> share of its weights that is kept; empty where the export did
            not note them.
    """

    format: str
    method: str
    density: float
    base_model: str
    densities: Mapping[str, float]


@dataclass(frozen=True)
class ModelResult:
    """Everything that was measured of one model on one engine.

    Attributes:
        name: the directory's or file's name, made unique within the benchmark.
        source: the path as it was given.
        engine: what ran it: ``onnxruntime``, or the name of a peer.
        provider: ONNX Runtime's execution provider, or the peer's device.
        export: what its manifest says; None for files of others.
        model_sha256: hash of the ONNX file; None for a PyTorch model.
        tokenizer_sha256: hash of tokenizer.json.
        size: bytes on disk; None for a PyTorch model.
        startup: load time and peak memory; None for peers.
        quality: None without labelled data.
        timings: one entry a cell of the benchmark.
        profile: kernels and time by operator; None where they were not asked for.
    """

    name: str
    source: str
    engine: str
    provider: str
    export: ExportFacts | None
    model_sha256: str | None
    tokenizer_sha256: str
    size: SizeOnDisk | None
    startup: Startup | None
    quality: Quality | None
    timings: tuple[Timing, ...]
    profile: OperatorProfile | None


@dataclass(frozen=True)
class Benchmark:
    """Several models, measured in one go on one machine over one data file.

    Attributes:
        smp_pipeline_version: the version that wrote it.
        created: UTC time of the end, ISO 8601.
        machine: what it ran on.
        versions: package -> version.
        task: what the models predict; None without labelled data.
        data: the labelled texts; None without them.
        settings: the resolved configuration.
        cells: what was timed.
        models: in the order given; ratios and agreement are to the first.
    """

    smp_pipeline_version: str
    created: str
    machine: Machine
    versions: Mapping[str, str]
    task: BenchmarkTask | None
    data: BenchmarkData | None
    settings: Mapping[str, Any]
    cells: tuple[MeasuredCell, ...]
    models: tuple[ModelResult, ...]

    @property
    def unsteady_cells(self) -> int:
        """Number of cells whose timing was noisy or unusable."""
        return sum(cell.steadiness.verdict != "steady" for cell in self.cells)


def write_benchmark(path: Path, benchmark: Benchmark) -> None:
    """Write a benchmark to a (staged) file."""
    content = {"kind": KIND, "schema_version": SCHEMA_VERSION, **to_json(benchmark)}
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    path.write_text(text, encoding="utf-8")


def read_benchmark(path: Path) -> Benchmark:
    """Read a benchmark and check that its parts fit together.

    Raises:
        ArtifactError: the file is missing, no benchmark, of another schema, or corrupt.
    """
    content = read_json(path, kind=KIND, schema_version=SCHEMA_VERSION)
    if content["schema_version"] < SCHEMA_VERSION:
        raise ArtifactError(
            f"{path} has schema version {content['schema_version']}, from before smp-pipeline "
            f"0.2, this one reads {SCHEMA_VERSION}; run `smp-pipeline bench` again"
        )
    benchmark = from_json(Benchmark, content, source=path)
    for problem in _problems(benchmark):
        raise ArtifactError(f"{path} is corrupt: {problem}; run `smp-pipeline bench` again")
    return benchmark


def _problems(benchmark: Benchmark) -> list[str]:
    problems = []
    names = [model.name for model in benchmark.models]
    if not names:
        problems.append("it has no models")
    if len(set(names)) != len(names):
        problems.append("two models have the same name")
    cells = [measured.cell for measured in benchmark.cells]
    if not cells or len(set(cells)) != len(cells):
        problems.append("it has no cells, or one twice")
    if (benchmark.task is None) != (benchmark.data is None):
        problems.append("it has a task without data, or data without a task")
    data = benchmark.data
    if data is not None and (
        data.rows < 1 or {len(data.example_ids), len(data.references)} != {data.rows}
    ):
        problems.append(f"data.rows is {data.rows}, which does not fit its examples")
    task = benchmark.task
    if task is not None and data is not None and not all(_fits(r, task) for r in data.references):
        problems.append(f"data.references are not those of {task.kind}")
    for model in benchmark.models:
        problems += [f"model {model.name}: {text}" for text in _model_problems(benchmark, model)]
    return problems


def _model_problems(benchmark: Benchmark, model: ModelResult) -> list[str]:
    problems = []
    if len(model.timings) != len(benchmark.cells):
        problems.append("its timings are not those of the cells")
    for measured, timing in zip(benchmark.cells, model.timings, strict=False):
        usable = measured.steadiness.verdict != "unusable"
        if usable != (timing.summary is not None):
            problems.append("a timing has a summary where there must be none, or none")
        if not timing.latencies_ms or min(timing.latencies_ms) <= 0:
            problems.append("a latency is not positive")
        if timing.summary is not None:
            ratio = timing.summary.ratio
            if not all(value > 0 for value in (ratio.value, ratio.low, ratio.high)):
                problems.append("a ratio is not positive")
    size = model.size
    if size is not None and min(size.model_bytes, size.directory_bytes, size.zipped_bytes) <= 0:
        problems.append("a size is not positive")
    if (model.quality is None) != (benchmark.task is None):
        problems.append("it has a quality without a task, or none")
    if model.quality is not None and benchmark.task is not None and benchmark.data is not None:
        problems += _quality_problems(benchmark.task, benchmark.data, model.quality)
    return problems


def _quality_problems(task: BenchmarkTask, data: BenchmarkData, quality: Quality) -> list[str]:
    problems = []
    if task.metric not in quality.metrics or task.metric not in TASK_METRICS[task.kind]:
        problems.append(f"it has no {task.metric}")
    problems += _prediction_problems(task, data, quality.predictions)
    if quality.agreement is not None and any(
        not 0 <= example < data.rows for example in quality.agreement.examples
    ):
        problems.append("its agreement names examples that there are not")
    return problems


def _fits(reference: Reference, task: BenchmarkTask) -> bool:
    """Whether it is what should be said of an example of such a task."""
    match task.kind:
        case "question-answering":
            return isinstance(reference, tuple) and all(isinstance(t, str) for t in reference)
        case "token-classification":
            labels = range(len(task.labels))
            if not isinstance(reference, tuple) or not reference:
                return False  # of no words there is no accuracy
            return all(tag in labels for tag in reference)
    return not isinstance(reference, tuple)


def _prediction_problems(
    task: BenchmarkTask, data: BenchmarkData, predictions: Predictions
) -> list[str]:
    problems = []
    by_text = task.kind in ("classification", "regression")
    outputs = max(1, len(task.labels))
    if len(predictions.logits) != (data.rows if by_text else 0) or any(
        len(logits) != outputs or not all(map(math.isfinite, logits))
        for logits in predictions.logits
    ):
        problems.append("its logits do not fit the examples and labels")
    labels = range(outputs)
    if len(predictions.labels) != (data.rows if task.kind == "classification" else 0) or any(
        label not in labels for label in predictions.labels
    ):
        problems.append("its predicted labels do not fit the examples and labels")
    if len(predictions.answers) != (data.rows if task.kind == "question-answering" else 0):
        problems.append("its answers do not fit the examples")
    wanted = data.references if task.kind == "token-classification" else ()
    if len(predictions.tags) != len(wanted) or any(
        not isinstance(truths, tuple)
        or len(tags) != len(truths)
        or not all(tag in range(-1, outputs) for tag in tags)
        for tags, truths in zip(predictions.tags, wanted, strict=False)
    ):
        problems.append("its labels of words do not fit the examples and labels")
    return problems
