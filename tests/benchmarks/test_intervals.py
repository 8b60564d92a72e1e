import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import intervals


def test_likeness_of_neighbours_is_what_was_asked_for() -> None:
    values = np.log(intervals.latencies(5000, 0.7, np.random.default_rng(0)))
    for series in values:
        assert np.corrcoef(series[1:], series[:-1])[0, 1] == pytest.approx(0.7, abs=0.05)


def test_blocks_and_widening_cover_more_where_neighbours_are_alike() -> None:
    blocks, singly, plain, widened = intervals.coverage(40, 0.7, series=80, samples=100, seed=0)
    assert blocks > singly
    assert widened > plain
    assert widened >= 0.9


def test_the_tables_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "results" / "intervals.md"
    monkeypatch.setattr(intervals, "RUNS", (5,))
    arguments = ["--series", "2", "--bootstrap-samples", "20", "--output", str(output)]
    monkeypatch.setattr(sys, "argv", ["intervals", *arguments])
    assert intervals.main() == 0
    text = output.read_text()
    assert text.count("| 5 runs") == 4
    assert "2 made-up benchmarks" in text
