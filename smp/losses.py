"""The task's loss."""

from torch import Tensor, nn

__all__ = ["task_loss"]


def task_loss(logits: Tensor, targets: Tensor, *, regression: bool) -> Tensor:
    """Mean squared error for regression, else cross-entropy; a mean over the batch.

    Args:
        logits: float [batch, outputs].
        targets: float [batch], or int64 [batch] of classes.
        regression: whether one number is predicted.

    Returns:
        float32, a scalar.
    """
    if regression:
        return nn.functional.mse_loss(logits.float().squeeze(-1), targets.float())
    return nn.functional.cross_entropy(logits.float(), targets)
