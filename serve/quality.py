"""What a model says of labelled texts: metrics, slices of the data, agreement, robustness."""

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts.benchmark import (
    Agreement,
    BenchmarkTask,
    Estimate,
    Predictions,
    Quality,
    Slice,
)
from pipeline.data import LabelledText
from pipeline.intervals import share_estimate, with_interval
from pipeline.metrics import primary_metrics
from serve.predict import predict
from serve.robustness import measure_robustness
from serve.slices import rows_by_class, rows_by_length
from serve.subjects import Subject

__all__ = ["measure_quality"]


def measure_quality(
    subject: Subject,
    data: LabelledText,
    references: Sequence[int | float],
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
        data: the texts.
        references: label index, or the number for regression, of each.
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
    """
    classification = task.kind == "classification"
    predictions, truncated = predict(
        subject, data.texts, data.pairs, classification=classification, advance=advance
    )
    robustness = measure_robustness(
        subject, data, lengths, classification=classification, advance=advance
    )
    guesses = np.array(predictions.labels if classification else predictions.logits).reshape(-1)
    truth = np.array(references)

    def estimate(metric: str, rows: NDArray[np.int64]) -> Estimate:
        return with_interval(
            metric,
            guesses[rows],
            truth[rows],
            classes=len(task.labels),
            samples=bootstrap_samples,
            seed=seed,
        )

    def slices(
        by: Literal["class", "length"], parts: Sequence[tuple[str, NDArray[np.int64]]]
    ) -> tuple[Slice, ...]:
        metric = "accuracy" if classification else task.metric
        return tuple(
            Slice(by, name, len(rows), metric, estimate(metric, rows)) for name, rows in parts
        )

    everything = np.arange(len(data))
    return Quality(
        truncated=truncated,
        metrics={
            name: estimate(name, everything) for name in primary_metrics(task.kind, task.metric)
        },
        predictions=predictions,
        slices=slices("class", rows_by_class(references, task))
        + slices("length", rows_by_length(lengths)),
        robustness=robustness,
        agreement=None if first is None else agree(predictions, first),
    )


def agree(predictions: Predictions, first: Predictions) -> Agreement:
    """How far two models say the same of the same texts."""
    difference = float(np.abs(np.subtract(predictions.logits, first.logits)).max())
    if not predictions.labels:
        return Agreement(None, difference, ())
    others = np.flatnonzero(np.not_equal(predictions.labels, first.labels))
    rows = len(predictions.labels)
    return Agreement(share_estimate(rows - len(others), rows), difference, tuple(others.tolist()))
