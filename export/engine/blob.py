"""The encoding of one pruned matrix inside an engine graph, in numpy; docs/runtime.md has it.

A header of 32 bytes, then the scales (int8 only), the mask and the values that are not zero, each
at a multiple of 64 bytes; a section without bytes takes no place. All little endian.
"""

import struct

import numpy as np
from numpy.typing import NDArray

from export.quantise import Values, quantise, round_weights
from pipeline.errors import ArtifactError

__all__ = ["LARGEST_COLUMNS", "MASKS", "Values", "decode", "encode", "mask_kind", "quantise"]

LARGEST_COLUMNS = 65536
MASKS = ("dense", "bitmap", "gaps")

_MAGIC = b"SMPW"
_VERSION = 1
_HEADER = struct.Struct("<4sHBBIIQQ")
_ALIGNMENT = 64
_DTYPES: dict[str, str] = {"fp32": "<f4", "fp16": "<f2", "int8": "<i1"}
_FILLER = 255


def encode(matrix: NDArray[np.float32], values: Values) -> NDArray[np.uint8]:
    """Encode a matrix with whichever mask takes the fewest bytes.

    Args:
        matrix: float32 [out_features, in_features], finite.
        values: how the values are stored; what rounds to zero is not stored at all.

    Returns:
        uint8 [size].

    Raises:
        ModelError: a weight is not finite, or too large for float16.
    """
    stored, scales = round_weights(matrix, values)
    rows, columns = matrix.shape
    flat = stored.reshape(-1)
    positions = np.flatnonzero(flat)
    masks = (np.empty(0, np.uint8), np.packbits(flat != 0, bitorder="little"), _gaps(positions))
    chosen = [flat, flat[positions], flat[positions]]
    sizes = [mask.nbytes + kept.nbytes for mask, kept in zip(masks, chosen, strict=True)]
    kind = sizes.index(min(sizes))
    header = _HEADER.pack(
        *(_MAGIC, _VERSION, list(_DTYPES).index(values), kind),
        *(rows, columns, chosen[kind].size, masks[kind].size),
    )
    blob = bytearray(header)
    factors = np.empty(0, np.float32) if scales is None else scales
    for section in (factors.astype("<f4"), masks[kind], chosen[kind].astype(_DTYPES[values])):
        if section.size:
            blob += bytes(-len(blob) % _ALIGNMENT) + section.tobytes()
    return np.frombuffer(bytes(blob), np.uint8)


def _gaps(positions: NDArray[np.intp]) -> NDArray[np.uint8]:
    """How many zeros precede each value, a byte each; 255 stands for 255 zeros and no value."""
    zeros = np.diff(positions, prepend=-1) - 1
    fillers = zeros // _FILLER
    ends = np.cumsum(fillers + 1) - 1
    gaps = np.full(int(ends[-1]) + 1 if ends.size else 0, _FILLER, np.uint8)
    gaps[ends] = zeros % _FILLER
    return gaps


def mask_kind(blob: NDArray[np.uint8]) -> str:
    """Which of :data:`MASKS` a blob has."""
    return MASKS[int(blob[7])]


def decode(blob: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The matrix of a blob that :func:`encode` made, float32 [out_features, in_features].

    Raises:
        ArtifactError: it is none, or of another length than its header says.
    """
    data = blob.tobytes()
    if len(data) < _HEADER.size or data[:4] != _MAGIC:
        raise ArtifactError("the engine weights are corrupt; export the model again")
    _, version, kind, mask, rows, columns, nonzeros, mask_bytes = _HEADER.unpack_from(data)
    if version != _VERSION or kind >= len(_DTYPES) or mask >= len(MASKS):
        raise ArtifactError("the engine weights are of a newer version; upgrade smp-pipeline")
    dtype = np.dtype(list(_DTYPES.values())[kind])
    offset = _HEADER.size
    sections = []
    counts = ((rows if dtype == np.int8 else 0, "<f4"), (mask_bytes, "<u1"), (nonzeros, dtype))
    for count, of in counts:
        offset += -offset % _ALIGNMENT if count else 0
        end = offset + count * np.dtype(of).itemsize
        if end > len(data):
            raise ArtifactError("the engine weights are truncated; export the model again")
        sections.append(np.frombuffer(data, of, count, offset))
        offset = end
    scales, bits, values = sections
    flat = np.zeros(rows * columns, np.float32)
    flat[_positions(MASKS[mask], bits, flat.size)] = values
    matrix = flat.reshape(rows, columns)
    return matrix * scales[:, None] if scales.size else matrix


def _positions(kind: str, mask: NDArray[np.uint8], size: int) -> NDArray[np.intp]:
    if kind == "dense":
        return np.arange(size)
    if kind == "bitmap":
        return np.flatnonzero(np.unpackbits(mask, count=size, bitorder="little"))
    steps = np.where(mask == _FILLER, _FILLER, mask.astype(np.int64) + 1)
    positions: NDArray[np.intp] = np.cumsum(steps)[mask != _FILLER] - 1
    return positions
