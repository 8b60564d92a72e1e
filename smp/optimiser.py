"""Adam whose second moment is one number a matrix, for scores."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

__all__ = ["MatrixAdam"]


class MatrixAdam(torch.optim.Optimizer):
    """Adam (Kingma and Ba, 2015), with one second moment a tensor for the groups that ask for it.

    Adam divides each score's gradient by its own root mean square, so that all scores move about
    equally far, those whose gradient is only noise included. Divided by the root mean square of
    the matrix, a score moves as far as its gradient is large beside those of its matrix. Adam-mini
    (Zhang et al., 2024) shares it in smaller blocks, of a head or an output neuron.

    Args:
        groups: as any optimiser takes them; ``shared`` is true in a group whose tensors have one
            second moment each, and false, the default, where every entry has its own.
        betas: decay of the mean gradient and of the second moment.
        eps: added to the root of the second moment.
    """

    def __init__(
        self, groups: Iterable[dict[str, Any]], *, betas: tuple[float, float], eps: float
    ) -> None:
        super().__init__(groups, {"lr": 0.0, "shared": False})
        self.betas = betas
        self.eps = eps

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Move every tensor that has a gradient by one step."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, parameter.grad, group["lr"], shared=group["shared"])
        return loss

    def _move(self, parameter: Tensor, gradient: Tensor, rate: float, *, shared: bool) -> None:
        state = self.state[parameter]
        square = gradient.square().mean() if shared else gradient.square()
        if not state:
            state.update(
                step=0, exp_avg=torch.zeros_like(gradient), exp_avg_sq=torch.zeros_like(square)
            )
        state["step"] += 1
        first, second = self.betas
        state["exp_avg"].lerp_(gradient, 1.0 - first)
        state["exp_avg_sq"].lerp_(square, 1.0 - second)
        # Both means start at zero; without this the first steps would be too short.
        rate /= 1.0 - first ** state["step"]
        deviation = (state["exp_avg_sq"] / (1.0 - second ** state["step"])).sqrt_().add_(self.eps)
        parameter.addcdiv_(state["exp_avg"], deviation, value=-rate)
