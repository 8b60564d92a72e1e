"""Mean sigmoids of scores, and the regulariser R(S) with its gradient in closed form."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["mean_sigmoids", "regulariser"]


class _Regulariser(torch.autograd.Function):
    """dR/dS = sigmoid(S) (1 - sigmoid(S)) / (matrices numel), from the scores alone.

    Autograd would keep a sigmoid of every matrix from here to the backward pass.
    """

    @staticmethod
    def forward(ctx: Any, *scores: Tensor) -> Tensor:
        ctx.save_for_backward(*scores)
        return mean_sigmoids(scores).mean()

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


def mean_sigmoids(scores: Sequence[Tensor], temperature: float = 1.0) -> Tensor:
    """R_l = mean(sigmoid(S_l / p)) of each matrix (SMP, equations 5 and 8), without gradient.

    Args:
        scores: float32, one tensor a matrix.
        temperature: p.

    Returns:
        float32 [matrices].
    """
    with torch.no_grad():
        if temperature != 1.0:
            scores = [matrix / temperature for matrix in scores]
        return torch.stack([torch.sigmoid(matrix).mean() for matrix in scores])


def regulariser(scores: Sequence[Tensor]) -> Tensor:
    """R(S): mean over matrices of mean(sigmoid(S)) (SMP, equation 8).

    Args:
        scores: float32, one tensor a matrix.

    Returns:
        float32, a scalar with a gradient.
    """
    value: Tensor = _Regulariser.apply(*scores)  # type: ignore[no-untyped-call]
    return value
