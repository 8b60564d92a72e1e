"""How long the models took, and how far that can be trusted."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

__all__ = [
    "Cell",
    "Estimate",
    "MatrixPlan",
    "MeasuredCell",
    "OperatorProfile",
    "OperatorTime",
    "Scenario",
    "Startup",
    "Steadiness",
    "Timing",
    "TimingSummary",
]

Scenario = Literal["grid", "single-stream", "multi-stream", "offline"]


@dataclass(frozen=True)
class Estimate:
    """A measured value with the ends of its 95 % interval, all in the same unit."""

    value: float
    low: float
    high: float


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
class Cell:
    """What one timed run is.

    Attributes:
        scenario: ``grid``: one batch of an exact shape. The others take texts of the data at their
            own lengths, named as in MLPerf Inference: ``single-stream`` one text a run,
            ``multi-stream`` several together, ``offline`` all of them, in batches.
        batch_size: texts a batch.
        texts: texts a run; more than a batch for ``offline`` only.
        sequence_length: tokens a text, without padding; None where the lengths are the data's.
        threads: intra-op threads.
    """

    scenario: Scenario
    batch_size: int
    texts: int
    sequence_length: int | None
    threads: int

    @property
    def name(self) -> str:
        """What it is, for people."""
        texts = "1 text" if self.texts == 1 else f"{self.texts} texts"
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        if self.scenario == "grid":
            return f"{texts} of {self.sequence_length} tokens, {threads}"
        batches = f" in batches of {self.batch_size}" if self.texts > self.batch_size else ""
        return f"{self.scenario}, {texts}{batches}, {threads}"


@dataclass(frozen=True)
class Steadiness:
    """How far the timing of one cell can be trusted, judged by the first model's runs.

    Where runs have texts of different length, what the length explains is taken out first.

    Attributes:
        coefficient_of_variation: standard deviation over mean.
        drift: median of the second half of the runs over that of the first half, minus 1.
        control: a second copy of the first model, timed in the same turns, over the first: 1 if
            only the model made a difference. None where none was timed.
        warm: the runs before timing came to a stable time.
        verdict: ``unusable`` timings are kept as they came, and nothing is derived from them.
        reasons: why it is not steady, a sentence each.
    """

    coefficient_of_variation: float
    drift: float
    control: Estimate | None
    warm: bool
    verdict: Literal["steady", "noisy", "unusable"]
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class MeasuredCell:
    """A cell, and how steady the machine was in it."""

    cell: Cell
    steadiness: Steadiness


@dataclass(frozen=True)
class TimingSummary:
    """What the timed runs of one model in one cell say.

    Attributes:
        p50_ms: the median of a run.
        p90_ms: 90th percentile, linear between the runs.
        p99_ms: 99th percentile, linear between the runs.
        texts_per_second: texts of all runs over the time of all runs.
        ratio: median over the first model's median; below 1 is faster than the first. Its interval
            is widened by the distance of the cell's control from 1.
        joules_per_text: energy of the processor packages; None where the machine does not tell.
    """

    p50_ms: Estimate
    p90_ms: float
    p99_ms: float
    texts_per_second: float
    ratio: Estimate
    joules_per_text: float | None


@dataclass(frozen=True)
class Timing:
    """One model in one cell.

    Attributes:
        latencies_ms: every timed run, in the order of the repetitions, which the models share.
        summary: None where the cell is unusable.
    """

    latencies_ms: tuple[float, ...]
    summary: TimingSummary | None


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
