"""The SST-2 measurement runs from one command to its table, here on a tiny model."""

import csv
import functools

import pytest

from benchmarks.sst2 import main
from pipeline.config import BenchConfig


@pytest.mark.slow
def test_one_command_trains_exports_measures_and_writes_the_table(
    tiny_bert, reviews, tmp_path, monkeypatch
):
    data = tmp_path / "data"
    data.mkdir()
    for path, name in zip(reviews, ("train", "dev"), strict=True):
        with path.open(encoding="utf-8") as file:
            lines = [f"{row['text']}\t{row['label']}" for row in csv.DictReader(file)]
        (data / f"{name}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    command = ["sst2.py", "--data", data, "--model", tiny_bert, "--work-dir", tmp_path / "work"]
    command += ["--epochs", "1", "--output", tmp_path / "table.md"]
    quick = functools.partial(BenchConfig, startups=1, repetitions=3, bootstrap_samples=100)
    monkeypatch.setattr("benchmarks.sst2.BenchConfig", quick)
    monkeypatch.setattr("sys.argv", [*map(str, command)])
    main()
    table = (tmp_path / "table.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("|")]
    assert rows[2:] == [
        "finetune-dense",
        "smp-s-0.5-packed",
        "smp-s-0.1-packed",
        "smp-s-0.03-packed",
    ]
    assert '"score_init": "magnitude"' in table
