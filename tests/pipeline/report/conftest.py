"""Benchmarks that have all that one can have, and that lack all that one can lack."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.artifacts.benchmark import (
    Agreement,
    Benchmark,
    Cell,
    Estimate,
    ExportFacts,
    MatrixPlan,
    MeasuredCell,
    ModelResult,
    OperatorProfile,
    OperatorTime,
    Processor,
    Robustness,
    SizeOnDisk,
    Slice,
    Startup,
    Steadiness,
    Timing,
    TimingSummary,
    write_benchmark,
)

CELLS = (
    MeasuredCell(
        Cell("grid", 1, 1, 16, 1),
        Steadiness(0.02, 0.01, Estimate(1.0, 0.99, 1.01), True, "steady", ()),
    ),
    MeasuredCell(
        Cell("single-stream", 1, 1, None, 1),
        Steadiness(0.2, 0.01, None, True, "noisy", ("The runs vary by 20 %.",)),
    ),
    MeasuredCell(
        Cell("offline", 32, 256, None, 1),
        Steadiness(0.5, 0.4, None, False, "unusable", ("The clock fell.",)),
    ),
)
MATRICES = tuple(
    f"encoder.layer.{layer}.{kind}.weight"
    for layer in range(3)
    for kind in ("attention.self.query", "output.dense")
)
DENSITIES = {name: 0.05 * (position + 1) for position, name in enumerate(MATRICES)}
PROFILE = OperatorProfile(
    batch_size=1,
    sequence_length=16,
    runs=10,
    operators=(
        OperatorTime("SmpEncoder", 1.0, 9.0),
        OperatorTime("Gather", 3.0, 0.96),
        OperatorTime("Cast", 2.0, 0.04),
    ),
    isa="avx2",
    plan=tuple(
        MatrixPlan(name, "int8" if density < 0.2 else "dense_fp32", density)
        for name, density in DENSITIES.items()
    ),
    stages_ms={"products": 6.0, "attention": 2.5},
)


def around(value: float, half: float) -> Estimate:
    return Estimate(value, value - half, value + half)


def timings(milliseconds: float) -> tuple[Timing, ...]:
    found = []
    for measured in CELLS:
        runs = tuple(milliseconds * (1.0 + step / 40) for step in range(20))
        summary = TimingSummary(
            around(milliseconds, 0.1), runs[17], runs[-1], 1000 / runs[9], around(1.0, 0.1), None
        )
        unusable = measured.steadiness.verdict == "unusable"
        found.append(Timing(runs, None if unusable else summary))
    return tuple(found)


@pytest.fixture(scope="session")
def full_benchmark(benchmark: Benchmark) -> Benchmark:
    """A dense model, a pruned one on the engine with its plan, and the dense one in PyTorch."""

    def model(position: int, name: str, milliseconds: float, accuracy: float) -> ModelResult:
        first = benchmark.models[0]
        assert first.quality is not None
        quality = dataclasses.replace(
            first.quality,
            metrics={name: around(accuracy, 0.02) for name in first.quality.metrics},
            slices=(
                Slice("class", "0", 20, "accuracy", around(accuracy, 0.1)),
                Slice("class", "1", 28, "accuracy", around(accuracy + 0.01, 0.1)),
                Slice("length", "2 to 9", 48, "accuracy", around(accuracy, 0.02)),
            ),
            robustness=Robustness(32, position, 1e-6),
            agreement=Agreement(around(0.9, 0.05), 0.25, (3, 5)) if position else None,
        )
        return dataclasses.replace(
            first, name=name, source=name, quality=quality, timings=timings(milliseconds)
        )

    dense, pruned = model(0, "dense", 12.0, 0.9), model(1, "pruned", 3.0, 0.88)
    peer = model(2, "dense (pytorch)", 15.0, 0.9)
    dense = dataclasses.replace(
        dense,
        export=ExportFacts("dense", "finetune", 1.0, "tiny", {}),
        size=SizeOnDisk(90_000_000, 91_000_000, 80_000_000),
        startup=Startup(5, 200.0, 60 << 20, 300 << 20),
    )
    pruned = dataclasses.replace(
        pruned,
        export=ExportFacts("engine", "smp-s", 0.175, "tiny", DENSITIES),
        size=SizeOnDisk(13_000_000, 14_000_000, 12_000_000),
        startup=Startup(5, 90.0, 60 << 20, 90 << 20),
        profile=PROFILE,
    )
    peer = dataclasses.replace(
        peer, engine="pytorch", provider="cpu", export=None, size=None, startup=None
    )
    processor = Processor("performance", 2400.0, 3700.0, (0, 1), 2.0, 8 << 30, True, None)
    return dataclasses.replace(
        benchmark,
        machine=dataclasses.replace(benchmark.machine, processor=processor),
        cells=CELLS,
        models=(dense, pruned, dataclasses.replace(peer, model_sha256=None)),
    )


@pytest.fixture(scope="session")
def bare_benchmark(full_benchmark: Benchmark) -> Benchmark:
    """The same without labelled texts, and with unusable cells only."""
    cells = tuple(
        dataclasses.replace(cell, steadiness=CELLS[2].steadiness) for cell in full_benchmark.cells
    )
    models = tuple(
        dataclasses.replace(
            model,
            quality=None,
            timings=tuple(dataclasses.replace(t, summary=None) for t in model.timings),
        )
        for model in full_benchmark.models
    )
    return dataclasses.replace(full_benchmark, task=None, data=None, cells=cells, models=models)


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., Path]:
    """A function that writes a benchmark under a name."""

    def save(benchmark: Benchmark, name: str = "bench.json") -> Path:
        write_benchmark(tmp_path / name, benchmark)
        return tmp_path / name

    return save
