"""A report as one HTML file that loads nothing and runs nothing."""

import base64
import hashlib
import html
from collections.abc import Sequence
from pathlib import Path

from pipeline.report.document import Block, Charts, Details, Section, Table, Text
from pipeline.report.svg import CHART_STYLE, to_svg
from pipeline.report.text import printable

__all__ = ["to_html"]

_STYLE = CHART_STYLE + Path(__file__).with_name("page.css").read_text(encoding="utf-8")
_DIGEST = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
# The style sheet in the file, and nothing else: no script, no picture, no form, no address.
_POLICY = f"default-src 'none'; style-src 'sha256-{_DIGEST}'; base-uri 'none'; form-action 'none'"


def to_html(document: Section) -> str:
    """The document as a whole page; every text in it is escaped."""
    title = _text(document.title)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="referrer" content="no-referrer">
<title>{title}</title>
<style>{_STYLE}</style>
</head>
<body>
<main>
<h1>{title}</h1>
{_blocks(document.blocks, 1)}
</main>
</body>
</html>
"""


def _blocks(blocks: Sequence[Block], level: int) -> str:
    return "\n".join(_block(block, level) for block in blocks)


def _block(block: Block, level: int) -> str:
    match block:
        case Text(text, warning):
            return f"<p{_class('warning', warning)}>{_text(text)}</p>"
        case Table():
            return _table(block)
        case Charts(drawings):
            figures = "".join(f"<figure>{to_svg(drawing)}</figure>" for drawing in drawings)
            return f'<div class="charts">{figures}</div>' if figures else ""
        case Details(summary, inner):
            content = _blocks(inner, level)
            return f"<details><summary>{_text(summary)}</summary>\n{content}\n</details>"
        case Section(title, inner):
            heading = f"h{level + 1}"
            return (
                f"<section>\n<{heading}>{_text(title)}</{heading}>\n"
                f"{_blocks(inner, level + 1)}\n</section>"
            )


def _table(table: Table) -> str:
    def cells(row: Sequence[str], tag: str) -> str:
        return "".join(
            f"<{tag}{_class('number', column >= table.numeric_from)}>{_text(cell)}</{tag}>"
            for column, cell in enumerate(row)
        )

    head = f"<thead><tr>{cells(table.headers, 'th')}</tr></thead>"
    body = "\n".join(f"<tr>{cells(row, 'td')}</tr>" for row in table.rows)
    # A region that scrolls by itself must be reachable by keyboard and have a name.
    name = _text(f"Table: {', '.join(table.headers)}")
    return (
        f'<div class="table" role="region" tabindex="0" aria-label="{name}">'
        f"<table>{head}<tbody>{body}</tbody></table></div>"
    )


def _class(name: str, present: bool) -> str:
    return f' class="{name}"' if present else ""


def _text(text: str) -> str:
    return html.escape(printable(text))
