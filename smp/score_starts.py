"""Where the scores start: a quick estimate of how much each weight matters."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from pipeline.artifacts.classifier import TextClassifier
from pipeline.artifacts.run import TaskKind
from pipeline.config import TrainConfig
from smp.architectures import PrunedMatrix
from smp.examples import Examples, collate
from smp.losses import task_loss

__all__ = ["START_BATCHES", "initial_scores", "sensitivities", "starting_scores"]

ScoreStart = Literal["magnitude", "gradient", "fisher", "zero"]

# Training batches that gradients are taken on: some seconds, whatever the length of the run.
START_BATCHES = 32


def starting_scores(
    config: TrainConfig,
    classifier: TextClassifier,
    matrices: Sequence[PrunedMatrix],
    examples: Examples,
    *,
    kind: TaskKind,
    pad_token_id: int,
    device: torch.device,
) -> list[Tensor] | None:
    """Where the scores of a run start.

    Args:
        config: the configuration.
        classifier: the plain classifier.
        matrices: the pruned matrices of its encoder.
        examples: the training examples.
        kind: the kind of the task, for its loss.
        pad_token_id: for padding.
        device: where to compute.

    Returns:
        float32 [out_features, in_features] for each matrix, None if the method has no scores.
    """
    if not config.learns_scores:
        return None
    start = config.score_init
    if start in ("gradient", "fisher"):
        measures = sensitivities(
            start,
            classifier,
            matrices,
            examples,
            kind,
            batch_size=config.batch_size,
            pad_token_id=pad_token_id,
            device=device,
            seed=config.seed,
        )
    else:
        measures = [matrix.module.weight for matrix in matrices]
    return [initial_scores(measure, start, config.score_init_scale) for measure in measures]


def initial_scores(weight: Tensor, start: ScoreStart, scale: float) -> Tensor:
    """Where the scores of one matrix start.

    Args:
        weight: float [out_features, in_features]: the weight, or what
            :func:`sensitivities` gives for it.
        start: ``zero`` as in the paper, or else proportional to abs(weight), so that the first
            masks are those of the largest and not an arbitrary choice among ties.
        scale: root of the mean square of the scores, for all starts but ``zero``.

    Returns:
        float32, the weight's shape.
    """
    if start == "zero":
        return torch.zeros_like(weight, dtype=torch.float32)
    magnitude = weight.detach().abs().to(torch.float32)
    return scale * magnitude / magnitude.square().mean().sqrt().clamp(min=1e-12)


def sensitivities(
    start: Literal["gradient", "fisher"],
    classifier: TextClassifier,
    matrices: Sequence[PrunedMatrix],
    examples: Examples,
    kind: TaskKind,
    *,
    batch_size: int,
    pad_token_id: int,
    device: torch.device,
    seed: int,
) -> list[Tensor]:
    """How much the loss depends on each weight, on up to 32 random training batches.

    ``gradient`` is abs(g * w) with g the gradient of the mean loss: the first-order change of
    the loss when the weight is removed (SNIP, Lee et al., 2019). ``fisher`` is the sum over
    the batches of g_b^2 * w^2, g_b the gradient of one batch's mean loss: up to a factor the
    second-order change under the empirical Fisher matrix's diagonal (Theis et al., 2018), with
    batches in the place of examples, so it depends on the batch size.

    The classifier is evaluated without dropout, in fp32. It ends as it was, but in evaluation mode.

    Args:
        start: which of the two.
        classifier: the plain classifier, before scores are attached.
        matrices: the pruned matrices of its encoder.
        examples: the training examples.
        kind: the kind of the task, for its loss.
        batch_size: examples of a batch.
        pad_token_id: for padding.
        device: where to compute.
        seed: chooses the examples.

    Returns:
        float32 [out_features, in_features] for each matrix, at most 1 in every one.
    """
    classifier.to(device).eval()
    weights = [matrix.module.weight for matrix in matrices]
    trained = [weight.requires_grad for weight in weights]
    totals = [torch.zeros_like(weight, dtype=torch.float32) for weight in weights]
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(examples), generator=generator)
    for weight in weights:
        weight.requires_grad_(True)
    for indices in torch.split(order, batch_size)[:START_BATCHES]:
        rows = [examples[int(index)] for index in indices]
        batch = {name: ids.to(device) for name, ids in collate(rows, pad_token_id).items()}
        targets = batch.pop("labels")
        loss = task_loss(classifier(**batch), targets, kind, batch["attention_mask"])
        gradients = torch.autograd.grad(loss, weights)
        for total, gradient in zip(totals, gradients, strict=True):
            total.add_(gradient if start == "gradient" else gradient.square())
    for weight, before in zip(weights, trained, strict=True):
        weight.requires_grad_(before)
    found = []
    for total, weight in zip(totals, weights, strict=True):
        slope = total.abs() if start == "gradient" else total.sqrt()
        product = slope * weight.detach().abs()
        # Relative to the largest, since squares of squares leave float32's range.
        relative = product / product.max().clamp(min=torch.finfo(torch.float32).tiny)
        found.append(relative if start == "gradient" else relative.square())
    return found
