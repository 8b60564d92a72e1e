"""Whether a text gets the same answer alone and padded in a batch."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts.benchmark import Robustness
from pipeline.data import LabelledText
from serve.predict import BATCH_SIZE, check_finite
from serve.subjects import Subject

__all__ = ["measure_robustness", "texts_compared"]

_TEXTS = 64


def texts_compared(rows: int) -> int:
    """How many of so many texts are run both ways."""
    return min(rows, _TEXTS)


def measure_robustness(
    subject: Subject,
    data: LabelledText,
    lengths: NDArray[np.int64],
    *,
    classification: bool,
    advance: Callable[[int], None],
) -> Robustness:
    """Run texts one by one without padding, and in batches that each hold the longest text.

    Args:
        subject: the model, on any engine.
        data: the texts; those that are compared are spread evenly over the ranks of their lengths.
        lengths: tokens of each text, [n].
        classification: whether the largest logit is a label.
        advance: called with the number of texts done since the last call.

    Raises:
        ArtifactError: a logit is NaN or infinite, or the graph does not run.
    """
    count = texts_compared(len(data))
    by_length = np.argsort(lengths, kind="stable")
    examples = by_length[np.linspace(0, len(data) - 1, count).round().astype(np.int64)]
    encodings = subject.session.encode(
        [data.texts[row] for row in examples],
        None if data.pairs is None else [data.pairs[row] for row in examples],
    )
    alone = np.empty((count, subject.session.outputs), dtype=np.float32)
    padded = np.empty_like(alone)
    for index, encoding in enumerate(encodings):
        alone[index] = subject.run(subject.session.collate([encoding]))[0]
        advance(1)
    # Every batch has texts of all lengths, and the longest once more, which decides the padding.
    batches = -(-count // (BATCH_SIZE - 1))
    for first in range(batches):
        rows = np.arange(first, count, batches)
        batch = [*(encodings[row] for row in rows), encodings[-1]]
        padded[rows] = subject.run(subject.session.collate(batch))[:-1]
        advance(len(rows))
    for logits in (alone, padded):
        check_finite(subject, logits, examples)
    changed = int((alone.argmax(axis=1) != padded.argmax(axis=1)).sum()) if classification else 0
    return Robustness(count, changed, float(np.abs(alone - padded).max()))
