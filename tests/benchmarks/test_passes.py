"""The table of the graph passes, from a benchmark as `bench` writes it."""

import argparse
from collections.abc import Callable
from pathlib import Path

from benchmarks.passes import write_table
from pipeline.artifacts.benchmark import Benchmark, write_benchmark
from tests.pipeline.gate.edits import unusable


def test_the_table_has_a_row_an_export(
    make_model: Callable[..., Path], benchmark: Benchmark, tmp_path: Path
) -> None:
    directories = [make_model(tmp_path / name) for name in ("plain", "gelu")]
    arguments = argparse.Namespace(
        run=Path("runs/reviews"), repetitions="5", threads="1", output=tmp_path / "passes.md"
    )
    write_benchmark(tmp_path / "bench.json", unusable(benchmark, 1))
    write_table(arguments, directories, tmp_path / "bench.json")
    lines = arguments.output.read_text(encoding="utf-8").splitlines()
    header, _, plain, gelu = [line.strip("| ").split(" | ") for line in lines if "|" in line]
    assert header[3:5] == ["1 x 16", "4 x 16"]
    assert (plain[0], gelu[0]) == ("plain", "gelu")
    assert plain[3:5] == ["1.00 (1.00 to 1.00)", "unusable"]
