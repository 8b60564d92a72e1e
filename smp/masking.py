"""The masking functions: which weights remain, given scores and a density (SMP, section 3.2)."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

__all__ = ["local_counts", "score_based_counts", "top_k_mask"]


def top_k_mask(scores: Tensor, count: int) -> Tensor:
    """Mark exactly the ``count`` largest scores; among equal ones the first in row-major order.

    Args:
        scores: float, any shape.
        count: how many to keep, from 0 to ``scores.numel()``.

    Returns:
        bool, the shape of ``scores``.
    """
    if not 0 <= count <= scores.numel():
        raise ValueError(f"count must be from 0 to {scores.numel()}, got {count}")
    if count == 0:
        return torch.zeros_like(scores, dtype=torch.bool)
    flat = scores.detach().reshape(-1)
    threshold = _kth_largest(flat, count)
    mask = flat > threshold
    # Ties at the threshold go by position; NaN is larger than nothing and never kept.
    missing = count - int(torch.count_nonzero(mask))
    ties = (flat == threshold).nonzero().reshape(-1)[:missing]
    mask[ties] = True
    return mask.reshape(scores.shape)


def _kth_largest(flat: Tensor, count: int) -> Tensor:
    position = flat.numel() - count
    if flat.device.type == "cpu":
        # Half the time of torch.kthvalue on a CPU, measured on matrices of 384 x 1536.
        return torch.tensor(np.partition(flat.numpy(), position)[position], dtype=flat.dtype)
    return torch.kthvalue(flat, position + 1).values


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
