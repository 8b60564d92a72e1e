"""The pieces of Markdown that our reports are made of."""

from collections.abc import Sequence

__all__ = ["markdown_table", "plain"]


def markdown_table(
    headers: Sequence[str], rows: Sequence[Sequence[str]], *, numeric_from: int = 1
) -> str:
    """A Markdown table; columns from ``numeric_from`` on are numbers, those before are text."""
    numbers = len(headers) - numeric_from
    lines = [list(headers), ["---"] * numeric_from + ["---:"] * numbers, *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def plain(text: str) -> str:
    """Text that Markdown leaves as it is, also within a table."""
    for character in "\\|`*_[]<>&#~":
        text = text.replace(character, f"\\{character}")
    return text.replace("\n", " ")
