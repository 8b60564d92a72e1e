"""GLUE tasks by name, from the hub: columns, label names and metric of each."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from datasets import Dataset

from pipeline.data import LabelledText
from smp.hub_data import load_split

__all__ = ["GLUE", "GlueTask", "read_glue"]

GLUE_DATASET = "nyu-mll/glue"


@dataclass(frozen=True)
class GlueTask:
    """One task: its columns, the split it is judged on, and its metric.

    Attributes:
        text_column: column of the text.
        text_pair_column: column of the second text, None for one text.
        validation_split: the split that is scored.
        metric: a name in :mod:`pipeline.metrics`.
        kind: one label out of several, or one number.
    """

    text_column: str
    text_pair_column: str | None
    validation_split: str = "validation"
    metric: str = "accuracy"
    kind: Literal["classification", "regression"] = "classification"


GLUE: Mapping[str, GlueTask] = {
    "cola": GlueTask("sentence", None, metric="matthews"),
    "mnli": GlueTask("premise", "hypothesis", validation_split="validation_matched"),
    "mrpc": GlueTask("sentence1", "sentence2"),
    "qnli": GlueTask("question", "sentence"),
    "qqp": GlueTask("question1", "question2"),
    "rte": GlueTask("sentence1", "sentence2"),
    "sst2": GlueTask("sentence", None),
    "stsb": GlueTask("sentence1", "sentence2", metric="pearson", kind="regression"),
}


def read_glue(task: str, *, dataset: str = GLUE_DATASET) -> tuple[LabelledText, LabelledText]:
    """Training and validation examples of a GLUE task.

    Args:
        task: a key of :data:`GLUE`.
        dataset: hub id or local directory of the data set, one configuration a task.

    Raises:
        DataError: the data set cannot be had.
    """
    row = GLUE[task]
    splits = []
    for split in ("train", row.validation_split):
        rows = load_split(task, dataset, task, split)
        splits.append(_labelled(rows, f"{dataset} {task} {split}", row))
    return splits[0], splits[1]


def _labelled(rows: Dataset, source: str, row: GlueTask) -> LabelledText:
    names = getattr(rows.features["label"], "names", None)
    labels = list(rows["label"])
    return LabelledText(
        source=source,
        texts=list(rows[row.text_column]),
        pairs=None if row.text_pair_column is None else list(rows[row.text_pair_column]),
        labels=labels if names is None else [names[label] for label in labels],
        text_column=row.text_column,
        text_pair_column=row.text_pair_column,
        label_column="label",
    )
