"""Measuring one model in a fresh process of this interpreter, which prints one line of JSON."""

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import MachineError, PipelineError
from serve.session import Session

__all__ = ["made_up_inputs", "print_measured", "run_child"]


def run_child(module: str, directory: Path, numbers: tuple[int, ...], *, what: str) -> Any:
    """Run ``python -m MODULE DIRECTORY NUMBERS...``.

    Args:
        module: it calls :func:`print_measured`.
        directory: the model directory.
        numbers: further arguments.
        what: what it measures, for the message.

    Returns:
        The JSON value that it printed.

    Raises:
        MachineError: the process failed or was killed, for instance for want of memory.
    """
    # -P keeps the current directory off the import path: a serve/ that lies there is not ours.
    command = [sys.executable, "-P", "-m", module, str(directory.resolve()), *map(str, numbers)]
    result = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if result.returncode != 0:
        lines = result.stderr.strip().splitlines()
        reason = lines[-1] if lines else f"exit code {result.returncode}"
        if result.returncode < 0:
            reason = f"killed by signal {-result.returncode}; is there enough memory?"
        raise MachineError(f"{directory}: measuring {what} failed: {reason}")
    return json.loads(result.stdout.strip().splitlines()[-1])


def print_measured(measure: Callable[..., Mapping[str, Any]], arguments: list[str]) -> int:
    """In the child: call ``measure(directory, *numbers)`` and print what it gives.

    Returns:
        The exit code: 2, with one line on stderr, for an error of the user's.
    """
    try:
        measured = measure(Path(arguments[0]), *map(int, arguments[1:]))
    except PipelineError as error:
        print(error, file=sys.stderr)
        return 2
    print(json.dumps(measured))
    return 0


def made_up_inputs(
    session: Session, batch_size: int, sequence_length: int
) -> dict[str, NDArray[np.int64]]:
    """Inputs of one batch without padding: input name -> int64 [batch_size, sequence_length]."""
    shape = (batch_size, sequence_length)
    ids = np.arange(batch_size * sequence_length, dtype=np.int64).reshape(shape)
    inputs = {name: np.zeros(shape, dtype=np.int64) for name in session.manifest.inputs}
    inputs["input_ids"] = ids % session.vocabulary_size
    if "attention_mask" in inputs:
        inputs["attention_mask"] = np.ones(shape, dtype=np.int64)
    return inputs
