"""Writing the engine's weights byte by byte, apart from the exporter, and calling the library."""

import ctypes
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

WriteBlob = Callable[..., bytes]


def _gaps(positions: NDArray[np.intp]) -> bytes:
    out = bytearray()
    previous = -1
    for position in positions.tolist():
        zeros = position - previous - 1
        out += b"\xff" * (zeros // 255) + bytes([zeros % 255])
        previous = position
    return bytes(out)


def _blob(matrix: NDArray[np.float32], values: str = "fp32", mask: str = "bitmap") -> bytes:
    rows, columns = matrix.shape
    flat = matrix.reshape(-1)
    positions = np.arange(flat.size) if mask == "dense" else np.flatnonzero(flat)
    mask_bytes = {
        "dense": b"",
        "bitmap": np.packbits(flat != 0, bitorder="little").tobytes(),
        "gaps": _gaps(positions),
    }[mask]
    scales = b""
    if values == "int8":
        scale = np.abs(matrix).max(axis=1) / np.float32(127)
        safe = np.where(scale > 0, scale, 1)
        stored = np.rint(matrix / safe[:, None]).clip(-127, 127).astype("<i1").reshape(-1)
        scales = scale.astype("<f4").tobytes()
    else:
        stored = flat.astype({"fp32": "<f4", "fp16": "<f2"}[values])
    kinds = (["fp32", "fp16", "int8"].index(values), ["dense", "bitmap", "gaps"].index(mask))
    blob = b"SMPW" + struct.pack(
        "<HBBIIQQ", 1, *kinds, rows, columns, positions.size, len(mask_bytes)
    )
    for section in (scales, mask_bytes, stored[positions].tobytes()):
        if section:
            blob += bytes(-len(blob) % 64) + section
    return blob


@pytest.fixture(scope="session")
def write_blob() -> WriteBlob:
    """``write_blob(matrix, values, mask)``: fp32, fp16 or int8; dense, bitmap or gaps."""
    return _blob


@pytest.fixture(scope="session")
def engine(native_library: Path) -> Any:
    """The library's C functions."""
    library = ctypes.CDLL(str(native_library))
    floats = ctypes.POINTER(ctypes.c_float)
    size, text = ctypes.c_size_t, ctypes.c_char_p
    library.smp_engine_isa.restype = text
    library.smp_engine_supported.argtypes = [text]
    library.smp_engine_force_isa.argtypes = [text]
    library.smp_engine_decode.argtypes = [text, size, floats, size, text, size]
    library.smp_engine_linear.argtypes = [
        *(text, size, floats, text, text, floats, size, floats, floats, floats),
        *(ctypes.c_float, floats, ctypes.c_int, text, size),
    ]
    library.smp_engine_report.argtypes = [text, size]
    library.smp_engine_report.restype = size
    library.smp_engine_reset_profile.restype = None
    library.smp_engine_products_held.restype = size
    return library
