"""Sentences with human sentiment ratings, as Hutto and Gilbert (ICWSM 2014) published them."""

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.errors import DataError

__all__ = ["MINIMUM_RATING", "Snippet", "parse_snippets", "with_clear_sentiment"]

MINIMUM_RATING = 0.5
"""Smallest absolute mean rating that counts as positive or negative.

Each rating is the mean of some 15 to 20 people's, and its standard error is about 0.2 (median over
each file): nearer to 0 than this the sign says little about the sentence.
"""

_LARGEST_RATING = 4.0


@dataclass(frozen=True)
class Snippet:
    """A sentence and the mean of its ratings, from -4 (most negative) to 4 (most positive)."""

    text: str
    rating: float

    @property
    def label(self) -> str:
        """``positive`` or ``negative``, by the sign of the rating."""
        return "positive" if self.rating > 0 else "negative"


def parse_snippets(content: bytes, *, source: str) -> list[Snippet]:
    """Parse a file of lines ``id<TAB>mean rating<TAB>text``.

    The files are UTF-8 with HTML entities here and there, which are resolved; runs of white space
    become one space.

    Args:
        content: the file.
        source: its name, for messages.

    Raises:
        DataError: the file is not UTF-8, or a line is not of that form.
    """
    try:
        lines = content.decode("utf-8").replace("\r\n", "\n").removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{source}: expected UTF-8 ({error})") from error
    snippets = []
    for number, line in enumerate(lines, start=1):
        fields = line.split("\t")
        rating = _rating(fields[1]) if len(fields) == 3 else None
        text = " ".join(html.unescape(fields[-1]).split())
        if rating is None or not text:
            raise DataError(
                f"{source}, line {number}: expected 'id<TAB>rating from -4 to 4<TAB>text', "
                f"got {line[:80]!r}"
            )
        snippets.append(Snippet(text, rating))
    return snippets


def _rating(field: str) -> float | None:
    try:
        rating = float(field)
    except ValueError:
        return None
    return rating if math.isfinite(rating) and abs(rating) <= _LARGEST_RATING else None


def with_clear_sentiment(snippets: Sequence[Snippet]) -> list[Snippet]:
    """Those whose rating is at least :data:`MINIMUM_RATING` away from 0."""
    return [snippet for snippet in snippets if abs(snippet.rating) >= MINIMUM_RATING]
