"""What an engine is to the benchmark."""

import importlib.metadata
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts.benchmark import SizeOnDisk
from pipeline.artifacts.run import TaskKind
from pipeline.errors import ConfigurationError, MachineError
from serve.session import Session

__all__ = ["LoadPytorch", "Peer", "Run", "need_dense_onnx", "need_packages"]

Run = Callable[[Mapping[str, NDArray[np.int64]]], NDArray[Any]]


class LoadPytorch(Protocol):
    """Loads a model in PyTorch, which this package never imports; see :mod:`export.pytorch`."""

    def __call__(self, model: str, *, kind: TaskKind, threads: int, compiled: bool) -> Run:
        """Load a run directory, a Hugging Face directory or a hub id."""


@dataclass(frozen=True)
class Peer:
    """The first model on another engine, in memory.

    Attributes:
        run: input name -> int64 [batch, sequence] to the model's output.
        source: what was loaded.
        device: what it runs on.
        size: bytes on disk; None where it has no ONNX file.
        model_sha256: hash of the ONNX file; None likewise.
        versions: package -> version.
        tolerance: largest difference that is allowed to the first model's output, as a share of
            max(1, its largest absolute value).
    """

    run: Run
    source: str
    device: str
    size: SizeOnDisk | None
    model_sha256: str | None
    versions: Mapping[str, str]
    tolerance: float


def need_packages(peer: str, *packages: str, extra: str = "peers") -> Mapping[str, str]:
    """The versions of a peer's packages, which come with an extra of ours.

    Raises:
        MachineError: one is not installed.
    """
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        raise MachineError(
            f"--peers {peer} needs {', '.join(missing)}; "
            f"install it with: pip install 'smp-pipeline[{extra}]'"
        )
    return {package: importlib.metadata.version(package) for package in packages}


def need_dense_onnx(peer: str, session: Session) -> None:
    """Refuse a model whose weights are stored in a way that only ONNX Runtime, or we, can read.

    Raises:
        ConfigurationError: it is such a model.
    """
    if session.layout.format not in (None, "dense"):
        raise ConfigurationError(
            f"--peers {peer} needs a dense ONNX file, the first model {session.layout.source.path} "
            f"is of the format {session.layout.format}; put first what "
            "`smp-pipeline export RUN --format dense` writes"
        )
