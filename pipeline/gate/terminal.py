"""The verdict for people: a table of 80 columns and what must be known of it."""

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipeline.gate.judgement import GateResult

__all__ = ["print_gate", "printable", "rounded"]

_COLOURS = {"passed": "green", "failed": "red", "unmeasured": "red", "not judged": "yellow"}


def print_gate(result: GateResult) -> None:
    """Print the comparisons, the notes and the verdict to stdout."""
    console = Console(highlight=False)
    table = Table(box=box.SIMPLE_HEAD, padding=0, pad_edge=False, show_edge=False)
    table.add_column("model", overflow="fold", min_width=8)
    table.add_column("quantity", min_width=14)
    for header in ("baseline", "now", "change", "limit", "p"):
        table.add_column(header, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    named = ""
    for judgement in result.judgements:
        table.add_row(
            "" if judgement.model == named else escape(printable(judgement.model)),
            judgement.quantity,
            rounded(judgement.baseline),
            rounded(judgement.bench),
            rounded(judgement.change, 3),
            f"{judgement.limit:g}",
            rounded(judgement.p_value, 2),
            f"[{_COLOURS[judgement.verdict]}]{judgement.verdict}[/]",
        )
        named = judgement.model
    if result.judgements:
        console.print(table)
    without = [*result.of_verdict("unmeasured"), *result.of_verdict("not judged")]
    for note in [*(f"{j.sentence}." for j in without), *result.notes]:
        console.print(printable(note), markup=False)
    console.print(result.summary, markup=False)


def printable(text: str) -> str:
    """Text of a file without what a terminal, or a runner that reads it, takes as a command."""
    return "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text
    )


def rounded(value: float | None, digits: int = 4) -> str:
    """A number for people; nothing where there is none."""
    return "" if value is None else f"{value:.{digits}g}"
