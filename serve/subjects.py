"""What a benchmark measures: each model on each engine, with the tokenizer that feeds it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.config import BenchConfig
from serve.session import Session, open_session

__all__ = ["Inputs", "Subject", "open_subjects"]

Inputs = Mapping[str, NDArray[np.int64]]


@dataclass(frozen=True)
class Subject:
    """A model on an engine, in memory.

    Attributes:
        name: unique within the benchmark.
        source: the path as it was given.
        engine: ``onnxruntime``, or the name of a peer.
        provider: ONNX Runtime's execution provider, or the peer's device.
        session: tokenises and collates; the first model's where the engine is a peer.
        run: input name -> int64 [batch, sequence] to float32 [batch, outputs].
    """

    name: str
    source: str
    engine: str
    provider: str
    session: Session
    run: Callable[[Inputs], NDArray[np.float32]]


def open_subjects(config: BenchConfig, *, threads: int) -> list[Subject]:
    """Open all that a configuration names, the first model first.

    Args:
        config: the configuration.
        threads: of each; 0 takes all cores that the process may use.

    Raises:
        ArtifactError: a model directory or file is incomplete or corrupt.
        ConfigurationError: a provider or peer is not to be had for it.
        MachineError: a package is missing.
    """
    names = _unique_names(config.models)
    subjects = []
    for name, directory in zip(names, config.models, strict=True):
        session = open_session(directory, threads=threads)
        subjects.append(
            Subject(
                name, str(directory), "onnxruntime", "CPUExecutionProvider", session, session.run
            )
        )
    return subjects


def _unique_names(directories: Sequence[Path]) -> list[str]:
    """The directories' names; the whole path, then a number, where two are equal."""
    names = [directory.resolve().name for directory in directories]
    names = [
        name if names.count(name) == 1 else str(directory)
        for name, directory in zip(names, directories, strict=True)
    ]
    return [
        name if name not in names[:index] else f"{name} ({names[: index + 1].count(name)})"
        for index, name in enumerate(names)
    ]
