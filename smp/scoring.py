"""What a model says of a task's validation data, and how right it is."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.artifacts.classifier import TextClassifier
from pipeline.metrics import METRICS, primary_metrics
from pipeline.questions import Questions
from pipeline.tagged_words import TaggedWords
from smp.answering import QuestionExamples, score_questions
from smp.examples import Examples, length_sorted_batches
from smp.tagging import WordExamples, score_words
from smp.task import Task

__all__ = ["evaluate", "score", "scorer"]


def scorer(task: Task, examples: Examples) -> Callable[[Any], dict[str, float]]:
    """The function that gives Trainer the metrics of an evaluation on ``examples``."""

    def score_prediction(prediction: Any) -> dict[str, float]:
        return score(task, examples, list(prediction.predictions))

    return score_prediction


def score(task: Task, examples: Examples, logits: Sequence[NDArray[Any]]) -> dict[str, float]:
    """The task's metrics on its validation data.

    Args:
        task: the task.
        examples: its validation data, tokenised.
        logits: for each example, float [outputs], or [tokens or more, outputs] for the kinds that
            judge every token.
    """
    if isinstance(examples, QuestionExamples):
        assert isinstance(task.validation, Questions)
        assert task.answers is not None
        return score_questions(task.validation, examples, logits, task.answers)
    if isinstance(examples, WordExamples):
        assert isinstance(task.validation, TaggedWords)
        return score_words(task.validation, examples, logits, task.labels)
    values = np.stack(logits)
    guess = values.reshape(-1) if task.kind == "regression" else values.argmax(axis=-1)
    targets = examples.targets.numpy()
    names = primary_metrics(task.kind, task.metric)
    return {name: METRICS[name](guess, targets) for name in names}


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
    logits: list[NDArray[Any]] = [np.empty(0)] * len(examples)
    for indices, batch in length_sorted_batches(examples, pad_token_id, device):
        for index, values in zip(indices, classifier(**batch).float().cpu(), strict=True):
            logits[int(index)] = values.numpy()
    return score(task, examples, logits)
