"""GLUE tasks by name, from the hub: columns, label names and metric of each."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from datasets import Dataset

from pipeline.data import LabelledText
from pipeline.errors import DataError
from smp.hub_data import load_split

__all__ = ["GLUE", "GlueTask", "read_glue"]

GLUE_DATASET = "nyu-mll/glue"


@dataclass(frozen=True)
class GlueTask:
    """One task: its columns, the splits it is judged on, and its metric.

    Attributes:
        text_column: column of the text.
        text_pair_column: column of the second text, None for one text.
        labels: class names in the order of the data set, which is that of the logits; for two
            classes F1 is of the second. Empty for regression.
        validation_splits: the splits that are scored; the first is watched while training.
        metric: a name in :mod:`pipeline.metrics`.
        kind: one label out of several, or one number.
    """

    text_column: str
    text_pair_column: str | None
    labels: tuple[str, ...]
    validation_splits: tuple[str, ...] = ("validation",)
    metric: str = "accuracy"
    kind: Literal["classification", "regression"] = "classification"


GLUE: Mapping[str, GlueTask] = {
    "cola": GlueTask("sentence", None, ("unacceptable", "acceptable"), metric="matthews"),
    "mnli": GlueTask(
        "premise",
        "hypothesis",
        ("entailment", "neutral", "contradiction"),
        validation_splits=("validation_matched", "validation_mismatched"),
    ),
    "mrpc": GlueTask("sentence1", "sentence2", ("not_equivalent", "equivalent")),
    "qnli": GlueTask("question", "sentence", ("entailment", "not_entailment")),
    "qqp": GlueTask("question1", "question2", ("not_duplicate", "duplicate")),
    "rte": GlueTask("sentence1", "sentence2", ("entailment", "not_entailment")),
    "sst2": GlueTask("sentence", None, ("negative", "positive")),
    "stsb": GlueTask("sentence1", "sentence2", (), metric="pearson", kind="regression"),
}


def read_glue(task: str, *, dataset: str = GLUE_DATASET) -> list[LabelledText]:
    """Training and validation examples of a GLUE task; MNLI has two validation sets.

    Args:
        task: a key of :data:`GLUE`.
        dataset: hub id or local directory of the data set, one configuration a task.

    Raises:
        DataError: the data set cannot be had.
    """
    row = GLUE[task]
    splits = []
    for split in ("train", *row.validation_splits):
        rows = load_split(task, dataset, task, split)
        splits.append(_labelled(rows, f"{dataset} {task} {split}", row))
    return splits


def _labelled(rows: Dataset, source: str, row: GlueTask) -> LabelledText:
    names = getattr(rows.features["label"], "names", None)
    labels = list(rows["label"])
    if tuple(names or ()) != row.labels:
        raise DataError(
            f"{source}: its labels are {', '.join(names or ('numbers',))}, expected "
            f"{', '.join(row.labels) or 'numbers'}; give --train-file and --validation-file"
        )
    return LabelledText(
        source=source,
        texts=list(rows[row.text_column]),
        pairs=None if row.text_pair_column is None else list(rows[row.text_pair_column]),
        labels=labels if names is None else [names[label] for label in labels],
        text_column=row.text_column,
        text_pair_column=row.text_pair_column,
        label_column="label",
    )
