"""A model's predictions over a whole data file."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts.benchmark import Predictions
from pipeline.errors import ArtifactError
from serve.subjects import Subject

__all__ = ["BATCH_SIZE", "check_finite", "predict"]

BATCH_SIZE = 32
_CHUNK_SIZE = 32 * BATCH_SIZE


def predict(
    subject: Subject,
    texts: Sequence[str],
    pairs: Sequence[str] | None,
    *,
    classification: bool,
    advance: Callable[[int], None],
) -> tuple[Predictions, int]:
    """Run a model over all texts.

    Args:
        subject: the model, on any engine.
        texts: the texts.
        pairs: the second texts, if there are any.
        classification: whether the largest logit is a label.
        advance: called with the number of texts done since the last call.

    Returns:
        The predictions in the order of the texts, and how many texts were cut.

    Raises:
        ArtifactError: a logit is NaN or infinite, or the graph does not run.
    """
    session = subject.session
    logits = np.empty((len(texts), session.outputs), dtype=np.float32)
    truncated = 0
    for start in range(0, len(texts), _CHUNK_SIZE):
        chunk = slice(start, start + _CHUNK_SIZE)
        encodings = session.encode(texts[chunk], None if pairs is None else pairs[chunk])
        # Texts of like length together: little padding, and so little wasted work.
        by_length = np.argsort([len(encoding.ids) for encoding in encodings], kind="stable")
        for first in range(0, len(by_length), BATCH_SIZE):
            rows = by_length[first : first + BATCH_SIZE]
            batch = [encodings[row] for row in rows]
            logits[start + rows] = subject.run(session.collate(batch))
            truncated += sum(bool(encoding.overflowing) for encoding in batch)
            advance(len(rows))
    check_finite(subject, logits, np.arange(len(texts)))
    labels = logits.argmax(axis=1).tolist() if classification else []
    # The shortest decimal that reads back as the same float32.
    rounded = tuple(tuple(float(str(value)) for value in row) for row in logits)
    return Predictions(tuple(labels), rounded), truncated


def check_finite(
    subject: Subject, logits: NDArray[np.float32], examples: NDArray[np.int64]
) -> None:
    """Refuse logits, [n, outputs], that are no numbers; ``examples``, [n], are their positions.

    Raises:
        ArtifactError: one is NaN or infinite.
    """
    broken = np.flatnonzero(~np.isfinite(logits).all(axis=1))
    if broken.size:
        where, fix = subject.source, "export the model again, in fp32"
        if subject.is_peer:
            where, fix = f"{where} on {subject.engine}", f"leave out --peers {subject.engine}"
        raise ArtifactError(
            f"{where}: {broken.size} of {len(logits)} texts have NaN or infinite logits, first "
            f"example {examples[broken].min() + 1}; {fix}"
        )
