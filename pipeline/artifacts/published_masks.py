"""Masks in the layout of the files that SMP's authors published: bits, and nothing else.

One uint8 array in a .npy file: ``numpy.packbits`` over the masks of all pruned matrices, each
row-major as ``[out_features, in_features]``, in the order of the names
``bert.encoder.layer.<i>.<matrix>.mask_scores`` as strings, so that layer 10 follows layer 1.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts.files import staged_file
from pipeline.errors import ArtifactError

__all__ = ["published_order", "read_published_masks", "write_published_masks"]

_MATRIX = re.compile(
    r"encoder\.layer\.\d+\."
    r"(attention\.self\.(query|key|value)|attention\.output\.dense|intermediate\.dense|output\.dense)"
    r"\.weight"
)


def published_order(names: Iterable[str]) -> list[str]:
    """The pruned matrices in the order of the layout.

    Args:
        names: parameter names in the encoder, for instance
            ``encoder.layer.0.output.dense.weight``.

    Raises:
        ValueError: one is no matrix of a BERT encoder.
    """
    published = {}
    for name in names:
        if _MATRIX.fullmatch(name) is None:
            raise ValueError(f"{name} is no pruned matrix of a BERT encoder")
        published[f"bert.{name.removesuffix('.weight')}.mask_scores"] = name
    return [published[name] for name in sorted(published)]


def read_published_masks(
    path: Path, shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, NDArray[np.bool_]]:
    """Read masks that have no names, shapes or checksum of their own.

    No more is read than the shapes ask for, whatever the file's header says, and never a pickle.

    Args:
        path: the .npy file.
        shapes: parameter name -> ``(out_features, in_features)`` of all pruned matrices of the
            encoder that the masks belong to.

    Returns:
        parameter name -> mask.

    Raises:
        ArtifactError: no such file, no .npy file, or not the bits of an encoder of these shapes.
    """
    sizes = {name: int(np.prod(shapes[name])) for name in published_order(shapes)}
    weights = sum(sizes.values())
    expected = (weights + 7) // 8
    packed = _map(path)
    if packed.dtype != np.uint8 or packed.ndim != 1:
        raise ArtifactError(
            f"{path}: expected one row of packed bits (uint8), got {packed.dtype} of shape "
            f"{list(packed.shape)}; give a mask file as SMP's authors publish them"
        )
    if packed.size != expected:
        raise ArtifactError(
            f"{path}: expected {expected:,} bytes of masks for the {weights:,} pruned weights of "
            f"this model, got {packed.size:,}; give --model the model that the masks belong to"
        )
    bits = np.unpackbits(packed.astype(np.uint8, copy=False), count=weights).view(np.bool_)
    ends = np.cumsum(list(sizes.values()))
    pieces = np.split(bits, ends[:-1])
    return {name: piece.reshape(shapes[name]) for name, piece in zip(sizes, pieces, strict=True)}


def _map(path: Path) -> NDArray[np.generic]:
    if not path.is_file():
        raise ArtifactError(f"{path}: no such file; give a .npy file of masks")
    try:
        # Mapped, so that a size in the header takes no memory before it has been checked.
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # the header is parsed as Python, which fails in many ways
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ArtifactError(f"{path} is no .npy file of masks ({reason})") from error
    if not isinstance(array, np.memmap):
        raise ArtifactError(f"{path} is no .npy file of masks but an archive; give one array")
    return array


def write_published_masks(path: Path, masks: Mapping[str, NDArray[np.bool_]]) -> int:
    """Write masks in the layout, complete or not at all.

    Args:
        path: the .npy file.
        masks: parameter name -> mask of all pruned matrices of a BERT encoder.

    Returns:
        bytes of packed bits, without the header.

    Raises:
        ValueError: a matrix of no BERT encoder.
        MachineError: the disk is full or not writable.
    """
    bits = np.concatenate([masks[name].reshape(-1) for name in published_order(masks)])
    packed = np.packbits(bits)
    with staged_file(path) as scratch, scratch.open("wb") as file:
        np.save(file, packed, allow_pickle=False)
    return int(packed.size)
