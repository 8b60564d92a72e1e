"""The section on latency: what stands open, what is folded, and what is not given."""

import dataclasses
from pathlib import Path

import pytest

from pipeline.artifacts.benchmark import Benchmark
from pipeline.report.document import Charts, Details, Section, Table
from pipeline.report.latency import latency_section
from pipeline.report.sources import gather


def section(benchmark: Benchmark, cells: int) -> Section:
    """The section on the first cells alone."""
    models = [
        dataclasses.replace(model, timings=model.timings[:cells]) for model in benchmark.models
    ]
    fewer = dataclasses.replace(benchmark, cells=benchmark.cells[:cells], models=tuple(models))
    return latency_section(gather([(Path("bench.json"), fewer)]))


@pytest.mark.parametrize(
    ("cells", "folded"), [(1, []), (2, ["The other cell"]), (3, ["The other 2 cells"])]
)
def test_all_cells_but_the_first_are_folded(
    full_benchmark: Benchmark, cells: int, folded: list[str]
) -> None:
    blocks = section(full_benchmark, cells).blocks
    assert [block.summary for block in blocks if isinstance(block, Details)] == folded
    assert sum(isinstance(block, Section) for block in blocks) == 1


def test_a_cell_has_a_row_a_model_and_an_unusable_one_its_reason_alone(
    full_benchmark: Benchmark,
) -> None:
    first, details, _ = section(full_benchmark, 3).blocks
    assert isinstance(first, Section) and isinstance(details, Details)
    noisy, unusable = details.blocks
    assert isinstance(noisy, Section) and isinstance(unusable, Section)
    for cell in (first, noisy):
        table, _, charts = cell.blocks
        assert isinstance(table, Table) and isinstance(charts, Charts)
        assert [row[0] for row in table.rows] == ["dense", "pruned", "dense (pytorch)"]
        assert [row[5] for row in table.rows] == ["1", *["1.000 (0.900 to 1.100)"] * 2]
    (verdict,) = unusable.blocks
    assert "Unusable. The clock fell." in str(verdict)
