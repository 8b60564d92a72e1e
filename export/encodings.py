"""Encodings of one sparse matrix, in numpy: where its values are, beside the values themselves.

All work on the matrix flattened row-major. A kept weight whose value is zero needs no place in an
encoding: what comes back is numerically the same.

Small numbers (bits, remainders) lie in bytes as planes: with fields of ``width`` bits and ``m``
bytes, field ``j * m + i`` is at bit ``j * width`` of byte ``i``. So whole tensors of bytes are
shifted and masked to unpack them.
"""

from dataclasses import dataclass
from typing import ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray

from export.quantise import Stored
from pipeline.errors import ArtifactError

__all__ = [
    "RICE_WIDTHS",
    "Bitmap",
    "Dense",
    "Encoding",
    "Gaps",
    "Rice",
    "decode",
    "encode",
    "encode_bitmap",
    "encode_dense",
    "encode_gaps",
    "encode_rice",
]

# A byte holds a whole number of remainders. With none, a Rice code is the bitmap.
RICE_WIDTHS = (1, 2, 4)

_LARGEST_GAP = 255


@dataclass(frozen=True)
class Dense:
    """All values, zeros included.

    Attributes:
        shape: the matrix's shape.
        values: float32, float16 or int8 ``[size]``.
    """

    kind: ClassVar[str] = "dense"
    shape: tuple[int, ...]
    values: Stored

    @property
    def size_bytes(self) -> int:
        """Bytes of the tensors."""
        return self.values.nbytes


@dataclass(frozen=True)
class Bitmap:
    """One bit a weight, and the values where it is set.

    Attributes:
        shape: the matrix's shape.
        bits: uint8 ``[ceil(size / 8)]``, planes of one bit; bits beyond the size are zero.
        values: float32, float16 or int8, one for every set bit.
    """

    kind: ClassVar[str] = "bitmap"
    shape: tuple[int, ...]
    bits: NDArray[np.uint8]
    values: Stored

    @property
    def size_bytes(self) -> int:
        """Bytes of the tensors."""
        return self.bits.nbytes + self.values.nbytes


@dataclass(frozen=True)
class Gaps:
    """The distance of every value from the one before it, a byte each.

    The sum of the gaps up to a value is its position. A gap over 255 becomes 255 with a zero
    value, and the rest; a matrix of zeros is one gap of 0 with a zero value.

    Attributes:
        shape: the matrix's shape.
        gaps: uint8 ``[count]``.
        values: float32, float16 or int8 ``[count]``.
    """

    kind: ClassVar[str] = "gaps"
    shape: tuple[int, ...]
    gaps: NDArray[np.uint8]
    values: Stored

    @property
    def size_bytes(self) -> int:
        """Bytes of the tensors."""
        return self.gaps.nbytes + self.values.nbytes


@dataclass(frozen=True)
class Rice:
    """The zeros before every value as a Golomb-Rice code.

    The number of zeros is divided by ``2 ** width``: the quotient is written in unary (as many
    zero bits, then a one), the remainder in ``width`` bits, inverted: with what the remainders
    lack of ``2 ** width - 1``, decoding is one subtraction. The best width follows the mean gap,
    and the code is then within a few per cent of the entropy of a random mask.

    Golomb, "Run-length encodings" (1966); Rice and Plaunt, "Adaptive variable-length coding for
    efficient compression of spacecraft television data" (1971).

    Attributes:
        shape: the matrix's shape.
        width: bits of a remainder, one of :data:`RICE_WIDTHS`.
        quotients: uint8, the unary codes one after another, planes of one bit, zeros at the end.
        remainders: uint8 ``[ceil(count * width / 8)]``, inverted, planes of ``width`` bits, zeros
            at the end.
        values: float32, float16 or int8 ``[count]``; at least one.
    """

    kind: ClassVar[str] = "rice"
    shape: tuple[int, ...]
    width: int
    quotients: NDArray[np.uint8]
    remainders: NDArray[np.uint8]
    values: Stored

    @property
    def size_bytes(self) -> int:
        """Bytes of the tensors."""
        return self.quotients.nbytes + self.remainders.nbytes + self.values.nbytes


Encoding: TypeAlias = Dense | Bitmap | Gaps | Rice


def encode_dense(matrix: Stored) -> Dense:
    """Encode a matrix with all its values."""
    return Dense(matrix.shape, matrix.reshape(-1))


def encode_bitmap(matrix: Stored) -> Bitmap:
    """Encode a matrix as a bitmap and values."""
    flat = matrix.reshape(-1)
    present = flat != 0
    return Bitmap(matrix.shape, _pack(present, 1), flat[present])


def encode_gaps(matrix: Stored) -> Gaps:
    """Encode a matrix as gaps and values."""
    flat = matrix.reshape(-1)
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


def encode_rice(matrix: Stored, width: int) -> Rice:
    """Encode a matrix that has a value which is not zero as a Rice code and values."""
    flat = matrix.reshape(-1)
    positions = np.flatnonzero(flat)
    zeros = np.diff(positions, prepend=-1) - 1
    ends = np.cumsum((zeros >> width) + 1) - 1
    unary = np.zeros(ends[-1] + 1, np.bool_)
    unary[ends] = True
    remainders = _pack(~zeros & ((1 << width) - 1), width)
    return Rice(matrix.shape, width, _pack(unary, 1), remainders, flat[positions])


def encode(matrix: Stored) -> Encoding:
    """Encode a matrix, float32, float16 or int8, in the way that takes the fewest bytes.

    Of those that take as many, the one that is decoded fastest: dense where none is smaller.
    """
    candidates: list[Encoding] = [encode_dense(matrix)]
    if matrix.size:
        candidates.append(encode_gaps(matrix))
    if np.any(matrix):  # a matrix of zeros is left to the gaps: no tensor is ever empty
        candidates.append(encode_bitmap(matrix))
        candidates += [encode_rice(matrix, width) for width in RICE_WIDTHS]
    return min(candidates, key=lambda encoding: encoding.size_bytes)


def decode(encoding: Encoding) -> Stored:
    """The matrix, in the dtype of the encoding's values.

    Raises:
        ArtifactError: the parts do not fit each other or the shape, or are not what
            :func:`encode` writes.
    """
    size = int(np.prod(encoding.shape, dtype=object))
    positions = _positions(encoding, size)
    if positions.size != encoding.values.size:
        raise _corrupt(
            encoding, size, f"{positions.size} positions and {encoding.values.size} values"
        )
    if positions.size and (positions[-1] >= size or np.any(np.diff(positions) <= 0)):
        raise _corrupt(encoding, size, "positions that are not in order or lie outside")
    flat = np.zeros(size, encoding.values.dtype)
    flat[positions] = encoding.values
    return flat.reshape(encoding.shape)


def _positions(encoding: Encoding, size: int) -> NDArray[np.int64]:
    if isinstance(encoding, Dense):
        return np.arange(size)
    if isinstance(encoding, Gaps):
        return np.cumsum(encoding.gaps, dtype=np.int64)
    if isinstance(encoding, Bitmap):
        if encoding.bits.size != _bytes_of(size, 1):
            raise _corrupt(encoding, size, f"{encoding.bits.size} bytes of bits")
        return np.flatnonzero(_unpack(encoding.bits, 1))
    count, width = encoding.values.size, encoding.width
    if width not in RICE_WIDTHS or encoding.remainders.size != _bytes_of(count, width):
        raise _corrupt(
            encoding,
            size,
            f"{encoding.remainders.size} bytes of remainders of {width} bits for {count} values",
        )
    remainders = _unpack(encoding.remainders, width)
    ends = np.flatnonzero(_unpack(encoding.quotients, 1))
    length = int(ends[-1]) + 1 if ends.size else 0
    if ends.size != count or _bytes_of(length, 1) != encoding.quotients.size:
        raise _corrupt(encoding, size, f"{ends.size} quotients for {count} values")
    if remainders[count:].any():
        raise _corrupt(encoding, size, "bits after the last remainder")
    # Before the i-th one are i ones, and as many zeros as all quotients up to it come to. With a
    # place of 2 ** width for each of those bits, each of the i + 1 values got 2 ** width - 1 minus
    # its remainder too many.
    after = ((ends + 1) << width) - 1
    return after - np.cumsum(remainders[:count], dtype=np.int64)


def _corrupt(encoding: Encoding, size: int, found: str) -> ArtifactError:
    return ArtifactError(
        f"a {encoding.kind} encoding of a matrix of {size} weights is corrupt ({found}); export "
        "the model again"
    )


def _bytes_of(fields: int, width: int) -> int:
    return -(-fields * width // 8)


def _pack(fields: NDArray[np.integer] | NDArray[np.bool_], width: int) -> NDArray[np.uint8]:
    """Numbers below ``2 ** width`` [count] -> planes, uint8 [ceil(count * width / 8)]."""
    octets = _bytes_of(fields.size, width)
    planes = np.zeros((8 // width, octets), np.uint8)
    planes.reshape(-1)[: fields.size] = fields
    shifts = np.arange(0, 8, width, dtype=np.uint8)[:, None]
    octet: NDArray[np.uint8] = np.bitwise_or.reduce(planes << shifts, axis=0)
    return octet


def _unpack(octets: NDArray[np.uint8], width: int) -> NDArray[np.uint8]:
    """Planes, uint8 [m] -> all fields, uint8 [m * 8 / width]."""
    shifts = np.arange(0, 8, width, dtype=np.uint8)[:, None]
    return ((octets[None, :] >> shifts) & np.uint8((1 << width) - 1)).reshape(-1)
