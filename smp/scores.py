"""Scores attached to frozen linear layers, and the straight-through product W (.) M(S)."""

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from smp.architectures import PrunedMatrix
from smp.masking import local_counts, score_based_counts
from smp.regulariser import mean_sigmoids, regulariser
from smp.selection import top_k_masks

__all__ = ["ScoredMatrices", "Scores", "initial_scores"]


class _StraightThroughMask(torch.autograd.Function):
    """W (.) M forward; dL/dS = dL/dW' (.) W backward, pruned entries included (SMP, eq. 4)."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, weight: Tensor, mask: Tensor) -> Tensor:
        ctx.save_for_backward(weight)
        return weight * mask

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (weight,) = ctx.saved_tensors
        return gradients[0] * weight, None, None


class Scores(nn.Module):
    """The parametrization of one linear layer's weight: trainable scores and the current mask.

    Args:
        start: float32 [out_features, in_features], where the scores start.
    """

    mask: Tensor

    def __init__(self, start: Tensor) -> None:
        super().__init__()
        self.scores = nn.Parameter(start.to(torch.float32))
        mask = torch.ones(start.shape, dtype=torch.bool, device=start.device)
        # A function of the scores and the step: no part of a checkpoint.
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, weight: Tensor) -> Tensor:
        """The masked weight, float [out_features, in_features]."""
        masked: Tensor = _StraightThroughMask.apply(self.scores, weight, self.mask)  # type: ignore[no-untyped-call]
        return masked


def initial_scores(weight: Tensor, kind: Literal["magnitude", "zero"], scale: float) -> Tensor:
    """Where the scores of one matrix start.

    Args:
        weight: float [out_features, in_features].
        kind: ``zero`` as in the paper, or ``magnitude``: proportional to abs(weight), so that the
            first masks are those of magnitude pruning and not an arbitrary choice among ties.
        scale: root of the mean square of the scores, for ``magnitude``.

    Returns:
        float32, the weight's shape.
    """
    if kind == "zero":
        return torch.zeros_like(weight, dtype=torch.float32)
    magnitude = weight.detach().abs().to(torch.float32)
    return scale * magnitude / magnitude.square().mean().sqrt().clamp(min=1e-12)


class ScoredMatrices:
    """All pruned matrices of a model: attaches the scores, computes the masks, detaches.

    Args:
        matrices: what :func:`smp.architectures.pruned_matrices` found.
        method: ``smp-s`` or ``smp-l``.
        score_init: see :func:`initial_scores`.
        score_init_scale: see :func:`initial_scores`.
        temperature: p of SMP-S, see :func:`smp.masking.score_based_counts`.
        redistribute: whether a share beyond 1 goes to the other layers.
    """

    def __init__(
        self,
        matrices: Sequence[PrunedMatrix],
        *,
        method: Literal["smp-s", "smp-l"],
        score_init: Literal["magnitude", "zero"],
        score_init_scale: float,
        temperature: float,
        redistribute: bool,
    ) -> None:
        self.matrices = list(matrices)
        self.method = method
        self.temperature = temperature
        self.redistribute = redistribute
        self.parametrizations: list[Scores] = []
        for matrix in self.matrices:
            start = initial_scores(matrix.module.weight, score_init, score_init_scale)
            scores = Scores(start)
            parametrize.register_parametrization(matrix.module, "weight", scores)
            self.parametrizations.append(scores)

    @property
    def size(self) -> int:
        """Number of scores."""
        return sum(item.scores.numel() for item in self.parametrizations)

    def regulariser(self) -> Tensor:
        """R(S): mean over matrices of mean(sigmoid(S)), a scalar (SMP, equation 8)."""
        return regulariser([item.scores for item in self.parametrizations])

    @torch.no_grad()
    def update_masks(self, density: float) -> None:
        """Recompute every mask from the present scores, exactly.

        Args:
            density: share of the weights that remains, in (0, 1].
        """
        for indices in self._indices_by_type():
            group = [self.parametrizations[index] for index in indices]
            sizes = [item.scores.numel() for item in group]
            if self.method == "smp-l":
                counts = local_counts(sizes, density)
            else:
                means = mean_sigmoids([item.scores for item in group], self.temperature)
                counts = score_based_counts(
                    sizes,
                    means.tolist(),
                    density,
                    redistribute=self.redistribute,
                )
            masks = top_k_masks([item.scores for item in group], counts)
            for item, mask in zip(group, masks, strict=True):
                item.mask.copy_(mask)

    def _indices_by_type(self) -> Iterator[list[int]]:
        for matrix_type in dict.fromkeys(matrix.matrix_type for matrix in self.matrices):
            yield [
                index
                for index, matrix in enumerate(self.matrices)
                if matrix.matrix_type == matrix_type
            ]

    def masks(self) -> dict[str, Tensor]:
        """Parameter name -> bool [out_features, in_features], on the CPU."""
        pairs = zip(self.matrices, self.parametrizations, strict=True)
        return {matrix.name: scores.mask.cpu() for matrix, scores in pairs}

    def kept(self) -> int:
        """Number of weights that the present masks keep."""
        return sum(int(torch.count_nonzero(item.mask)) for item in self.parametrizations)

    def detach(self) -> None:
        """Take the scores off: the layers are plain again, their weights as they were before."""
        for matrix in self.matrices:
            parametrize.remove_parametrizations(matrix.module, "weight", leave_parametrized=False)
