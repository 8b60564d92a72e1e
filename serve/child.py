"""Measuring one model in a fresh process of this interpreter, which prints one line of JSON."""

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts.manifest import from_json, to_json
from pipeline.errors import MachineError, PipelineError
from serve.layout import ModelSource, read_layout
from serve.session import Session, open_session

__all__ = ["ChildTask", "made_up_inputs", "print_measured", "run_child"]


@dataclass(frozen=True)
class ChildTask:
    """Which model the child opens, and the batch that it runs.

    Attributes:
        source: the model.
        provider: ONNX Runtime's execution provider.
        threads: intra-op threads.
        batch_size: texts a batch.
        sequence_length: tokens a text.
    """

    source: ModelSource
    provider: str
    threads: int
    batch_size: int
    sequence_length: int

    @classmethod
    def of(cls, session: Session, batch_size: int, sequence_length: int) -> "ChildTask":
        """The model of an open session, on as many threads and the same provider."""
        source, provider = session.layout.source, session.provider
        return cls(source, provider, session.threads, batch_size, sequence_length)

    def open(self, *, profile_prefix: str | None = None) -> Session:
        """Open the model, see :func:`serve.session.open_session`."""
        return open_session(
            read_layout(self.source),
            threads=self.threads,
            provider=self.provider,
            profile_prefix=profile_prefix,
        )

    def inputs(self, session: Session) -> dict[str, NDArray[np.int64]]:
        """The batch: see :func:`made_up_inputs`."""
        return made_up_inputs(session, self.batch_size, self.sequence_length)


def run_child(module: str, task: ChildTask, *, what: str) -> Any:
    """Run ``python -m MODULE`` with the task as JSON.

    Args:
        module: it calls :func:`print_measured`.
        task: the model and the batch.
        what: what it measures, for the message.

    Returns:
        The JSON value that it printed.

    Raises:
        MachineError: the process failed or was killed, for instance for want of memory.
    """
    # -P keeps the current directory off the import path: a serve/ that lies there is not ours.
    command = [sys.executable, "-P", "-m", module, json.dumps(to_json(task))]
    result = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if result.returncode != 0:
        lines = result.stderr.strip().splitlines()
        reason = lines[-1] if lines else f"exit code {result.returncode}"
        if result.returncode < 0:
            reason = f"killed by signal {-result.returncode}; is there enough memory?"
        raise MachineError(f"{task.source.path}: measuring {what} failed: {reason}")
    return json.loads(result.stdout.strip().splitlines()[-1])


def print_measured(measure: Callable[[ChildTask], Mapping[str, Any]], argument: str) -> int:
    """In the child: call ``measure(task)`` and print what it gives.

    Returns:
        The exit code: 2, with one line on stderr, for an error of the user's.
    """
    task = from_json(ChildTask, json.loads(argument), source=Path("the task"))
    try:
        measured = measure(task)
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
    inputs = {name: np.zeros(shape, dtype=np.int64) for name in session.inputs}
    inputs["input_ids"] = ids % session.vocabulary_size
    if "attention_mask" in inputs:
        inputs["attention_mask"] = np.ones(shape, dtype=np.int64)
    return inputs
