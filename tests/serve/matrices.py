"""Random matrices, and the engine's weights written byte by byte, apart from the exporter."""

import struct
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

Array = NDArray[Any]

VALUES = ("fp32", "fp16", "int8")
MASKS = ("dense", "bitmap", "gaps")

SIZES = st.integers(1, 200)
DENSITIES = st.sampled_from([0.0, 0.02, 0.1, 0.5, 0.97, 1.0])
SEEDS = st.integers(0, 2**32 - 1)


def make_matrix(rows: int, columns: int, density: float, seed: int) -> Array:
    """Random, with rows of other sizes and (mostly) an empty one."""
    generator = np.random.default_rng(seed)
    matrix = generator.standard_normal((rows, columns))
    matrix *= 10.0 ** generator.uniform(-2, 2, (rows, 1))
    matrix[generator.random((rows, columns)) >= density] = 0
    if density < 1 and rows > 1:
        matrix[generator.integers(rows)] = 0
    return matrix.astype(np.float32)


def int8_steps(matrix: Array) -> tuple[Array, Array]:
    """Symmetric int8 of every row: float32 steps, and the rows' scales."""
    scale = np.abs(matrix).max(axis=1, keepdims=True) / np.float32(127)
    steps = np.rint(matrix / np.where(scale > 0, scale, 1)).clip(-127, 127)
    return steps, scale


def int8_values(matrix: Array) -> Array:
    """What symmetric int8 leaves of a matrix, float64."""
    steps, scale = int8_steps(matrix.astype(np.float32))
    return steps.astype(np.float64) * scale


def stored(matrix: Array, values: str) -> Array:
    """What is left of a matrix in the file, float64."""
    if values == "fp16":
        return matrix.astype(np.float16).astype(np.float64)
    return int8_values(matrix) if values == "int8" else matrix.astype(np.float64)


def gaps(positions: NDArray[np.intp]) -> bytes:
    """The zeros before each position, 255 going on in the next byte."""
    out = bytearray()
    previous = -1
    for position in positions.tolist():
        zeros = position - previous - 1
        out += b"\xff" * (zeros // 255) + bytes([zeros % 255])
        previous = position
    return bytes(out)


def encode(matrix: NDArray[np.float32], values: str = "fp32", mask: str = "bitmap") -> bytes:
    """The weights of an engine model: fp32, fp16 or int8; dense, bitmap or gaps."""
    rows, columns = matrix.shape
    flat = matrix.reshape(-1)
    positions = np.arange(flat.size) if mask == "dense" else np.flatnonzero(flat)
    mask_bytes = {
        "dense": b"",
        "bitmap": np.packbits(flat != 0, bitorder="little").tobytes(),
        "gaps": gaps(positions),
    }[mask]
    scales = b""
    if values == "int8":
        steps, scale = int8_steps(matrix)
        numbers = steps.astype("<i1").reshape(-1)
        scales = scale.astype("<f4").tobytes()
    else:
        numbers = flat.astype({"fp32": "<f4", "fp16": "<f2"}[values])
    kinds = (VALUES.index(values), MASKS.index(mask))
    blob = b"SMPW" + struct.pack(
        "<HBBIIQQ", 1, *kinds, rows, columns, positions.size, len(mask_bytes)
    )
    for section in (scales, mask_bytes, numbers[positions].tobytes()):
        if section:
            blob += bytes(-len(blob) % 64) + section
    return blob
