"""What ``--quiet`` does: nothing but errors on stderr."""

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

__all__ = ["error_stream", "only_errors"]

_errors: TextIO | None = None


@contextlib.contextmanager
def only_errors() -> Iterator[None]:
    """Keep notes, progress bars and warnings, ours and those of all packages, off stderr.

    They go to sys.stderr, wherever they are written, so that one replacement holds for all of them.
    What ends a command is printed after it, and what is logged as an error goes to
    :func:`error_stream`.
    """
    global _errors
    logging_before = logging.root.manager.disable
    _errors = sys.stderr
    logging.disable(logging.WARNING)
    try:
        with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stderr(nowhere):
            yield
    finally:
        logging.disable(logging_before)
        _errors = None


def error_stream() -> TextIO:
    """Where errors are written to, with ``--quiet`` and without."""
    return _errors or sys.stderr
