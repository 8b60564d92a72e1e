"""Names and numbers as people read them; names come from files of others."""

import math
import unicodedata
from collections.abc import Sequence

from pipeline.artifacts.benchmark import Estimate

__all__ = [
    "NOT_MEASURED",
    "and_list",
    "interval",
    "measured",
    "metric_title",
    "number",
    "printable",
    "ratio",
    "rounded",
]

NOT_MEASURED = "not measured"

_DIRECTIONS = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


def printable(text: str) -> str:
    """The text without what no file can hold (lone surrogates) and what changes its surroundings.

    Control characters, among them line ends, and changes of the writing direction become U+FFFD.
    """
    return "".join(
        "\ufffd"
        if unicodedata.category(character) in ("Cc", "Cs")
        or unicodedata.bidirectional(character) in _DIRECTIONS
        else character
        for character in text
    )


def number(value: float, digits: int) -> str:
    """A number with so many decimals; a NaN or infinity of a foreign file in words."""
    return f"{value:,.{digits}f}" if math.isfinite(value) else "undefined"


def rounded(value: float) -> str:
    """A measured number with three significant digits, more where it is 1000 or above."""
    return number(value, _decimals(value))


def _decimals(value: float) -> int:
    if not math.isfinite(value) or value == 0.0:
        return 0
    return min(9, max(0, 2 - math.floor(math.log10(abs(value)))))


def interval(estimate: Estimate, digits: int) -> str:
    """A value with the ends of its interval, as ``0.853 (0.828 to 0.877)``."""
    low, high = number(estimate.low, digits), number(estimate.high, digits)
    return f"{number(estimate.value, digits)} ({low} to {high})"


def measured(estimate: Estimate) -> str:
    """A measured time with the ends of its interval, as ``11.5 (11.3 to 11.9)``."""
    return interval(estimate, _decimals(estimate.value))


def metric_title(metric: str) -> str:
    """A metric at the start of a title."""
    words = metric.replace("_", " ")
    return words[:1].upper() + words[1:]


def ratio(estimate: Estimate, position: int, digits: int = 3) -> str:
    """The ratio to the first model; the first itself has none to show."""
    return interval(estimate, digits) if position else "1"


def and_list(words: Sequence[str]) -> str:
    """Words as ``a, b and c``."""
    return " and ".join([", ".join(words[:-1])] * (len(words) > 1) + list(words[-1:]))
