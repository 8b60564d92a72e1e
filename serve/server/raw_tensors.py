"""Tensors as the protocol's raw bytes: numbers little-endian, texts each after its length.

Source: the binary tensor data extension of the Open Inference Protocol, over HTTP, and
raw_input_contents and raw_output_contents, over gRPC.
"""

import math
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serve.server.errors import InvalidRequest, TooLarge
from serve.server.protocol import DTYPES, Tensor

__all__ = ["count_elements", "decode_raw", "decode_text", "encode_raw", "reshape"]

_LITTLE_ENDIAN = {name: dtype.newbyteorder("<") for name, dtype in DTYPES.items()}
_LENGTH = struct.Struct("<I")
_MAX_DIMENSIONS = 32  # numpy's limit before 2.0


def count_elements(name: str, shape: Sequence[int]) -> int:
    """Number of elements of a tensor.

    Args:
        name: the tensor's, for messages.
        shape: as the client gave it.

    Raises:
        InvalidRequest: no tensor can have this shape.
    """
    if len(shape) > _MAX_DIMENSIONS:
        raise InvalidRequest(
            f"{name} has {len(shape)} dimensions; a tensor has at most {_MAX_DIMENSIONS}"
        )
    if any(size < 0 for size in shape):
        raise InvalidRequest(
            f"{name} has the shape {list(shape)}; no dimension of a request may be negative"
        )
    return math.prod(shape)


def decode_text(name: str, index: int, data: bytes) -> str:
    """One element of a BYTES tensor.

    Raises:
        InvalidRequest: it is not UTF-8.
    """
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise InvalidRequest(
            f"element {index} of {name} is not UTF-8 (byte {error.start}); encode texts as UTF-8"
        ) from error


def reshape(name: str, values: NDArray[Any], shape: Sequence[int]) -> NDArray[Any]:
    """Give the elements of a tensor the shape that :func:`count_elements` found good for them.

    Raises:
        InvalidRequest: an empty tensor has other dimensions that are too large even for one.
    """
    try:
        return values.reshape(shape)
    except (OverflowError, ValueError) as error:
        raise InvalidRequest(
            f"{name} has the shape {list(shape)}, which no tensor can have"
        ) from error


def decode_raw(
    name: str,
    datatype: str,
    shape: Sequence[int],
    data: bytes | memoryview,
    *,
    max_texts: int | None = None,
) -> Tensor:
    """Read a tensor; its array, if it has one, is a read-only view of ``data``.

    Args:
        name: the tensor's.
        datatype: as the client gave it.
        shape: as the client gave it.
        data: the whole tensor and nothing else.
        max_texts: elements that a BYTES tensor may have, as reading millions would take long.

    Raises:
        InvalidRequest: the datatype is unknown, the shape cannot be, or the bytes do not fit them.
        TooLarge: more than ``max_texts`` elements.
    """
    count = count_elements(name, shape)
    if datatype == "BYTES":
        if max_texts is not None and count > max_texts:
            raise TooLarge(f"{count} texts; this server takes {max_texts} in a request")
        return Tensor(name, datatype, tuple(shape), _decode_texts(name, count, bytes(data)))
    dtype = _LITTLE_ENDIAN.get(datatype)
    if dtype is None:
        raise InvalidRequest(
            f"{name} has the unknown datatype {datatype!r}; known are BYTES, {', '.join(DTYPES)}"
        )
    if len(data) != count * dtype.itemsize:
        raise InvalidRequest(
            f"{name} has {len(data)} bytes; the shape {list(shape)} of {datatype} takes "
            f"{count * dtype.itemsize}"
        )
    if datatype == "BOOL" and (np.frombuffer(data, np.uint8) > 1).any():
        raise InvalidRequest(f"{name} has a BOOL that is neither 0 nor 1")
    values = reshape(name, np.frombuffer(data, dtype), shape)
    return Tensor(name, datatype, tuple(shape), values.astype(DTYPES[datatype], copy=False))


def encode_raw(tensor: Tensor) -> bytes:
    """The raw bytes of a tensor; :func:`decode_raw` reads them."""
    if isinstance(tensor.data, list):
        parts = []
        for text in tensor.data:
            encoded = text.encode()
            parts.append(_LENGTH.pack(len(encoded)))
            parts.append(encoded)
        return b"".join(parts)
    return tensor.data.astype(_LITTLE_ENDIAN[tensor.datatype], copy=False).tobytes()


def _decode_texts(name: str, count: int, data: bytes) -> list[str]:
    # Before anything is read: each element has a length of 4 bytes.
    if count * _LENGTH.size > len(data):
        raise InvalidRequest(
            f"{name} has {len(data)} bytes, too few for {count} elements of BYTES; put the length "
            "of each, 4 bytes little-endian, before it"
        )
    texts = []
    position = 0
    for index in range(count):
        start = position + _LENGTH.size
        if start > len(data):
            raise InvalidRequest(f"{name} ends before the length of its element {index}")
        (length,) = _LENGTH.unpack_from(data, position)
        position = start + length
        if position > len(data):
            raise InvalidRequest(
                f"element {index} of {name} has a length of {length} bytes, of which "
                f"{len(data) - start} are there; the length is 4 bytes little-endian"
            )
        texts.append(decode_text(name, index, data[start:position]))
    if position != len(data):
        raise InvalidRequest(f"{name} has {len(data) - position} bytes after its {count} elements")
    return texts
