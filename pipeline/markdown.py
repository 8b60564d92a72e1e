"""The pieces of Markdown that our reports are made of."""

from collections.abc import Sequence

__all__ = ["markdown_table", "plain"]


def markdown_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first column is text, the others are numbers."""
    lines = [list(headers), ["---", *["---:"] * (len(headers) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def plain(text: str) -> str:
    """Text that Markdown leaves as it is, also within a table."""
    for character in "\\|`*_[]<>":
        text = text.replace(character, f"\\{character}")
    return text.replace("\n", " ")
