"""Masks on disk: one bit a weight, in a safetensors file with shapes, counts and a checksum."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from pipeline.errors import ArtifactError

__all__ = ["read_masks", "write_masks"]

_FORMAT = "smp-masks-1"


def write_masks(path: Path, masks: Mapping[str, NDArray[np.bool_]]) -> None:
    """Write masks as packed bits.

    Each mask is flattened row-major and packed eight to a byte, first weight in the highest bit
    (``numpy.packbits``); the last byte is filled up with zeros. Shapes, numbers of kept weights
    and a SHA-256 over all packed bytes stand in the file's metadata.

    Args:
        path: the file to write.
        masks: parameter name in the base model -> bool array of the weight's shape,
            ``[out_features, in_features]``.
    """
    packed = {name: np.packbits(mask.reshape(-1)) for name, mask in sorted(masks.items())}
    layout = {
        name: {"shape": list(mask.shape), "kept": int(np.count_nonzero(mask))}
        for name, mask in sorted(masks.items())
    }
    metadata = {
        "format": _FORMAT,
        "layout": json.dumps(layout),
        "sha256": _digest(packed),
    }
    save_file(packed, str(path), metadata=metadata)


def read_masks(path: Path) -> dict[str, NDArray[np.bool_]]:
    """Read masks and check them against the sizes, counts and checksum in the file.

    Returns:
        parameter name -> bool array of the weight's shape.

    Raises:
        ArtifactError: the file is missing, truncated, corrupt, or of another format.
    """
    if not path.is_file():
        raise ArtifactError(f"{path} is missing; the run directory is incomplete, train again")
    try:
        with safe_open(str(path), framework="numpy") as file:
            metadata = file.metadata() or {}
            names = list(file.keys())
            # NumPy has no name for some of safetensors' types, and fails on them in its own way.
            if any(file.get_slice(name).get_dtype() != "U8" for name in names):
                raise ArtifactError(f"{path} is corrupt: masks are packed in bytes (U8)")
            packed = {name: file.get_tensor(name) for name in names}
    except SafetensorError as error:
        raise ArtifactError(
            f"{path} is truncated or corrupt ({error}); copy the run directory again"
        ) from error
    if metadata.get("format") != _FORMAT:
        raise ArtifactError(
            f"{path}: expected mask format {_FORMAT!r}, got {metadata.get('format')!r}; "
            "upgrade smp-pipeline or train again"
        )
    layout = _parse_layout(path, metadata)
    if set(layout) != set(packed):
        raise ArtifactError(f"{path} is corrupt: its layout does not name the tensors it holds")
    if _digest(packed) != metadata.get("sha256"):
        raise ArtifactError(f"{path} is corrupt: checksum mismatch; copy the run directory again")
    return {name: _unpack(path, name, packed[name], *layout[name]) for name in sorted(packed)}


def _parse_layout(
    path: Path, metadata: Mapping[str, str]
) -> dict[str, tuple[tuple[int, ...], int]]:
    try:
        layout = json.loads(metadata["layout"])
        parsed = {
            name: (tuple(int(size) for size in entry["shape"]), int(entry["kept"]))
            for name, entry in layout.items()
        }
    except (
        LookupError,
        TypeError,
        ValueError,
        ArithmeticError,
        AttributeError,
        RecursionError,
    ) as error:
        raise ArtifactError(f"{path} is corrupt: its layout cannot be read") from error
    for name, (shape, _) in parsed.items():
        if len(shape) != 2 or min(shape) <= 0:
            raise ArtifactError(f"{path} is corrupt: mask {name} has the shape {list(shape)}")
    return parsed


def _unpack(
    path: Path, name: str, packed: NDArray[np.uint8], shape: tuple[int, ...], kept: int
) -> NDArray[np.bool_]:
    size = int(np.prod(shape, dtype=object))
    if packed.ndim != 1 or packed.size != (size + 7) // 8:
        raise ArtifactError(
            f"{path} is corrupt: mask {name} has {packed.size} bytes for {size} weights"
        )
    mask = np.unpackbits(packed, count=size).astype(np.bool_).reshape(shape)
    if int(np.count_nonzero(mask)) != kept:
        raise ArtifactError(f"{path} is corrupt: mask {name} does not keep {kept} weights")
    return mask


def _digest(packed: Mapping[str, NDArray[np.uint8]]) -> str:
    digest = hashlib.sha256()
    for name in sorted(packed):
        digest.update(name.encode() + b"\0")
        digest.update(np.ascontiguousarray(packed[name]).tobytes())
    return digest.hexdigest()
