"""What a run learns from and is judged by: examples, labels, metric."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.artifacts.classifier import TextClassifier
from pipeline.artifacts.run import TaskLayout
from pipeline.config import TrainConfig
from pipeline.data import (
    LabelledText,
    encode_labels,
    infer_labels,
    infer_task_kind,
    numeric_labels,
    read_labelled_text,
)
from pipeline.environment import is_main_process
from pipeline.metrics import metric_of_task, primary_metrics
from smp.examples import Examples, length_sorted_batches, tokenise
from smp.glue import GLUE, read_glue

__all__ = ["Task", "evaluate", "read_task", "score", "scorer", "task_layout", "tokenise_task"]


@dataclass(frozen=True)
class Task:
    """The data of a run and what is to be predicted.

    Attributes:
        train: training examples.
        validation: validation examples.
        kind: one label out of several, or one number.
        labels: class names in the order of the logits, empty for regression.
        metric: the metric that the task is judged by.
        mismatched: MNLI's second validation examples, None for other tasks.
    """

    train: LabelledText
    validation: LabelledText
    kind: Literal["classification", "regression"]
    labels: tuple[str, ...]
    metric: str
    mismatched: LabelledText | None = None


def read_task(config: TrainConfig) -> Task:
    """Read the files, or fetch the GLUE task, that the configuration names.

    Raises:
        DataError: see :func:`pipeline.data.read_labelled_text` and :mod:`smp.glue`.
    """
    labels: tuple[str, ...] = ()
    mismatched = None
    if config.task is not None:
        row = GLUE[config.task]
        data, validation, *others = read_glue(config.task)
        mismatched = others[0] if others else None
        kind, metric, labels = row.kind, row.metric, row.labels
    else:
        assert config.train_file is not None
        assert config.validation_file is not None
        columns = {
            "text_column": config.text_column,
            "text_pair_column": config.text_pair_column,
            "label_column": config.label_column,
        }
        data = read_labelled_text(config.train_file, flag="--train-file", **columns)
        validation = read_labelled_text(config.validation_file, flag="--validation-file", **columns)
        kind = infer_task_kind(data.labels) if config.task_type == "auto" else config.task_type
        metric = "pearson" if kind == "regression" else "accuracy"
        if kind == "classification":
            labels = infer_labels(data, flag="--train-file")
    if config.max_train_samples is not None:
        data = data.head(config.max_train_samples)
        if kind == "classification":
            infer_labels(data, flag="--max-train-samples leaves of --train-file")
    if config.max_validation_samples is not None:
        validation = validation.head(config.max_validation_samples)
        if mismatched is not None:
            mismatched = mismatched.head(config.max_validation_samples)
    return Task(data, validation, kind, labels, metric, mismatched)


def tokenise_task(task: Task, tokenizer: Any, max_length: int) -> tuple[Examples, Examples]:
    """Tokenise training and validation examples, and say on stderr how many were cut.

    Raises:
        DataError: a validation label that the training data never had, or no number.
    """
    examples = []
    for data, flag in ((task.train, "--train-file"), (task.validation, "--validation-file")):
        targets: list[int] | list[float]
        if task.kind == "classification":
            targets = encode_labels(data, task.labels, flag=flag)
        else:
            targets = numeric_labels(data, flag=flag)
        tokenised = tokenise(data, targets, tokenizer, max_length)
        if tokenised.truncated and is_main_process():
            print(
                f"note: {tokenised.truncated} of {len(data)} texts in {data.source} are longer "
                f"than {max_length} tokens and were cut",
                file=sys.stderr,
            )
        examples.append(tokenised)
    return examples[0], examples[1]


def scorer(task: Task) -> Callable[[Any], dict[str, float]]:
    """The function that gives Trainer the metrics of an evaluation."""

    def score_prediction(prediction: Any) -> dict[str, float]:
        return score(task, np.asarray(prediction.predictions), np.asarray(prediction.label_ids))

    return score_prediction


def score(task: Task, logits: NDArray[Any], targets: NDArray[Any]) -> dict[str, float]:
    """The task's metrics, of logits [examples, outputs] against targets [examples]."""
    guess = logits.reshape(-1) if task.kind == "regression" else logits.argmax(axis=-1)
    names = primary_metrics(task.kind, task.metric)
    classes = len(task.labels)
    return {name: metric_of_task(name, classes)(guess, targets) for name in names}


@torch.no_grad()
def evaluate(
    classifier: TextClassifier,
    examples: Examples,
    task: Task,
    pad_token_id: int,
    device: torch.device,
) -> dict[str, float]:
    """The task's metrics in fp32, the arithmetic of the exported graph."""
    classifier.eval()
    logits = torch.zeros(len(examples), classifier.layout.outputs)
    for indices, batch in length_sorted_batches(examples, pad_token_id, device):
        logits[indices] = classifier(**batch).float().cpu()
    return score(task, logits.numpy(), examples.targets.numpy())


def task_layout(task: Task, max_length: int) -> TaskLayout:
    """The task as the manifest records it."""
    return TaskLayout(
        kind=task.kind,
        labels=task.labels,
        text_column=task.train.text_column,
        text_pair_column=task.train.text_pair_column,
        label_column=task.train.label_column,
        max_length=max_length,
        metric=task.metric,
    )
