"""The least-squares head of every token: for question answering and token classification.

Ridge regression on the frozen encoder's states of which only second moments are kept, never the
states of all tokens. A tenth of the examples is held out to choose the penalty and the scale of the
logits: the leave-one-out error, which heads of whole texts use, needs every state.
"""

import dataclasses
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

from pipeline.artifacts.classifier import Head, TextClassifier
from pipeline.artifacts.run import HeadLayout, TaskKind
from smp.examples import Examples, length_sorted_batches
from smp.heads import PENALTIES, affine_head
from smp.losses import NO_TARGET, task_loss

__all__ = ["token_least_squares_head"]

_HELD_OUT = 10
# A few million tokens say all that second moments can.
_MOST_EXAMPLES = 20_000
# One token in hundreds starts an answer: such a regression is far from what a softmax needs.
_LOGIT_SCALES = torch.logspace(-1, 3, 81).tolist()


@torch.no_grad()
def token_least_squares_head(
    classifier: TextClassifier,
    examples: Examples,
    kind: TaskKind,
    pad_token_id: int,
    device: torch.device,
) -> tuple[Head, HeadLayout]:
    """The frozen least-squares head that sees every token.

    For token classification it regresses the one-hot label on the state of each word's first token;
    for question answering, on all tokens, whether each is the start and whether it is the end.

    Args:
        classifier: the frozen encoder with any head of pooling ``tokens``.
        examples: the training examples.
        kind: question answering or token classification.
        pad_token_id: the padding token.
        device: where the states are computed.
    """
    classifier.to(device).eval()
    every = -(-len(examples) // _MOST_EXAMPLES)
    chosen = range(0, len(examples), every)
    held_out = _part(examples, list(chosen[::_HELD_OUT]))
    # One example alone is its own judge.
    rest = [index for place, index in enumerate(chosen) if place % _HELD_OUT] or [0]

    def moments(part: Examples) -> Tensor:
        return _moments(classifier, part, kind, pad_token_id, device)

    fitted, judge = moments(_part(examples, rest)), moments(held_out)
    outputs = classifier.layout.outputs
    solutions = [_ridge(fitted, outputs, penalty) for penalty in PENALTIES]
    best = min(range(len(PENALTIES)), key=lambda index: _squared_error(judge, *solutions[index]))
    scale = _logit_scale(classifier, held_out, kind, pad_token_id, device, *solutions[best])
    weight, bias = _ridge(fitted + judge, outputs, PENALTIES[best])
    # A softmax does not see what all its logits have in common.
    bias = bias - bias.mean()
    return affine_head("least-squares", (weight * scale).cpu(), (bias * scale).cpu(), "tokens")


def _part(examples: Examples, indices: list[int]) -> Examples:
    inputs = {name: [rows[index] for index in indices] for name, rows in examples.inputs.items()}
    return dataclasses.replace(examples, inputs=inputs, targets=examples.targets[indices])


def _states(
    classifier: TextClassifier, examples: Examples, pad_token_id: int, device: torch.device
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """States [batch, sequence, hidden], targets, and mask [batch, sequence] of each batch."""
    for indices, batch in length_sorted_batches(examples, pad_token_id, device):
        mask = batch["attention_mask"]
        targets = examples.targets[indices][:, : mask.shape[1]].to(device)
        yield classifier.features(**batch).float(), targets, mask


def _moments(
    classifier: TextClassifier,
    examples: Examples,
    kind: TaskKind,
    pad_token_id: int,
    device: torch.device,
) -> Tensor:
    """The sum of the outer products of (state, goal, 1) with themselves over all judged tokens.

    Returns:
        float64 [n, n], n = hidden + outputs + 1.
    """
    outputs = classifier.layout.outputs
    size = classifier.layout.hidden_size + outputs + 1
    total = torch.zeros(size, size, dtype=torch.float64, device=device)
    for states, targets, mask in _states(classifier, examples, pad_token_id, device):
        if kind == "question-answering":
            judged = mask == 1
            goals = functional.one_hot(targets, mask.shape[1]).transpose(1, 2)
        else:
            judged = targets != NO_TARGET
            goals = functional.one_hot(targets.clamp(min=0), outputs)
        ones = torch.ones_like(goals[..., :1])
        rows = torch.cat([states, goals, ones], dim=-1)[judged].double()
        total += rows.T @ rows
    return total


def _ridge(moments: Tensor, outputs: int, penalty: float) -> tuple[Tensor, Tensor]:
    """Weight [outputs, hidden] and bias [outputs]; the penalty is a share of the mean variance."""
    hidden = len(moments) - outputs - 1
    count = moments[-1, -1]
    mean = moments[-1, :-1] / count
    covariance = moments[:-1, :-1] / count - torch.outer(mean, mean)
    # Above zero, so that states that are all equal give a constant head.
    amount = penalty * covariance[:hidden, :hidden].diagonal().mean().clamp(min=1e-30)
    ridge = covariance[:hidden, :hidden].clone()
    ridge.diagonal().add_(amount)
    weight = torch.linalg.lstsq(ridge, covariance[:hidden, hidden:]).solution.T
    return weight, mean[hidden:] - weight @ mean[:hidden]


def _squared_error(moments: Tensor, weight: Tensor, bias: Tensor) -> float:
    """The mean squared error of a solution over the rows of some moments."""
    # The residual of a row (state, goal, 1) is linear in it.
    identity = torch.eye(len(weight), dtype=weight.dtype, device=weight.device)
    residual = torch.cat([-weight, identity, -bias.unsqueeze(1)], dim=1)
    return float((residual @ moments @ residual.T).diagonal().sum() / moments[-1, -1])


def _logit_scale(
    classifier: TextClassifier,
    examples: Examples,
    kind: TaskKind,
    pad_token_id: int,
    device: torch.device,
    weight: Tensor,
    bias: Tensor,
) -> float:
    """The factor that makes the task loss of a solution smallest."""
    bias = bias - bias.mean()
    losses = torch.zeros(len(_LOGIT_SCALES))
    for states, targets, mask in _states(classifier, examples, pad_token_id, device):
        logits = states @ weight.float().T + bias.float()
        losses += len(states) * torch.stack(
            [task_loss(logits * scale, targets, kind, mask).cpu() for scale in _LOGIT_SCALES]
        )
    return float(_LOGIT_SCALES[int(losses.argmin())])
