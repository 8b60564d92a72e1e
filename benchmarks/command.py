"""Calls of `smp-pipeline`, each in a process of its own."""

import subprocess
import sys

from pipeline.errors import PipelineError

COMMAND = (sys.executable, "-m", "pipeline")


def smp_pipeline(*arguments: str) -> None:
    """Run one command.

    Raises:
        PipelineError: it failed; with the last line that it printed.
    """
    done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise PipelineError(f"smp-pipeline {' '.join(arguments)} failed: {reason}")
