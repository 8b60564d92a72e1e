"""The benchmark: what `bench` leaves, and `check` and the report read.

One JSON file: :class:`Benchmark`.
"""

from pipeline.artifacts.benchmark.file import (
    Benchmark,
    ExportFacts,
    ModelResult,
    SizeOnDisk,
    read_benchmark,
    write_benchmark,
)
from pipeline.artifacts.benchmark.machine import (
    Machine,
    Processor,
)
from pipeline.artifacts.benchmark.quality import (
    Agreement,
    BenchmarkData,
    BenchmarkTask,
    Predictions,
    Quality,
    Reference,
    Robustness,
    Slice,
)
from pipeline.artifacts.benchmark.timing import (
    Cell,
    Estimate,
    MatrixPlan,
    MeasuredCell,
    OperatorProfile,
    OperatorTime,
    Scenario,
    Startup,
    Steadiness,
    Timing,
    TimingSummary,
)

__all__ = [
    "Agreement",
    "Benchmark",
    "BenchmarkData",
    "BenchmarkTask",
    "Cell",
    "Estimate",
    "ExportFacts",
    "Machine",
    "MatrixPlan",
    "MeasuredCell",
    "ModelResult",
    "OperatorProfile",
    "OperatorTime",
    "Predictions",
    "Processor",
    "Quality",
    "Reference",
    "Robustness",
    "Scenario",
    "SizeOnDisk",
    "Slice",
    "Startup",
    "Steadiness",
    "Timing",
    "TimingSummary",
    "read_benchmark",
    "write_benchmark",
]
