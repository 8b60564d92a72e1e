"""The SST-2 measurement runs from one command to its table, here on a tiny model."""

import csv
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_one_command_trains_exports_measures_and_writes_the_table(tiny_bert, reviews, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    for path, name in zip(reviews, ("train", "dev"), strict=True):
        with path.open(encoding="utf-8") as file:
            lines = [f"{row['text']}\t{row['label']}" for row in csv.DictReader(file)]
        (data / f"{name}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "benchmarks.sst2",
        "--data",
        str(data),
        "--model",
        str(tiny_bert),
    ]
    command += ["--work-dir", str(tmp_path / "work"), "--epochs", "2"]
    command += ["--output", str(tmp_path / "table.md")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    table = (tmp_path / "table.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("|")]
    assert rows[2:] == [
        "finetune-dense",
        "smp-s-0.5-packed",
        "smp-s-0.1-packed",
        "smp-s-0.03-packed",
    ]
    assert '"score_init": "magnitude"' in table
