"""What may have been meant by a word that is not known."""

from collections.abc import Iterable

__all__ = ["closest"]


def closest(word: str, known: Iterable[str]) -> str | None:
    """The known word that is most like another, or None if none is like it.

    By the ratio of :mod:`difflib`, which counts the letters in common.
    """
    import difflib

    matches = difflib.get_close_matches(word, list(known), n=1)
    return matches[0] if matches else None
