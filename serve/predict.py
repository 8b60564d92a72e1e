"""A model's predictions over a whole data file, and the metrics of them."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts.benchmark import BenchmarkTask, Estimate, Predictions
from pipeline.bootstrap import metric_estimate
from pipeline.errors import ArtifactError
from pipeline.metrics import METRICS, primary_metrics
from serve.session import Session

__all__ = ["predict", "score"]

_BATCH_SIZE = 32
_CHUNK_SIZE = 32 * _BATCH_SIZE


def predict(
    session: Session,
    texts: Sequence[str],
    pairs: Sequence[str] | None,
    *,
    classification: bool,
    advance: Callable[[int], None],
) -> tuple[Predictions, int]:
    """Run a model over all texts.

    Args:
        session: the model.
        texts: the texts.
        pairs: the second texts, if there are any.
        classification: whether the largest logit is a label.
        advance: called with the number of texts done since the last call.

    Returns:
        The predictions in the order of the texts, and how many texts were cut.

    Raises:
        ArtifactError: a logit is NaN or infinite, or the graph does not run.
    """
    logits = np.empty((len(texts), session.outputs), dtype=np.float32)
    truncated = 0
    for start in range(0, len(texts), _CHUNK_SIZE):
        chunk = slice(start, start + _CHUNK_SIZE)
        encodings = session.encode(texts[chunk], None if pairs is None else pairs[chunk])
        # Texts of like length together: little padding, and so little wasted work.
        by_length = np.argsort([len(encoding.ids) for encoding in encodings], kind="stable")
        for first in range(0, len(by_length), _BATCH_SIZE):
            rows = by_length[first : first + _BATCH_SIZE]
            batch = [encodings[row] for row in rows]
            logits[start + rows] = session.run(session.collate(batch))
            truncated += sum(bool(encoding.overflowing) for encoding in batch)
            advance(len(rows))
    _check_finite(session, logits)
    labels = logits.argmax(axis=1).tolist() if classification else []
    # The shortest decimal that reads back as the same float32.
    rounded = tuple(tuple(float(str(value)) for value in row) for row in logits)
    return Predictions(tuple(labels), rounded), truncated


def _check_finite(session: Session, logits: NDArray[np.float32]) -> None:
    broken = np.flatnonzero(~np.isfinite(logits).all(axis=1))
    if broken.size:
        raise ArtifactError(
            f"{session.directory}: {broken.size} of {len(logits)} texts have NaN or infinite "
            f"logits, first example {broken[0] + 1}; export the model again, in fp32"
        )


def score(
    predictions: Predictions,
    references: Sequence[int | float],
    task: BenchmarkTask,
    *,
    bootstrap_samples: int,
    seed: int,
) -> dict[str, Estimate]:
    """The metrics of a task, its own first, each with its interval."""
    if task.kind == "classification":
        guesses = np.array(predictions.labels)
    else:
        guesses = np.array(predictions.logits)[:, 0]
    truth = np.array(references)
    return {
        name: metric_estimate(METRICS[name], guesses, truth, samples=bootstrap_samples, seed=seed)
        for name in primary_metrics(task.kind, task.metric)
    }
