"""Entities in sequences of labels, and their F1.

Labels are of the form B-PER, I-PER, E-PER, S-PER, O, or L- and U- for E- and S-. An entity is a
longest run of words of one type that no B or S opens anew and no E or S closes, which reads IOB1,
IOB2, IOE1, IOE2 and IOBES alike, as conlleval (Tjong Kim Sang and De Meulder, CoNLL-2003) and
seqeval's default mode do.
"""

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Entity",
    "count_entities",
    "entities_of",
    "entity_scores",
    "has_entities",
    "tag_metrics",
]

# Type, first word, last word.
Entity = tuple[str, int, int]

_TAG = re.compile(r"([BIESLU])-(.+)", re.DOTALL)
_SAME_POSITION = {"L": "E", "U": "S"}


def has_entities(labels: Sequence[str]) -> bool:
    """Whether the labels are O or have a prefix, and one has."""
    prefixed = [_TAG.fullmatch(label) is not None for label in labels]
    return any(prefixed) and all(
        found or label == "O" for label, found in zip(labels, prefixed, strict=True)
    )


def entities_of(tags: Sequence[str]) -> list[Entity]:
    """The entities of one sentence, in order."""
    found: list[Entity] = []
    position_before, kind_before = "O", ""
    for word, tag in enumerate(tags):
        match = _TAG.fullmatch(tag)
        position, kind = match.groups() if match else ("O", "")
        position = _SAME_POSITION.get(position, position)
        if position != "O":
            goes_on = position in "IE" and position_before in "BI" and kind == kind_before
            first = found.pop()[1] if goes_on else word
            found.append((kind, first, word))
        position_before, kind_before = position, kind
    return found


def count_entities(
    predictions: Sequence[Sequence[str]], references: Sequence[Sequence[str]]
) -> NDArray[np.int64]:
    """int64 [sentences, 3]: entities found right, entities found, and entities there are."""
    counts = np.zeros((len(references), 3), dtype=np.int64)
    for row, (given, wanted) in enumerate(zip(predictions, references, strict=True)):
        found, right = set(entities_of(given)), set(entities_of(wanted))
        counts[row] = len(found & right), len(found), len(right)
    return counts


def entity_scores(counts: NDArray[np.int64]) -> tuple[float, float, float]:
    """F1, precision and recall over all sentences together, 0 where undefined.

    Args:
        counts: what :func:`count_entities` gives, or some of its rows.
    """
    right, found, there = (int(total) for total in counts.sum(axis=0))
    return (
        2.0 * right / (found + there) if found + there else 0.0,
        right / found if found else 0.0,
        right / there if there else 0.0,
    )


def tag_metrics(
    predictions: Sequence[Sequence[str]],
    references: Sequence[Sequence[str]],
    labels: Sequence[str],
) -> dict[str, float]:
    """The metrics of a data set, shares in [0, 1].

    ``entity_f1``, ``entity_precision`` and ``entity_recall`` where labels mark entities, and always
    ``accuracy``, the share of words whose label is right.

    Args:
        predictions: the label of each word of each sentence.
        references: the right ones.
        labels: all labels of the task.
    """
    right = sum(
        given == wanted
        for row, truth in zip(predictions, references, strict=True)
        for given, wanted in zip(row, truth, strict=True)
    )
    metrics = {"accuracy": right / sum(map(len, references))}
    if has_entities(labels):
        f1, precision, recall = entity_scores(count_entities(predictions, references))
        metrics = {
            "entity_f1": f1,
            "entity_precision": precision,
            "entity_recall": recall,
            **metrics,
        }
    return metrics
