"""Which token stands for which word: the first one of it (Devlin et al., BERT, 2019, for NER).

Words are joined by spaces into one text, so that a tokenizer sees them as it saw its own training
data, and are found again by the offsets of the tokens.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["first_tokens", "join_words", "skip_spaces"]


def join_words(words: Sequence[str]) -> tuple[str, NDArray[np.int64]]:
    """The words as one text, and int64 [words, 2]: start and end of each in its characters."""
    lengths = np.array([len(word) for word in words], dtype=np.int64)
    ends = np.cumsum(lengths + 1) - 1
    return " ".join(words), np.stack([ends - lengths, ends], axis=1)


def skip_spaces(text: str, start: int, end: int) -> int:
    """Where a token from ``start`` to ``end`` of a text begins, spaces before its word left out.

    Some tokenizers count the space before a word as part of its first token.
    """
    while start < end and text[start].isspace():
        start += 1
    return start


def first_tokens(
    offsets: Sequence[tuple[int, int]], spans: NDArray[np.int64], text: str
) -> NDArray[np.int64]:
    """The position of each word's first token, -1 where a word has none (it was cut, for one).

    Args:
        offsets: start and end of each token in characters of the text; equal where a token is no
            part of it (special tokens).
        spans: int64 [words, 2], start and end of each word, in order, without overlap.
        text: the text.
    """
    first = np.full(len(spans), -1, dtype=np.int64)
    if not len(spans):
        return first
    for position, (start, end) in enumerate(offsets):
        begin = skip_spaces(text, start, end)
        if begin == end:
            continue
        word = int(np.searchsorted(spans[:, 0], begin, side="right")) - 1
        if word >= 0 and begin < spans[word, 1] and first[word] < 0:
            first[word] = position
    return first
