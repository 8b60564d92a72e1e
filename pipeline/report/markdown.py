"""A report as Markdown, for a file or a comment on a pull request."""

import html
from collections.abc import Sequence

from pipeline.markdown import markdown_table, plain
from pipeline.report.document import Block, Charts, Details, Section, Table, Text
from pipeline.report.text import printable

__all__ = ["to_markdown"]


def to_markdown(document: Section, *, image: str | None = None) -> str:
    """The document without its charts.

    Args:
        document: the report.
        image: file name of a picture beside the report, to show below the title.
    """
    title, *rest = _section(document, 1)
    picture = [] if image is None else [f"![charts of the figures below]({image})"]
    return "\n\n".join([title, *picture, *rest]) + "\n"


def _section(section: Section, level: int) -> list[str]:
    return [f"{'#' * level} {_text(section.title)}", *_blocks(section.blocks, level)]


def _blocks(blocks: Sequence[Block], level: int) -> list[str]:
    parts = []
    for block in blocks:
        match block:
            case Text(text, warning):
                parts.append(f"> **Note:** {_text(text)}" if warning else _text(text))
            case Table(headers, rows, numeric_from):
                names = [_text(header) for header in headers]
                lines = [[_text(cell) for cell in row] for row in rows]
                parts.append(markdown_table(names, lines, numeric_from=numeric_from))
            case Details(summary, inner):
                # Within a line of HTML, Markdown's backslashes are letters.
                title = html.escape(printable(summary), quote=False)
                parts.append(f"<details><summary>{title}</summary>")
                parts += [*_blocks(inner, level), "</details>"]
            case Section():
                parts += _section(block, level + 1)
            case Charts():
                pass
    return parts


def _text(text: str) -> str:
    return plain(printable(text))
