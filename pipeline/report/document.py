"""What a report is made of, whether it is written as HTML or as Markdown."""

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.report.svg import Drawing

__all__ = ["Block", "Charts", "Details", "Section", "Table", "Text"]


@dataclass(frozen=True)
class Text:
    """A paragraph; a warning is something to know before trusting the figures."""

    text: str
    warning: bool = False


@dataclass(frozen=True)
class Table:
    """Rows of text.

    Attributes:
        headers: of the columns.
        rows: as many cells each.
        numeric_from: columns from this one on are aligned as numbers.
    """

    headers: Sequence[str]
    rows: Sequence[Sequence[str]]
    numeric_from: int = 1


@dataclass(frozen=True)
class Charts:
    """Drawings of what tables beside them hold; left out of Markdown."""

    drawings: Sequence[Drawing]


@dataclass(frozen=True)
class Details:
    """Blocks that are shown when a reader asks for them."""

    summary: str
    blocks: Sequence["Block"]


@dataclass(frozen=True)
class Section:
    """Blocks below a heading; sections within are one level lower."""

    title: str
    blocks: Sequence["Block"]


Block = Text | Table | Charts | Details | Section
