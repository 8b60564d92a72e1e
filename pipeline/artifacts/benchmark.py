"""The benchmark file: what `bench` leaves, and `check` and the report read."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pipeline.artifacts.files import read_json
from pipeline.artifacts.manifest import from_json, to_json
from pipeline.errors import ArtifactError

__all__ = [
    "Benchmark",
    "BenchmarkData",
    "BenchmarkTask",
    "CellNoise",
    "Estimate",
    "LatencyCell",
    "Machine",
    "MatrixPlan",
    "ModelResult",
    "OperatorProfile",
    "OperatorTime",
    "Predictions",
    "SizeOnDisk",
    "Startup",
    "read_benchmark",
    "write_benchmark",
]

KIND = "smp-benchmark"
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Estimate:
    """A measured value with the ends of its 95 % bootstrap interval, all in the same unit."""

    value: float
    low: float
    high: float


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
class Startup:
    """Medians over fresh processes that open the model and run one batch.

    Attributes:
        processes: how many there were.
        load_ms: creating the ONNX Runtime session from a file in the page cache.
        baseline_rss_bytes: resident set before the model is opened, all libraries imported.
        peak_rss_bytes: highest resident set until the batch was done, the baseline included.
    """

    processes: int
    load_ms: float
    baseline_rss_bytes: int
    peak_rss_bytes: int

    @property
    def peak_memory_bytes(self) -> int:
        """What the model adds to the process at its highest."""
        return max(0, self.peak_rss_bytes - self.baseline_rss_bytes)


@dataclass(frozen=True)
class LatencyCell:
    """One model at one batch size and sequence length.

    Attributes:
        batch_size: texts a run.
        sequence_length: tokens a text, no padding.
        latencies_ms: every timed run, in the order of the repetitions, which the models share.
        p50_ms: the median.
        p90_ms: 90th percentile, linear between the runs.
        p99_ms: 99th percentile, linear between the runs.
        texts_per_second: texts of all runs over the time of all runs.
        ratio: median over the first model's median; below 1 is faster than the first.
    """

    batch_size: int
    sequence_length: int
    latencies_ms: tuple[float, ...]
    p50_ms: Estimate
    p90_ms: float
    p99_ms: float
    texts_per_second: float
    ratio: Estimate


@dataclass(frozen=True)
class Predictions:
    """What one model says of each example, in the order of the data.

    Attributes:
        labels: index of the largest logit; empty for regression.
        logits: float32 values, one tuple an example.
    """

    labels: tuple[int, ...]
    logits: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class MatrixPlan:
    """How the native library multiplies with one matrix.

    Attributes:
        matrix: its name in the graph.
        kernel: the kernel that was chosen.
        density: kept weights over all weights, in [0, 1].
    """

    matrix: str
    kernel: str
    density: float


@dataclass(frozen=True)
class OperatorTime:
    """All operators of one type in one run.

    Attributes:
        operator: the ONNX operator type.
        calls: how many there are in a run, after ONNX Runtime's own optimisation.
        ms: the time that they took together, the mean over the runs.
    """

    operator: str
    calls: float
    ms: float


@dataclass(frozen=True)
class OperatorProfile:
    """Where the time of one model goes, in one cell of the grid.

    Attributes:
        batch_size, sequence_length: the cell.
        runs: profiled runs; their times are not among the latencies.
        operators: the longest first, from ONNX Runtime's profiler, which takes time of its own.
        isa: the instruction set of the native library; None for a model without it.
        plan: one entry a matrix of the native library's operators.
        stages_ms: stage within the native library's operators -> time in a run, the mean.
    """

    batch_size: int
    sequence_length: int
    runs: int
    operators: tuple[OperatorTime, ...]
    isa: str | None
    plan: tuple[MatrixPlan, ...]
    stages_ms: Mapping[str, float]


@dataclass(frozen=True)
class ModelResult:
    """Everything that was measured of one model.

    Attributes:
        name: the directory's name, made unique within the benchmark.
        directory: as it was given.
        format: how the export stored the weights: ``dense``, ``packed`` or ``engine``.
        method: how the model was trained.
        density: kept weights over all weights of the pruned matrices.
        base_model: id of the pretrained model.
        model_sha256: hash of model.onnx.
        size: bytes on disk.
        startup: load time and peak memory.
        truncated: texts that were longer than the model's ``max_length`` and were cut.
        metrics: metric name -> value; the task's own metric is the first.
        latency: one entry a cell of the grid.
        predictions: per example.
        profile: kernels and time by operator; None where they were not asked for, and in files
            from before there were any.
    """

    name: str
    directory: str
    format: str
    method: str
    density: float
    base_model: str
    model_sha256: str
    size: SizeOnDisk
    startup: Startup
    truncated: int
    metrics: Mapping[str, Estimate]
    latency: tuple[LatencyCell, ...]
    predictions: Predictions
    profile: OperatorProfile | None = None


@dataclass(frozen=True)
class BenchmarkTask:
    """What all models of the benchmark predict.

    Attributes:
        kind: one label out of several, or one number.
        labels: label names in the order of the logits; empty for regression.
        metric: the metric that the task is judged by.
    """

    kind: Literal["classification", "regression"]
    labels: tuple[str, ...]
    metric: str


@dataclass(frozen=True)
class BenchmarkData:
    """The labelled texts.

    Attributes:
        source: the path, as it was given.
        sha256: hash of the file.
        rows: examples used, from the start of the file.
        text_column, text_pair_column, label_column: where they stood.
        example_ids: first 16 hexadecimal digits of the SHA-256 of each text (of text, NUL, second
            text for pairs); equal texts have equal ids.
        references: label index, or the number for regression, of each example.
    """

    source: str
    sha256: str
    rows: int
    text_column: str
    text_pair_column: str | None
    label_column: str
    example_ids: tuple[str, ...]
    references: tuple[int | float, ...]


@dataclass(frozen=True)
class CellNoise:
    """How steady the machine was, judged by the first model's runs in one cell.

    Attributes:
        batch_size, sequence_length: the cell.
        coefficient_of_variation: standard deviation over mean.
        drift: median of the second half of the runs over that of the first half, minus 1.
        noisy: one of the two is beyond its limit (docs/bench.md).
    """

    batch_size: int
    sequence_length: int
    coefficient_of_variation: float
    drift: float
    noisy: bool


@dataclass(frozen=True)
class Machine:
    """What the benchmark ran on.

    Attributes:
        cpu: the processor's name.
        instruction_sets: the vector extensions that the operating system reports, if it does.
        physical_cores: of the machine, None if unknown.
        logical_cores: of the machine.
        usable_cores: logical cores that affinity and cgroup leave to the process.
        memory_bytes: of the machine.
        load_average: over the last minute before the start, None where there is none.
        os: name and version.
        python: version.
    """

    cpu: str
    instruction_sets: tuple[str, ...]
    physical_cores: int | None
    logical_cores: int
    usable_cores: int
    memory_bytes: int
    load_average: float | None
    os: str
    python: str


@dataclass(frozen=True)
class Benchmark:
    """Several models, measured in one go on one machine over one data file.

    Attributes:
        smp_pipeline_version: the version that wrote it.
        created: UTC time of the end, ISO 8601.
        machine: what it ran on.
        versions: package -> version.
        threads: intra-op threads of every session.
        task: what the models predict.
        data: the labelled texts.
        settings: the resolved configuration.
        noise: one entry a cell of the grid.
        models: in the order given; ratios are to the first.
    """

    smp_pipeline_version: str
    created: str
    machine: Machine
    versions: Mapping[str, str]
    threads: int
    task: BenchmarkTask
    data: BenchmarkData
    settings: Mapping[str, Any]
    noise: tuple[CellNoise, ...]
    models: tuple[ModelResult, ...]

    @property
    def noisy_cells(self) -> int:
        """Number of cells whose timing was not steady."""
        return sum(cell.noisy for cell in self.noise)


def write_benchmark(path: Path, benchmark: Benchmark) -> None:
    """Write a benchmark to a (staged) file."""
    content = {"kind": KIND, "schema_version": SCHEMA_VERSION, **to_json(benchmark)}
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    path.write_text(text, encoding="utf-8")


def read_benchmark(path: Path) -> Benchmark:
    """Read a benchmark and check that its parts fit together.

    Raises:
        ArtifactError: the file is missing, no benchmark, of a newer schema, or corrupt.
    """
    content = read_json(path, kind=KIND, schema_version=SCHEMA_VERSION)
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
    rows = benchmark.data.rows
    if rows < 1 or {len(benchmark.data.example_ids), len(benchmark.data.references)} != {rows}:
        problems.append(f"data.rows is {rows}, which does not fit its examples")
    grid = [(cell.batch_size, cell.sequence_length) for cell in benchmark.noise]
    if not grid or len(set(grid)) != len(grid):
        problems.append("the latency grid is empty or names a cell twice")
    for model in benchmark.models:
        problems += [f"model {model.name}: {text}" for text in _model_problems(benchmark, model)]
    return problems


def _model_problems(benchmark: Benchmark, model: ModelResult) -> list[str]:
    problems = []
    grid = [(cell.batch_size, cell.sequence_length) for cell in benchmark.noise]
    if [(cell.batch_size, cell.sequence_length) for cell in model.latency] != grid:
        problems.append("its latency cells are not those of the grid")
    if any(cell.p50_ms.value <= 0 or cell.ratio.value <= 0 for cell in model.latency):
        problems.append("a latency is not positive")
    if min(model.size.model_bytes, model.size.directory_bytes, model.size.zipped_bytes) <= 0:
        problems.append("a size is not positive")
    if benchmark.task.metric not in model.metrics:
        problems.append(f"it has no {benchmark.task.metric}")
    classification = benchmark.task.kind == "classification"
    outputs = len(benchmark.task.labels) if classification else 1
    predictions = model.predictions
    if len(predictions.logits) != benchmark.data.rows or any(
        len(logits) != outputs for logits in predictions.logits
    ):
        problems.append("its logits do not fit the examples and labels")
    if len(predictions.labels) != (benchmark.data.rows if classification else 0) or any(
        not 0 <= label < outputs for label in predictions.labels
    ):
        problems.append("its predicted labels do not fit the examples and labels")
    return problems
