"""What of each example a task's metric is computed from, so that examples can be drawn and split.

A metric of the whole data, such as F1 over all entities, is no mean of the examples' own. But each
is computed from some numbers an example, and those of any examples together give the metric of
these.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.answer_metrics import score_answers
from pipeline.artifacts.benchmark import BenchmarkTask, Predictions, Reference
from pipeline.entities import count_entities, entities_of, entity_scores
from pipeline.metrics import metric_of_task

__all__ = ["ExampleValues", "example_values", "tag_names"]

_ANSWER_COLUMNS = {"squad_f1": 0, "exact_match": 1}
_ENTITY_SCORES = {"entity_f1": 0, "entity_precision": 1, "entity_recall": 2}


@dataclass(frozen=True)
class ExampleValues:
    """A metric of one model over some examples.

    Attributes:
        rows: [examples, n], what the metric is computed from.
        compute: such rows to the metric; larger is better.
        is_share: the metric is the share of examples that are right, and ``rows`` are 1 or 0.
    """

    rows: NDArray[Any]
    compute: Callable[[NDArray[Any]], float]
    is_share: bool = False

    def select(self, examples: NDArray[np.int64]) -> "ExampleValues":
        """Those of some examples, by position, in that order."""
        return ExampleValues(self.rows[examples], self.compute, self.is_share)

    @property
    def value(self) -> float:
        """The metric."""
        return self.compute(self.rows)


def example_values(
    task: BenchmarkTask,
    metric: str,
    predictions: Predictions,
    references: Sequence[Reference],
    *,
    entity: str | None = None,
) -> ExampleValues:
    """What a metric is computed from.

    Args:
        task: what the model predicts.
        metric: one of :data:`pipeline.metrics.TASK_METRICS` for its kind.
        predictions: what the model says of the examples.
        references: what it should say.
        entity: for a metric of entities, the only type of them that counts.
    """
    match task.kind:
        case "question-answering":
            column = _ANSWER_COLUMNS[metric]
            scores = score_answers(predictions.answers, references)  # type: ignore[arg-type]
            return ExampleValues(
                scores[:, [column]], lambda rows: float(rows.mean()), metric == "exact_match"
            )
        case "token-classification":
            given = tag_names(predictions.tags, task.labels)
            wanted = tag_names(references, task.labels)  # type: ignore[arg-type]
            if metric in _ENTITY_SCORES:
                if entity is not None:
                    given, wanted = (_only(tags, entity) for tags in (given, wanted))
                position = _ENTITY_SCORES[metric]
                return ExampleValues(
                    count_entities(given, wanted), lambda rows: entity_scores(rows)[position]
                )
            return ExampleValues(_right_words(given, wanted), _word_accuracy)
    said = predictions.labels if task.kind == "classification" else predictions.logits
    guesses, truth = np.array(said).reshape(-1), np.array(references)
    if metric == "accuracy":
        return ExampleValues((guesses == truth)[:, None], lambda rows: float(rows.mean()), True)
    compute = metric_of_task(metric, len(task.labels))
    return ExampleValues(
        np.stack([guesses, truth], axis=1), lambda rows: compute(rows[:, 0], rows[:, 1])
    )


def tag_names(sentences: Sequence[Sequence[int]], labels: Sequence[str]) -> list[list[str]]:
    """The names of the labels of words; an empty one for -1, which stands for no label."""
    names = [*labels, ""]  # the last one, as -1 says
    return [[names[index] for index in tags] for tags in sentences]


def _only(sentences: Sequence[Sequence[str]], entity: str) -> list[list[str]]:
    return [
        [tag if any(kind == entity for kind, _, _ in entities_of([tag])) else "O" for tag in tags]
        for tags in sentences
    ]


def _right_words(
    given: Sequence[Sequence[str]], wanted: Sequence[Sequence[str]]
) -> NDArray[np.int64]:
    """int64 [sentences, 2]: words whose label is right, and words."""
    right = [
        sum(tag == truth for tag, truth in zip(tags, truths, strict=True))
        for tags, truths in zip(given, wanted, strict=True)
    ]
    return np.stack([right, [len(truths) for truths in wanted]], axis=1).astype(np.int64)


def _word_accuracy(rows: NDArray[Any]) -> float:
    right, words = rows.sum(axis=0)
    return float(right / words)
