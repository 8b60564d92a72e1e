"""Parts of labelled data to look at a model's quality on: by class and by length in tokens."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts.benchmark import BenchmarkTask, Reference
from pipeline.data import LabelledText
from pipeline.entities import entities_of, has_entities
from pipeline.example_values import tag_names
from serve.session import Session

__all__ = ["LEAST_EXAMPLES", "rows_by_class", "rows_by_length", "token_lengths"]

# On fewer, a share's 95 % interval is more than 0.4 wide around one half: it says nothing.
LEAST_EXAMPLES = 20
_CHUNK_SIZE = 1024


def token_lengths(session: Session, data: LabelledText) -> NDArray[np.int64]:
    """Tokens of each text as a model gets it (special tokens included, cut), int64 [n]."""
    lengths: list[int] = []
    for start in range(0, len(data), _CHUNK_SIZE):
        chunk = slice(start, start + _CHUNK_SIZE)
        pairs = None if data.pairs is None else data.pairs[chunk]
        lengths += [len(encoding.ids) for encoding in session.encode(data.texts[chunk], pairs)]
    return np.array(lengths, dtype=np.int64)


def rows_by_class(
    references: Sequence[Reference], task: BenchmarkTask
) -> list[tuple[str, NDArray[np.int64]]]:
    """Label and positions of its examples, for each label that has some; none for regression.

    For token classification the types of entities, if the labels mark some; for question
    answering whether there is an answer, if some have none.
    """
    match task.kind:
        case "question-answering":
            has_answer = np.array([bool(truth) for truth in references])
            parts = [("an answer", has_answer), ("no answer", ~has_answer)]
            if has_answer.all():
                return []
            return [(name, np.flatnonzero(part)) for name, part in parts if part.any()]
        case "token-classification":
            if not has_entities(task.labels):
                return []
            found: dict[str, list[int]] = {}
            for row, tags in enumerate(tag_names(references, task.labels)):  # type: ignore[arg-type]
                for kind in sorted({kind for kind, _, _ in entities_of(tags)}):
                    found.setdefault(kind, []).append(row)
            return [(kind, np.array(found[kind])) for kind in sorted(found)]
    truth = np.array(references)
    rows = [(name, np.flatnonzero(truth == label)) for label, name in enumerate(task.labels)]
    return [(name, positions) for name, positions in rows if positions.size]


def rows_by_length(lengths: NDArray[np.int64]) -> list[tuple[str, NDArray[np.int64]]]:
    """Name and positions of the examples of each range of lengths, the shortest first.

    The ranges are those between the quartiles. Neighbours are merged until each has
    :data:`LEAST_EXAMPLES`, if there are so many, and equal lengths are never parted. Together the
    ranges hold every example once.

    Args:
        lengths: tokens of each text, [n], n at least 1.
    """
    ends: list[int] = []
    done = 0
    for end in np.quantile(lengths, (0.25, 0.5, 0.75), method="inverted_cdf").tolist():
        below = int((lengths <= end).sum())
        if min(below - done, lengths.size - below) >= LEAST_EXAMPLES:
            ends.append(end)
            done = below
    # The range of a length is how many ends lie below it.
    ranges = np.searchsorted(ends, lengths)
    rows = [np.flatnonzero(ranges == index) for index in range(len(ends) + 1)]
    return [(_name(lengths[found]), found) for found in rows]


def _name(lengths: NDArray[np.int64]) -> str:
    shortest, longest = int(lengths.min()), int(lengths.max())
    if shortest == longest:
        return "1 token" if longest == 1 else f"{longest} tokens"
    return f"{shortest} to {longest} tokens"
