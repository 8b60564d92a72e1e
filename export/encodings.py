"""Encodings of one sparse matrix, in numpy: a bitmap or gaps beside the values that are not zero.

All work on the matrix flattened row-major. A kept weight whose value is zero needs no place in an
encoding: what comes back is numerically the same.
"""

from dataclasses import dataclass
from typing import ClassVar, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

from pipeline.errors import ArtifactError

__all__ = [
    "Bitmap",
    "Dense",
    "Encoding",
    "Gaps",
    "decode",
    "encode",
    "encode_bitmap",
    "encode_dense",
    "encode_gaps",
]

Floats: TypeAlias = NDArray[np.float32] | NDArray[np.float16]

_LARGEST_GAP = 255


@dataclass(frozen=True)
class Dense:
    """All values, zeros included.

    Attributes:
        shape: the matrix's shape.
        values: float16 or float32 ``[size]``.
    """

    kind: ClassVar[str] = "dense"
    shape: tuple[int, ...]
    values: Floats

    @property
    def size_bytes(self) -> int:
        """Bytes of the tensors."""
        return self.values.nbytes


@dataclass(frozen=True)
class Bitmap:
    """One bit a weight, and the values where it is set.

    Attributes:
        shape: the matrix's shape.
        bits: uint8 ``[ceil(size / 8)]``, the first weight in the highest bit, zeros at the end.
        values: float16 or float32, one for every set bit.
    """

    kind: ClassVar[str] = "bitmap"
    shape: tuple[int, ...]
    bits: NDArray[np.uint8]
    values: Floats

    @property
    def size_bytes(self) -> int:
        """Bytes of the tensors."""
        return self.bits.nbytes + self.values.nbytes


@dataclass(frozen=True)
class Gaps:
    """The distance of every value from the one before it.

    The sum of the gaps up to a value is its position. A gap over 255 becomes 255 with a zero
    value, and the rest; a matrix of zeros is one gap of 0 with a zero value.

    Attributes:
        shape: the matrix's shape.
        gaps: uint8 ``[count]``.
        values: float16 or float32 ``[count]``.
    """

    kind: ClassVar[str] = "gaps"
    shape: tuple[int, ...]
    gaps: NDArray[np.uint8]
    values: Floats

    @property
    def size_bytes(self) -> int:
        """Bytes of the tensors."""
        return self.gaps.nbytes + self.values.nbytes


Encoding: TypeAlias = Dense | Bitmap | Gaps


def encode_dense(matrix: Floats, dtype: DTypeLike) -> Dense:
    """Encode a float matrix with all its values, rounded to ``dtype``."""
    return Dense(matrix.shape, matrix.reshape(-1).astype(dtype))


def encode_bitmap(matrix: Floats, dtype: DTypeLike) -> Bitmap:
    """Encode a float matrix as a bitmap with values rounded to ``dtype``."""
    flat = matrix.reshape(-1).astype(dtype)
    present = flat != 0
    return Bitmap(matrix.shape, np.packbits(present), flat[present])


def encode_gaps(matrix: Floats, dtype: DTypeLike) -> Gaps:
    """Encode a float matrix as gaps with values rounded to ``dtype``."""
    flat = matrix.reshape(-1).astype(dtype)
    positions = np.flatnonzero(flat)
    if positions.size == 0:
        return Gaps(matrix.shape, np.zeros(1, np.uint8), np.zeros(1, flat.dtype))
    steps = np.diff(positions, prepend=0)
    fillers = np.maximum(steps - 1, 0) // _LARGEST_GAP
    ends = np.cumsum(fillers + 1) - 1
    gaps = np.full(ends[-1] + 1, _LARGEST_GAP, np.uint8)
    gaps[ends] = steps - _LARGEST_GAP * fillers
    values = np.zeros(gaps.size, flat.dtype)
    values[ends] = flat[positions]
    return Gaps(matrix.shape, gaps, values)


def encode(matrix: Floats, dtype: DTypeLike) -> Encoding:
    """Encode a float matrix in the way that takes the fewest bytes; dense where none is smaller.

    Values become zero where ``dtype`` cannot tell them from zero.
    """
    candidates: list[Encoding] = [encode_dense(matrix, dtype), encode_gaps(matrix, dtype)]
    bitmap = encode_bitmap(matrix, dtype)
    if bitmap.values.size:  # a matrix of zeros is left to the gaps: no tensor is ever empty
        candidates.append(bitmap)
    return min(candidates, key=lambda encoding: encoding.size_bytes)


def decode(encoding: Encoding) -> Floats:
    """The matrix, in the dtype of the encoding's values.

    Raises:
        ArtifactError: positions and values do not fit each other or the shape.
    """
    size = int(np.prod(encoding.shape, dtype=object))
    flat = np.zeros(size, encoding.values.dtype)
    positions = _positions(encoding, size)
    if positions.size != encoding.values.size or (positions.size and positions[-1] >= size):
        raise ArtifactError(
            f"a {encoding.kind} encoding of a matrix of {size} weights is corrupt: its "
            f"{positions.size} positions do not fit its {encoding.values.size} values or its size"
        )
    flat[positions] = encoding.values
    return flat.reshape(encoding.shape)


def _positions(encoding: Encoding, size: int) -> NDArray[np.int64]:
    if isinstance(encoding, Dense):
        return np.arange(size)
    if isinstance(encoding, Gaps):
        return np.cumsum(encoding.gaps, dtype=np.int64)
    return np.flatnonzero(np.unpackbits(encoding.bits))
