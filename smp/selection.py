"""The largest scores of matrices, exactly, without sorting the matrices.

Selection by sampling (Floyd and Rivest, *Expected time bounds for selection*, 1975): the sorted
sample of a matrix gives two values that the threshold almost surely lies between. One pass counts
what is above them, and only the few scores between them are sorted. Where the sample misled, the
whole matrix is searched, so the result never depends on it.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["top_k_mask", "top_k_masks"]

# Every so many scores one is drawn; a prime, so that no column is drawn again and again.
_STRIDE = 67
# Standard deviations of a sample's quantile; one matrix in 16,000 is searched as a whole.
_DEVIATIONS = 4.0


def top_k_mask(scores: Tensor, count: int) -> Tensor:
    """Mark exactly the ``count`` largest scores; among equal ones the first in row-major order.

    0.0 and -0.0 are equal. NaN counts as the largest, but is never kept.

    Args:
        scores: float32, any shape.
        count: how many to keep, from 0 to ``scores.numel()``.

    Returns:
        bool, the shape of ``scores``.
    """
    return top_k_masks([scores], [count])[0]


@torch.no_grad()
def top_k_masks(scores: Sequence[Tensor], counts: Sequence[int]) -> list[Tensor]:
    """:func:`top_k_mask` of several matrices of equal size; on a GPU all of them at once.

    Args:
        scores: float32 on one device, any shapes of equal size.
        counts: how many to keep of each.

    Returns:
        bool, the shapes of ``scores``.
    """
    if not scores:
        return []
    size = scores[0].numel()
    for count in counts:
        if not 0 <= count <= size:
            raise ValueError(f"count must be from 0 to {size}, got {count}")
    flat = [matrix.detach().reshape(-1) for matrix in scores]
    if scores[0].device.type == "cpu":
        # NumPy's comparisons take a tenth of torch's time on a CPU, and need no stack.
        pairs = zip(flat, counts, strict=True)
        masks = [torch.from_numpy(_top_k_array(m.numpy(), count)) for m, count in pairs]
    else:
        masks = list(_top_k_stack(torch.stack(flat), counts))
    return [mask.reshape(matrix.shape) for mask, matrix in zip(masks, scores, strict=True)]


def _top_k_array(scores: NDArray[np.float32], count: int) -> NDArray[np.bool_]:
    if count == 0:
        return np.zeros(scores.shape, dtype=np.bool_)
    threshold = _kth_largest(scores, count)
    mask = scores >= threshold
    surplus = np.count_nonzero(mask) - count
    if surplus > 0:
        ties = np.flatnonzero(scores == threshold)
        mask[ties[-surplus:]] = False
    return mask


def _kth_largest(scores: NDArray[np.float32], count: int) -> np.float32:
    sample = np.concatenate(([-np.inf], np.sort(scores[::_STRIDE]), [np.inf]), dtype=np.float32)
    low, high = _bounds(sample.size - 2, count / scores.size)
    band = scores <= sample[high]
    above = scores.size - int(np.count_nonzero(band))  # with NaN
    band &= scores >= sample[low]
    candidates = scores[band]
    rank = count - above
    if not 1 <= rank <= candidates.size:
        candidates, rank = scores, count
    position = candidates.size - rank
    threshold: np.float32 = np.partition(candidates, position)[position]
    return threshold


def _top_k_stack(scores: Tensor, counts: Sequence[int]) -> Tensor:
    """The masks, bool [matrices, size], of float32 [matrices, size]; on any device."""
    thresholds = _kth_largest_of_each(scores, counts).unsqueeze(1)
    masks = scores >= thresholds
    surplus = (masks.sum(dim=1) - torch.tensor(counts, device=scores.device)).tolist()
    for row, extra in enumerate(surplus):
        if extra > 0:
            ties = (scores[row] == thresholds[row]).nonzero().reshape(-1)
            masks[row, ties[-extra:]] = False
    return masks


def _kth_largest_of_each(scores: Tensor, counts: Sequence[int]) -> Tensor:
    """The ``counts``-th largest of each row, float32 [matrices]; infinity where that is 0."""
    matrices, size = scores.shape
    infinity = scores.new_full((matrices, 1), torch.inf)
    sample = torch.cat([-infinity, scores[:, ::_STRIDE].sort(dim=1).values, infinity], dim=1)
    bounds = [_bounds(sample.shape[1] - 2, count / size) for count in counts]
    limits = sample.gather(1, torch.tensor(bounds, device=scores.device))
    low, high = limits[:, :1], limits[:, 1:]
    band = scores <= high
    above = size - band.sum(dim=1)  # with NaN
    ranks = torch.tensor(counts, device=scores.device) - above
    band &= scores >= low
    sizes = band.sum(dim=1)
    found = (ranks >= 1) & (ranks <= sizes)
    # A band of one value needs no search, and may be the whole matrix: scores can start equal.
    searched = low < high
    rows, columns = (band & searched).nonzero(as_tuple=True)
    sizes = sizes * searched.squeeze(1)
    firsts = sizes.cumsum(dim=0) - sizes
    candidates = scores.new_full((matrices, max(1, int(sizes.max()))), -torch.inf)
    places = torch.arange(len(rows), device=scores.device) - firsts[rows]
    candidates[rows, places] = scores[rows, columns]
    candidates = candidates.sort(dim=1, descending=True).values
    positions = (ranks - 1).clamp(0, candidates.shape[1] - 1).unsqueeze(1)
    thresholds = torch.where(searched, candidates.gather(1, positions), low).squeeze(1)
    for row, certain in enumerate(found.tolist()):
        if counts[row] == 0:
            thresholds[row] = torch.inf
        elif not certain:
            thresholds[row] = scores[row].kthvalue(size - counts[row] + 1).values
    return thresholds


def _bounds(size: int, share: float) -> tuple[int, int]:
    """Where the threshold lies in a sorted sample, from 1, with an infinity before and after it.

    Args:
        size: of the sample.
        share: how much of the matrix is kept.
    """
    centre = size * (1.0 - share) + 0.5
    margin = _DEVIATIONS * math.sqrt(size * share * (1.0 - share)) + 1.0
    return max(0, math.floor(centre - margin)), min(size + 1, math.ceil(centre + margin))
