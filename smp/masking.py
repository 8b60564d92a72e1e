"""How the matrices share the density (SMP, section 3.2)."""

import math
from collections.abc import Sequence

import numpy as np

__all__ = ["local_counts", "score_based_counts"]


def local_counts(sizes: Sequence[int], density: float) -> list[int]:
    """SMP-L: every matrix keeps the same share.

    Args:
        sizes: number of weights of each matrix.
        density: share to keep, in (0, 1].

    Returns:
        floor(density * size) for each matrix.
    """
    return [_floor(density * size) for size in sizes]


def score_based_counts(
    sizes: Sequence[int],
    mean_sigmoids: Sequence[float],
    density: float,
    *,
    redistribute: bool = True,
    largest: float = 1.0,
) -> list[int]:
    """SMP-S: the matrices of one type share the density by the mean sigmoid of their scores.

    Layer l gets the share ``density * L * R_l / sum(R)`` (SMP, equation 5). Where a share passes 1
    the reference implementation keeps the whole matrix and falls short overall. Our deviation,
    the default: the excess goes to the other layers in proportion to their shares, and what
    rounding down leaves over goes to the largest remainders, so that exactly
    ``floor(density * sum(sizes))`` weights of the type remain.

    Args:
        sizes: number of weights of each matrix of the type.
        mean_sigmoids: R_l, in (0, 1), one a matrix.
        density: share to keep over all of them, in (0, 1].
        redistribute: False for the reference implementation's behaviour.
        largest: the largest share that a matrix can keep, at least ``density``; a whole number of
            weights of each matrix.

    Returns:
        number of weights to keep for each matrix.
    """
    total = sum(sizes)
    ranks = np.asarray(mean_sigmoids, dtype=np.float64)
    weights = np.asarray(sizes, dtype=np.float64)
    shares = density * total * ranks / float(ranks @ weights)
    if not redistribute:
        return [
            _floor(min(largest, share) * size) for share, size in zip(shares, sizes, strict=True)
        ]
    wanted = _floor(density * total)
    shares = _spread_excess(shares, weights, largest)
    limits = [round(largest * size) for size in sizes]
    exact = np.minimum(shares, largest) * weights
    counts = np.floor(exact + 1e-9).astype(np.int64)
    order = np.argsort(-(exact - counts), kind="stable")
    missing = wanted - int(counts.sum())
    for index in np.tile(order, 2):
        if missing > 0 and counts[index] < limits[index]:
            counts[index] += 1
            missing -= 1
    for index in order[::-1]:
        if missing < 0 and counts[index] > 0:
            counts[index] -= 1
            missing += 1
    return [int(count) for count in counts]


def _spread_excess(
    shares: "np.ndarray[tuple[int], np.dtype[np.float64]]",
    weights: "np.ndarray[tuple[int], np.dtype[np.float64]]",
    largest: float,
) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    # Each round fills at least one more matrix, so there are at most as many rounds as matrices.
    shares = shares.copy()
    for _ in range(shares.size):
        excess = float(np.maximum(shares - largest, 0.0) @ weights)
        open_layers = shares < largest
        shares = np.minimum(shares, largest)
        room = float(shares[open_layers] @ weights[open_layers])
        if excess <= 0.0 or room <= 0.0:
            break
        shares[open_layers] *= 1.0 + excess / room
    return shares


def _floor(value: float) -> int:
    # 0.1 * 30 is 2.9999999999999996: a product within rounding of a whole number is that number.
    return math.floor(value * (1.0 + 1e-12) + 1e-12)
