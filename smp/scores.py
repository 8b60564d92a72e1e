"""Masks attached to linear layers, and the straight-through product W (.) M(S)."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from smp.architectures import PrunedMatrix
from smp.methods import PruningMethod
from smp.regulariser import regulariser

__all__ = ["MaskedWeight", "ScoredMatrices", "Scores"]


class _StraightThroughMask(torch.autograd.Function):
    """W (.) M forward; backward dL/dS = dL/dW' (.) W, pruned entries included (SMP, eq. 4).

    Where the weight is trained, too, dL/dW = dL/dW' (.) M (movement pruning, Sanh et al., 2020).
    """

    @staticmethod
    def forward(ctx: Any, scores: Tensor, weight: Tensor, mask: Tensor) -> Tensor:
        ctx.save_for_backward(weight, mask)
        return weight * mask

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor | None, None]:
        weight, mask = ctx.saved_tensors
        of_weight = gradients[0] * mask if ctx.needs_input_grad[1] else None
        return gradients[0] * weight, of_weight, None


class MaskedWeight(nn.Module):
    """The parametrization of one linear layer's weight by the current mask.

    Args:
        weight: float [out_features, in_features].
    """

    mask: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        mask = torch.ones(weight.shape, dtype=torch.bool, device=weight.device)
        # A function of scores or weights and the step: no part of a checkpoint.
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, weight: Tensor) -> Tensor:
        """The masked weight, float [out_features, in_features]; pruned entries get no gradient."""
        return weight * self.mask

    def ranking(self, weight: Tensor) -> Tensor:
        """What the largest of are kept: the magnitudes, float [out_features, in_features].

        Args:
            weight: the weight before the mask, of the same shape.
        """
        return weight.detach().abs()


class Scores(MaskedWeight):
    """The same with trainable scores.

    Args:
        start: float32 [out_features, in_features], where the scores start.
    """

    def __init__(self, start: Tensor) -> None:
        super().__init__(start)
        self.scores = nn.Parameter(start.to(torch.float32))

    def forward(self, weight: Tensor) -> Tensor:
        """The masked weight, float [out_features, in_features]."""
        masked: Tensor = _StraightThroughMask.apply(self.scores, weight, self.mask)  # type: ignore[no-untyped-call]
        return masked

    def ranking(self, weight: Tensor) -> Tensor:
        """What the largest of are kept: the scores, whatever the weight."""
        return self.scores.detach()


class ScoredMatrices:
    """All pruned matrices of a model: attaches scores and masks, computes the masks, detaches.

    Args:
        matrices: what :func:`smp.architectures.pruned_matrices` found.
        method: how they are pruned.
        starts: where the scores of each start, float32 [out_features, in_features]; None for a
            method that learns none.
    """

    def __init__(
        self,
        matrices: Sequence[PrunedMatrix],
        method: PruningMethod,
        starts: Sequence[Tensor] | None,
    ) -> None:
        self.matrices = list(matrices)
        self.method = method
        self.parametrizations: list[MaskedWeight] = []
        # Before the masks; afterwards the layers' own are the masked ones.
        self._weights = [matrix.module.weight for matrix in self.matrices]
        self._fixed = False
        for index, matrix in enumerate(self.matrices):
            weight = self._weights[index]
            masked = MaskedWeight(weight) if starts is None else Scores(starts[index])
            parametrize.register_parametrization(matrix.module, "weight", masked)
            self.parametrizations.append(masked)

    @property
    def size(self) -> int:
        """Number of weights of the pruned matrices; each has a score where scores are learned."""
        return sum(item.mask.numel() for item in self.parametrizations)

    def regulariser(self) -> Tensor:
        """R(S): mean over matrices of mean(sigmoid(S)), a scalar (SMP, equation 8)."""
        return regulariser(
            [item.scores for item in self.parametrizations if isinstance(item, Scores)]
        )

    @torch.no_grad()
    def update_masks(self, density: float) -> None:
        """Recompute every mask from the present scores or weights, exactly.

        Args:
            density: share of the weights that remains, in (0, 1].
        """
        if self._fixed:
            return
        pattern = self.method.pattern
        for indices in self._sharing():
            group = [self.parametrizations[index] for index in indices]
            rankings = [
                item.ranking(self._weights[index])
                for index, item in zip(indices, group, strict=True)
            ]
            chosen = self.method.allotment.unit_masks(rankings, density, pattern)
            for item, units in zip(group, chosen, strict=True):
                item.mask.copy_(pattern.weight_mask(units, item.mask.shape))

    def fix_masks(self, density: float) -> None:
        """Compute the masks and keep them from now on: one-shot pruning."""
        self.update_masks(density)
        self._fixed = True

    def _sharing(self) -> Iterator[list[int]]:
        """The matrices that share the density with each other."""
        if self.method.allotment.across_types:
            yield list(range(len(self.matrices)))
            return
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
        """Take scores and masks off: plain layers again, with the weights as before the masks."""
        for matrix in self.matrices:
            parametrize.remove_parametrizations(matrix.module, "weight", leave_parametrized=False)
