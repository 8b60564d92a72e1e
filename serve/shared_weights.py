"""Weights that ONNX Runtime gets from this process instead of a copy of its own for each session.

Tables that rows are looked up in (and the small vectors of the engine's operators) are held once
for all sessions with equal bytes. Encoded matrices of the engine's operators are dropped once the
session exists, as its operators have made what they compute with from them by then. Everything is
copied out of the file: a file that is written over or cut short while it is served harms nobody.

Weights of other operators are left alone: ONNX Runtime lays most of them out anew for its kernels
and frees its own copy; one that was handed to it would have to stay.
"""

import hashlib
import mmap
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts.exported import DATA_FILE
from pipeline.errors import ArtifactError
from serve.onnx_initializers import Consumer, Initializer, read_initializers
from serve.weak_cache import Held, WeakCache

__all__ = ["SharedWeights", "tables_held"]

_MIN_BYTES = 1024
_ENGINE_DOMAIN = "smp"
_ENGINE_MARK = b"SMPW"
_ALIGNMENT = 64

_tables: WeakCache[NDArray[Any]] = WeakCache()


def tables_held() -> int:
    """How many different tables the open sessions of this process hold."""
    return len(_tables)


class SharedWeights:
    """The weights of one session that lie in this process' own memory.

    Whoever holds the session must hold this object too.

    Args:
        onnxruntime: the module.
        path: the model file.
        options: session options that get the weights.

    Raises:
        ArtifactError: the file is damaged.
    """

    def __init__(self, onnxruntime: ModuleType, path: Path, options: Any) -> None:
        self._held: list[Held[NDArray[Any]]] = []
        self._values: list[Any] = []
        self._encoded: mmap.mmap | None = None
        if sys.byteorder != "little":
            return
        chosen = [
            found
            for found in read_initializers(path, min_bytes=_MIN_BYTES)
            if found.file in (None, DATA_FILE) and all(map(_may_be_shared, found.consumers))
        ]
        files: dict[str | None, BinaryIO] = {}
        try:
            for found in chosen:
                if found.file not in files:
                    files[found.file] = (
                        path if found.file is None else path.parent / DATA_FILE
                    ).open("rb")
            encoded = [found for found in chosen if _is_encoded(found, files)]
            arrays = self._read_encoded(encoded, files)
            for found in chosen:
                if found.name not in arrays:
                    arrays[found.name] = self._read_table(found, files[found.file])
        finally:
            for file in files.values():
                file.close()
        for name, array in arrays.items():
            value = onnxruntime.OrtValue.ortvalue_from_numpy(array)
            self._values.append(value)
            options.add_initializer(name, value)

    def drop_encoded(self) -> None:
        """Give the memory of encoded matrices back; the session must exist by now."""
        if self._encoded is not None and hasattr(mmap, "MADV_DONTNEED"):
            self._encoded.madvise(mmap.MADV_DONTNEED)

    def _read_encoded(
        self, encoded: list[Initializer], files: dict[str | None, BinaryIO]
    ) -> dict[str, NDArray[Any]]:
        if not encoded:
            return {}
        sizes = [found.size_bytes + -found.size_bytes % _ALIGNMENT for found in encoded]
        self._encoded = mmap.mmap(-1, sum(sizes))
        memory = np.frombuffer(self._encoded, np.uint8)
        arrays = {}
        at = 0
        for found, size in zip(encoded, sizes, strict=True):
            array = memory[at : at + found.size_bytes]
            _read_into(found, files[found.file], array)
            arrays[found.name] = array
            at += size
        return arrays

    def _read_table(self, found: Initializer, file: BinaryIO) -> NDArray[Any]:
        array = np.empty(found.dims, found.element_type)
        _read_into(found, file, array.reshape(-1).view(np.uint8))
        digest = hashlib.sha256(array.data).digest()
        held = _tables.get((digest, found.element_type, found.dims), lambda: array)
        self._held.append(held)
        return held.value


def _may_be_shared(consumer: Consumer) -> bool:
    if consumer.domain == _ENGINE_DOMAIN:
        return True
    return consumer.domain == "" and consumer.op_type == "Gather" and consumer.position == 0


def _is_encoded(found: Initializer, files: dict[str | None, BinaryIO]) -> bool:
    """Whether a tensor is a matrix that the engine's operators read once, when they are made."""
    if found.element_type != "uint8" or len(found.dims) != 1 or not found.consumers:
        return False
    if any(consumer.domain != _ENGINE_DOMAIN for consumer in found.consumers):
        return False
    file = files[found.file]
    file.seek(found.offset)
    return file.read(len(_ENGINE_MARK)) == _ENGINE_MARK


def _read_into(found: Initializer, file: BinaryIO, array: NDArray[np.uint8]) -> None:
    file.seek(found.offset)
    if file.readinto(array.data) != found.size_bytes:  # type: ignore[attr-defined]
        raise ArtifactError(f"{file.name} ends within {found.name}; export the model again")
