"""Whether a text gets the same answer alone and padded in a batch."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts.benchmark import Robustness
from pipeline.artifacts.run import TaskKind
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
    kind: TaskKind,
    advance: Callable[[int], None],
) -> Robustness:
    """Run texts one by one without padding, and in batches that each hold the longest text.

    Args:
        subject: the model, on any engine.
        data: the texts; those that are compared are spread evenly over the ranks of their lengths.
        lengths: tokens of each text, [n].
        kind: of the task, which says what is predicted.
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
    alone: list[NDArray[np.float32]] = []
    padded = [np.empty(0, np.float32)] * count
    for encoding in encodings:
        alone.append(subject.run(subject.session.collate([encoding]))[0])
        advance(1)
    # Every batch has texts of all lengths, and the longest once more, which decides the padding.
    batches = -(-count // (BATCH_SIZE - 1))
    for first in range(batches):
        rows = np.arange(first, count, batches)
        batch = [*(encodings[row] for row in rows), encodings[-1]]
        found = subject.run(subject.session.collate(batch))
        for row, logits in zip(rows, found, strict=False):
            # Of tokens, those of padding mean nothing.
            padded[row] = logits[: len(alone[row])]
        advance(len(rows))
    for each in (alone, padded):
        extremes = np.array([[logits.min(), logits.max()] for logits in each])
        check_finite(subject, extremes, examples)
    pairs = list(zip(alone, padded, strict=True))
    changed = 0
    if kind != "regression":
        # A token is what is chosen, or else a label (of each token).
        axis = 0 if kind == "question-answering" else -1
        changed = sum(bool((a.argmax(axis) != b.argmax(axis)).any()) for a, b in pairs)
    return Robustness(count, changed, max(float(np.abs(a - b).max()) for a, b in pairs))
