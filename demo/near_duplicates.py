"""Groups of texts that say nearly the same, so that a split can keep each group together."""

import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence

__all__ = ["JACCARD_THRESHOLD", "group_near_duplicates", "jaccard", "word_set"]

JACCARD_THRESHOLD = 0.6
"""Share of common words, among all words of two texts, from which they are near-duplicates."""

# Rounding must not turn 7.000000000000001 into 8.
_EPSILON = 1e-9


def word_set(text: str) -> frozenset[str]:
    """The words of a text without case, accents and punctuation; the text itself if it has none."""
    plain = unicodedata.normalize("NFKD", text.lower())
    letters = "".join(
        character for character in plain if not unicodedata.combining(character)
    ).replace("'", "")
    return frozenset(re.findall(r"\w+", letters)) or frozenset([text])


def jaccard(first: frozenset[str], second: frozenset[str]) -> float:
    """The size of the intersection over the size of the union."""
    return len(first & second) / len(first | second)


def group_near_duplicates(
    texts: Sequence[str], *, threshold: float = JACCARD_THRESHOLD
) -> list[int]:
    """Assign each text to a group such that near-duplicates share one.

    Groups are the connected components of the graph whose edges are all pairs of texts with a
    Jaccard similarity of word sets of at least ``threshold``. All pairs are found, none by chance:
    two sets that similar share a word among the rarest few of each (prefix filtering; Chaudhuri,
    Ganti and Kaushik, ICDE 2006), so that only texts that do are compared.

    Args:
        texts: the texts.
        threshold: above 0, at most 1.

    Returns:
        For each text the index of its group's first text.
    """
    sets = [word_set(text) for text in texts]
    frequency = Counter(word for words in sets for word in words)
    groups = list(range(len(texts)))
    seen: dict[str, list[int]] = defaultdict(list)
    for index, words in enumerate(sets):
        rarest_first = sorted(words, key=lambda word: (frequency[word], word))
        prefix = rarest_first[: len(words) - math.ceil(threshold * len(words) - _EPSILON) + 1]
        for other in {other for word in prefix for other in seen[word]}:
            if jaccard(words, sets[other]) >= threshold - _EPSILON:
                _merge(groups, index, other)
        for word in prefix:
            seen[word].append(index)
    return [_first(groups, index) for index in range(len(texts))]


def _first(groups: list[int], index: int) -> int:
    while groups[index] != index:
        groups[index] = groups[groups[index]]
        index = groups[index]
    return index


def _merge(groups: list[int], one: int, other: int) -> None:
    first, second = sorted((_first(groups, one), _first(groups, other)))
    groups[second] = first
