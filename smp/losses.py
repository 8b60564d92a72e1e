"""The task loss of each kind of task."""

import torch
from torch import Tensor
from torch.nn import functional

from pipeline.artifacts.run import TaskKind

__all__ = ["NO_TARGET", "task_loss"]

# The target of a token that is no word's first.
NO_TARGET = -100


def task_loss(
    logits: Tensor, targets: Tensor, kind: TaskKind, attention_mask: Tensor | None = None
) -> Tensor:
    """The mean loss of a batch.

    Args:
        logits: float [batch, outputs]; for the two kinds that judge every token
            [batch, sequence, outputs].
        targets: what they should say: int64 [batch] of class indices; float [batch] for
            regression; int64 [batch, 2], the tokens of start and end, for question answering;
            int64 [batch, sequence] with :data:`NO_TARGET` for token classification.
        kind: the kind of the task.
        attention_mask: int64 [batch, sequence], 0 at padding, where no answer can start or end;
            needed for question answering alone.

    Returns:
        a scalar: cross-entropy; squared error for regression; for question answering the mean of
        the cross-entropies of start and end over the tokens of a window.
    """
    if kind == "regression":
        return functional.mse_loss(logits.squeeze(-1), targets.float())
    if kind == "question-answering":
        if attention_mask is not None:
            lowest = torch.finfo(logits.dtype).min
            logits = logits.masked_fill(attention_mask.unsqueeze(-1) == 0, lowest)
        return functional.cross_entropy(logits, targets)
    if kind == "token-classification":
        judged = (targets != NO_TARGET).sum().clamp(min=1)
        total = functional.cross_entropy(
            logits.flatten(0, 1), targets.flatten(), ignore_index=NO_TARGET, reduction="sum"
        )
        return total / judged
    return functional.cross_entropy(logits, targets)
