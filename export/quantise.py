"""Weights rounded for storage: float32, float16, or int8 with one scale an output feature."""

from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ModelError

__all__ = ["Stored", "Values", "quantise", "round_weights"]

Values: TypeAlias = Literal["fp32", "fp16", "int8"]
Stored: TypeAlias = NDArray[np.float32] | NDArray[np.float16] | NDArray[np.int8]


def round_weights(
    matrix: NDArray[np.float32], values: Values
) -> tuple[Stored, NDArray[np.float32] | None]:
    """Round a matrix as it is stored.

    Args:
        matrix: float32 [out_features, in_features].
        values: the type of the stored values.

    Returns:
        The matrix in that type, and for int8 its scales, float32 [out_features].

    Raises:
        ModelError: a weight is not finite, or too large for float16.
    """
    if not np.isfinite(matrix).all():
        raise ModelError("it has values that are not finite; give another checkpoint")
    if values == "int8":
        return quantise(matrix)
    if values == "fp32":
        return matrix.astype(np.float32), None
    with np.errstate(over="ignore"):
        halves = matrix.astype(np.float16)
    if not np.isfinite(halves).all():
        raise ModelError("it has values beyond float16's range; use --values fp32")
    return halves, None


def quantise(matrix: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Round a matrix [rows, columns] to int8, one scale a row: ``weight = int8 * scale[row]``."""
    scales = (np.abs(matrix).max(axis=1, initial=0.0) / np.float32(127)).astype(np.float32)
    # A row whose scale underflows is too small to tell from zero.
    divisor = np.where(scales > 0, scales, np.inf).astype(np.float64)
    rounded = np.rint(matrix / divisor[:, None]).clip(-127, 127)
    return rounded.astype(np.int8), scales
