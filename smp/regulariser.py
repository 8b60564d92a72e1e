"""The regulariser R(S) with its gradient in closed form."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["mean_sigmoid"]


class _MeanSigmoid(torch.autograd.Function):
    """dR/dS = sigmoid(S) (1 - sigmoid(S)) / (matrices numel), from the scores alone.

    Autograd would keep a sigmoid of every matrix from here to the backward pass.
    """

    @staticmethod
    def forward(ctx: Any, *scores: Tensor) -> Tensor:
        ctx.save_for_backward(*scores)
        return torch.stack([torch.sigmoid(matrix).mean() for matrix in scores]).mean()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        scores = ctx.saved_tensors
        of_scores = []
        for matrix in scores:
            share = (gradients[0] / (len(scores) * matrix.numel())).expand_as(matrix)
            sigmoid = torch.sigmoid(matrix)
            # In place: the sigmoid is of no use after this.
            torch.ops.aten.sigmoid_backward.grad_input(share, sigmoid, grad_input=sigmoid)
            of_scores.append(sigmoid)
        return tuple(of_scores)


def mean_sigmoid(scores: Sequence[Tensor]) -> Tensor:
    """R(S): mean over matrices of mean(sigmoid(S)) (SMP, equation 8).

    Args:
        scores: float32, one tensor a matrix.

    Returns:
        float32, a scalar.
    """
    mean: Tensor = _MeanSigmoid.apply(*scores)  # type: ignore[no-untyped-call]
    return mean
