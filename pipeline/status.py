"""A line on stderr that says what a command is busy with."""

import sys
from typing import TYPE_CHECKING

from pipeline.environment import is_main_process

if TYPE_CHECKING:
    from rich.status import Status

__all__ = ["status_line"]


def status_line(text: str) -> "Status":
    """A context manager that shows a text, with a moving mark, while something runs.

    Nothing is written where stderr is no terminal, with ``--quiet``, or by any but the main
    process. No other of them, and no progress bar, may be shown at the same time.
    """
    from rich.console import Console

    console = Console(file=sys.stderr, quiet=not is_main_process())
    return console.status(text, spinner="line")
