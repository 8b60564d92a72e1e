"""The methods' comparison trains what is missing and writes its table, here on a tiny model."""

import csv
from pathlib import Path

import pytest

from benchmarks import methods


@pytest.fixture
def data(reviews: tuple[Path, Path], tmp_path: Path) -> Path:
    """SST-2's files: lines of text, tab, label."""
    for path, name in zip(reviews, ("train", "dev"), strict=True):
        with path.open(encoding="utf-8") as file:
            lines = [f"{row['text']}\t{row['label']}" for row in csv.DictReader(file)]
        (tmp_path / f"{name}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return tmp_path


def measure(monkeypatch: pytest.MonkeyPatch, data: Path, tiny_bert: Path, *options: str) -> int:
    command = ["methods", "--model", str(tiny_bert), "--sst2", str(data)]
    command += ["--work-dir", str(data / "work"), "--output", str(data / "methods.md")]
    command += [
        "--methods",
        "smp-s",
        "--taught",
        "smp-s",
        "--starts",
        "fisher",
        "--densities",
        "0.5",
        "--steps-share",
        "0.0003",
    ]
    monkeypatch.setattr("sys.argv", [*command, *options])
    return methods.main()


@pytest.mark.slow
def test_one_command_trains_and_writes_the_table(monkeypatch, data, tiny_bert, capsys):
    assert measure(monkeypatch, data, tiny_bert, "--seeds", "3", "--evaluations", "1") == 0
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in (data / "methods.md").read_text(encoding="utf-8").splitlines()
        if line.startswith("|")
    ]
    assert [row[:5] for row in rows[2:]] == [
        ["1", "finetune", "", "", ""],
        ["0.5", "smp-s", "magnitude", "weight", ""],
        ["0.5", "smp-s", "magnitude", "matrix", ""],
        ["0.5", "smp-s", "fisher", "weight", ""],
        ["0.5", "smp-s", "magnitude", "weight", "finetune"],
    ]
    # What is there is used again wherever it was made, but only if it was made in the same way.
    assert "trained" in capsys.readouterr().out
    moved = ("--work-dir", str((data / "work").rename(data / "moved")), "--seeds", "3")
    assert measure(monkeypatch, data, tiny_bert, *moved, "--evaluations", "1") == 0
    assert "trained" not in capsys.readouterr().out
    assert measure(monkeypatch, data, tiny_bert, *moved, "--evaluations", "2") == 2
    assert "has evaluations 1, not 2" in capsys.readouterr().err
    with (data / "train.tsv").open("a", encoding="utf-8") as file:
        file.write("one more\t1\n")
    assert measure(monkeypatch, data, tiny_bert, *moved, "--evaluations", "1") == 2
    assert "has train_file" in capsys.readouterr().err


def test_a_missing_file_is_named(monkeypatch, data, tiny_bert, capsys):
    (data / "dev.tsv").unlink()
    assert measure(monkeypatch, data, tiny_bert) == 2
    assert "has no dev.tsv" in capsys.readouterr().err
