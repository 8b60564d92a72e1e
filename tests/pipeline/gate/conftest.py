"""A benchmark whose timings say nothing of this machine."""

import dataclasses

import pytest

from pipeline.artifacts.benchmark import Benchmark
from tests.pipeline.gate.edits import edited, ratio, wrong


@pytest.fixture(scope="session")
def measured(benchmark: Benchmark) -> Benchmark:
    """Two models, each wrong on another four of 48 examples; steady cells, the ratio is 0.5."""
    steady = tuple(
        dataclasses.replace(
            cell, steadiness=dataclasses.replace(cell.steadiness, verdict="steady", reasons=())
        )
        for cell in benchmark.cells
    )
    benchmark = dataclasses.replace(benchmark, cells=steady)
    benchmark = edited(benchmark, 0, wrong(benchmark, range(4)))
    return edited(benchmark, 1, wrong(benchmark, range(4, 8)), ratio(0.5))
