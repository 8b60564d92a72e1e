"""How every benchmark's command ends."""

import argparse
import sys
from collections.abc import Callable

from pipeline.errors import PipelineError

__all__ = ["run"]


def run(
    measure: Callable[[argparse.Namespace], None], parse: Callable[[], argparse.Namespace]
) -> int:
    """Measure what the command line asks for; returns the exit code, 2 for what a user can mend."""
    try:
        measure(parse())
    except PipelineError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0
