"""Two data sets as they were published, and the runs of the methods' comparison on them."""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import DataError

__all__ = ["METHODS", "TASKS", "Cell", "prepare"]

METHODS = ("smp-s", "smp-l", "soft-movement", "movement", "magnitude")


@dataclass(frozen=True)
class DataSet:
    """A task's files and the paper's budget.

    Attributes:
        train: name of the training file.
        validation: name of the validation file.
        columns: of the files that are written.
        fields: which fields of a line these are.
        header: whether the first line is a header.
        paper_steps: optimiser steps that the paper takes: epochs times examples over batch size.
        matrix_learning_rate: of scores with a second moment a matrix; chosen on a part of the
            training data.
    """

    train: str
    validation: str
    columns: tuple[str, ...]
    fields: tuple[int, ...]
    header: bool
    paper_steps: int
    matrix_learning_rate: float


TASKS = {
    # 67,349 phrases, batch 64, 12 epochs; whole sentences, of which there are fewer, stand in.
    "sst2": DataSet("train.tsv", "dev.tsv", ("text", "label"), (0, 1), False, 12_636, 3e-3),
    # 3,668 pairs, batch 32, 60 epochs.
    "mrpc": DataSet(
        "train.tsv", "val.tsv", ("sentence1", "sentence2", "label"), (3, 4, 0), True, 6_900, 5e-4
    ),
}


@dataclass(frozen=True)
class Cell:
    """One run of the table.

    Attributes:
        task: a key of :data:`TASKS`.
        method: as `train --method` takes it.
        density: 1 for finetune.
        distilled: whether it learns from the fine-tuned run of its seed.
        seed: of the run.
        start: of the scores, as `train --score-init` takes it.
        moment: of the scores, as `train --second-moment` takes it.
    """

    task: str
    method: str
    density: float
    distilled: bool
    seed: int
    start: str = "magnitude"
    moment: str = "weight"

    @property
    def shares_moment(self) -> bool:
        """Whether the scores of a matrix share Adam's second moment."""
        return self.moment == "matrix"

    @property
    def name(self) -> str:
        """The run directory below the task's."""
        marks = [
            "-distilled" if self.distilled else "",
            "" if self.start == "magnitude" else f"-{self.start}",
            "-matrix-moment" if self.shares_moment else "",
        ]
        return f"{self.method}-{self.density:g}{''.join(marks)}-seed-{self.seed}"


def prepare(task: str, source: Path, target: Path) -> tuple[Path, Path]:
    """Write a task's training and validation file as csv with a header.

    Raises:
        DataError: a file is missing, or a line has too few fields.
    """
    data = TASKS[task]
    target.mkdir(parents=True, exist_ok=True)
    written = []
    for name in (data.train, data.validation):
        path = source / name
        if not path.is_file():
            raise DataError(f"{source}: has no {name}")
        # Quotes mean nothing in these files.
        with path.open(encoding="utf-8-sig", newline="\n") as file:
            lines = [line.rstrip("\r\n") for line in file][int(data.header) :]
        output = (target / name).with_suffix(".csv")
        _write(output, data.columns, _rows(lines, data.fields, path))
        written.append(output)
    return written[0], written[1]


def _rows(lines: Iterable[str], fields: Sequence[int], path: Path) -> Iterable[list[str]]:
    for number, line in enumerate(lines, start=1):
        found = line.split("\t")
        if len(found) <= max(fields):
            raise DataError(f"{path}: line {number} of the examples has {len(found)} fields")
        yield [found[field] for field in fields]


def _write(path: Path, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)
