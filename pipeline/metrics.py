"""The metrics of the GLUE tasks, on numpy arrays, for training and for benchmarks alike.

Those of answers are in :mod:`pipeline.answer_metrics`, those of entities in
:mod:`pipeline.entities`.

Every metric is a share or a coefficient: accuracy and F1 in [0, 1], Matthews, Pearson and
Spearman in [-1, 1]; larger is better. A metric that the data leave undefined (one class only, a
constant prediction) is 0, as GLUE's own scoring has it.
"""

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts.run import TaskKind

__all__ = [
    "METRICS",
    "TASK_METRICS",
    "accuracy",
    "f1",
    "matthews",
    "metric_of_task",
    "pearson",
    "primary_metrics",
    "spearman",
]

Array = NDArray[np.float64] | NDArray[np.int64]


def accuracy(predictions: Array, references: Array) -> float:
    """Share of predictions, [n], that equal the references, [n]."""
    return float(np.mean(predictions == references))


def f1(predictions: Array, references: Array, classes: int | None = None) -> float:
    """F1 of class 1 where there are two classes, else the unweighted mean over those that occur.

    Args:
        predictions: class indices, [n].
        references: class indices, [n].
        classes: how many the task has; as many as occur if not given.
    """
    occurring = np.union1d(predictions, references)
    if classes == 2 or (classes is None and occurring.size and occurring.max() <= 1):
        return _class_f1(predictions, references, 1)
    return float(np.mean([_class_f1(predictions, references, int(label)) for label in occurring]))


def _class_f1(predictions: Array, references: Array, label: int) -> float:
    hits = int(np.sum((predictions == label) & (references == label)))
    total = int(np.sum(predictions == label)) + int(np.sum(references == label))
    return 2.0 * hits / total if total else 0.0


def matthews(predictions: Array, references: Array) -> float:
    """Matthews correlation, in its multi-class form (Gorodkin 2004)."""
    classes, codes = np.unique(np.concatenate([predictions, references]), return_inverse=True)
    confusion = np.zeros((classes.size, classes.size))
    np.add.at(confusion, (codes[predictions.size :], codes[: predictions.size]), 1.0)
    correct, total = np.trace(confusion), confusion.sum()
    truth, guess = confusion.sum(axis=1), confusion.sum(axis=0)
    norm = np.sqrt(total**2 - guess @ guess) * np.sqrt(total**2 - truth @ truth)
    return float((correct * total - truth @ guess) / norm) if norm else 0.0


def pearson(predictions: Array, references: Array) -> float:
    """Pearson correlation."""
    left = predictions - np.mean(predictions)
    right = references - np.mean(references)
    norm = float(np.sqrt((left @ left) * (right @ right)))
    return float(left @ right) / norm if norm else 0.0


def spearman(predictions: Array, references: Array) -> float:
    """Spearman correlation: Pearson's on average ranks."""
    return pearson(_ranks(predictions), _ranks(references))


def _ranks(values: Array) -> NDArray[np.float64]:
    _, codes, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    mean_rank: NDArray[np.float64] = ends - (counts - 1) / 2.0
    return mean_rank[codes]


METRICS: Mapping[str, Callable[[Array, Array], float]] = {
    "accuracy": accuracy,
    "f1": f1,
    "matthews": matthews,
    "pearson": pearson,
    "spearman": spearman,
}


def metric_of_task(name: str, classes: int) -> Callable[[Array, Array], float]:
    """A metric for the answers of one task, whichever of its classes a sample of them holds.

    Args:
        name: a key of :data:`METRICS`.
        classes: classes of the task, 0 where it has none.
    """
    return partial(f1, classes=classes) if name == "f1" else METRICS[name]


# What a task of each kind may be judged by.
TASK_METRICS: Mapping[TaskKind, tuple[str, ...]] = {
    "classification": tuple(METRICS),
    "regression": tuple(METRICS),
    "question-answering": ("squad_f1", "exact_match"),
    "token-classification": ("entity_f1", "entity_precision", "entity_recall", "accuracy"),
}

_USUAL: Mapping[TaskKind, tuple[str, ...]] = {
    "classification": ("accuracy", "f1", "matthews"),
    "regression": ("pearson", "spearman"),
    # On texts in place of arrays: pipeline.answer_metrics and pipeline.entities.
    "question-answering": ("squad_f1", "exact_match"),
    "token-classification": ("accuracy",),
}


def primary_metrics(kind: TaskKind, metric: str) -> tuple[str, ...]:
    """The metrics to report for a task: the one it is judged by first."""
    usual = _USUAL[kind]
    return (metric, *(name for name in usual if name != metric))
