"""What a model says of labelled texts: metrics, slices of the data, agreement, robustness."""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts.benchmark import (
    Agreement,
    BenchmarkTask,
    Estimate,
    Predictions,
    Quality,
    Reference,
    Slice,
)
from pipeline.entities import has_entities
from pipeline.example_values import ExampleValues, example_values
from pipeline.intervals import share_estimate, with_interval
from pipeline.metrics import TASK_METRICS, primary_metrics
from pipeline.questions import Questions
from pipeline.tagged_words import TaggedWords
from pipeline.task_files import TaskData
from serve.labelled import FLAG, plain_texts
from serve.predict import predict
from serve.predict_tokens import predict_answers, predict_tags
from serve.robustness import measure_robustness
from serve.slices import rows_by_class, rows_by_length
from serve.subjects import Subject

__all__ = ["measure_quality"]


def measure_quality(
    subject: Subject,
    data: TaskData,
    references: Sequence[Reference],
    task: BenchmarkTask,
    *,
    lengths: NDArray[np.int64],
    first: Predictions | None,
    bootstrap_samples: int,
    seed: int,
    advance: Callable[[int], None],
) -> Quality:
    """Run a model over labelled texts and judge what it says.

    Args:
        subject: the model, on any engine.
        data: the examples.
        references: what should be said of each.
        task: what the model predicts.
        lengths: tokens of each text in the first model's tokenizer
            (:func:`serve.slices.token_lengths`), [n]: all models get slices of the same texts.
        first: what the first model says of the texts; None for the first itself.
        bootstrap_samples: behind each interval that is no share's.
        seed: of the bootstrap.
        advance: called with the number of texts done since the last call; in the end they are
            those of ``data`` and twice :func:`serve.robustness.texts_compared`.

    Raises:
        ArtifactError: a logit is NaN or infinite, or the graph does not run.
        DataError: a question leaves no room for its context.
    """
    predictions, truncated = _predict(subject, data, task, advance)
    robustness = measure_robustness(
        subject, plain_texts(data), lengths, kind=task.kind, advance=advance
    )

    @cache
    def values(metric: str, entity: str | None = None) -> ExampleValues:
        return example_values(task, metric, predictions, references, entity=entity)

    def estimate(computed: ExampleValues) -> Estimate:
        return with_interval(computed, samples=bootstrap_samples, seed=seed)

    def slices(
        by: Literal["class", "length"], parts: Sequence[tuple[str, NDArray[np.int64]]]
    ) -> tuple[Slice, ...]:
        metric = "accuracy" if task.kind == "classification" else task.metric
        # A sentence may have entities of several types.
        of_type = by == "class" and task.kind == "token-classification"
        metric = "entity_f1" if of_type else metric
        return tuple(
            Slice(
                by,
                name,
                len(rows),
                metric,
                estimate(values(metric, name if of_type else None).select(rows)),
            )
            for name, rows in parts
        )

    return Quality(
        truncated=truncated,
        metrics={name: estimate(values(name)) for name in _metrics(task)},
        predictions=predictions,
        slices=slices("class", rows_by_class(references, task))
        + slices("length", rows_by_length(lengths)),
        robustness=robustness,
        agreement=None if first is None else agree(predictions, first),
    )


def _metrics(task: BenchmarkTask) -> tuple[str, ...]:
    """The metrics to report, the task's own first."""
    if task.kind == "token-classification" and has_entities(task.labels):
        others = TASK_METRICS[task.kind]
        return (task.metric, *(name for name in others if name != task.metric))
    return primary_metrics(task.kind, task.metric)


def _predict(
    subject: Subject, data: TaskData, task: BenchmarkTask, advance: Callable[[int], None]
) -> tuple[Predictions, int]:
    """What the model says of the examples, and how many of them were cut."""
    if isinstance(data, Questions):
        return predict_answers(subject, data, flag=FLAG, advance=advance), 0
    if isinstance(data, TaggedWords):
        return predict_tags(subject, data, advance=advance)
    classification = task.kind == "classification"
    return predict(subject, data.texts, data.pairs, classification=classification, advance=advance)


def agree(predictions: Predictions, first: Predictions) -> Agreement:
    """How far two models say the same of the same texts."""
    difference = None
    if predictions.logits:
        difference = float(np.abs(np.subtract(predictions.logits, first.logits)).max())
    said, before = (each.labels or each.answers or each.tags for each in (predictions, first))
    if not said:
        return Agreement(None, difference, ())
    pairs = enumerate(zip(said, before, strict=True))
    others = tuple(row for row, (now, then) in pairs if now != then)
    same = share_estimate(len(said) - len(others), len(said))
    return Agreement(same, difference, others)
