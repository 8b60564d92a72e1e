"""MNLI's second validation set: texts of other genres than those of the training data."""

from typing import Any

import torch

from pipeline.artifacts.classifier import TextClassifier
from smp.scoring import evaluate
from smp.task import Task, tokenise_data

__all__ = ["evaluate_mismatched"]


def evaluate_mismatched(
    classifier: TextClassifier,
    task: Task,
    tokenizer: Any,
    max_length: int,
    device: torch.device,
) -> dict[str, float]:
    """The task's metric on the mismatched examples, under its name with ``_mismatched``.

    Returns:
        one metric, or none where the task has no such examples.
    """
    data = task.mismatched
    if data is None:
        return {}
    examples = tokenise_data(task, data, tokenizer, max_length, flag="--task")
    metrics = evaluate(classifier, examples, task, tokenizer.pad_token_id, device)
    return {f"{task.metric}_mismatched": metrics[task.metric]}
