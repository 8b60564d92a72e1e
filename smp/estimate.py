"""What a training run would train, write, take and need, before it starts."""

import math
import time
from dataclasses import dataclass

import torch
from transformers import AutoConfig, AutoModel

from pipeline.artifacts.classifier import model_errors
from pipeline.config import TrainConfig
from pipeline.questions import Questions
from pipeline.tagged_words import TaggedWords
from pipeline.task_files import TaskData
from smp.architectures import pruned_matrices
from smp.device import choose_device, choose_precision
from smp.patterns import check_shapes
from smp.schedules import total_steps
from smp.score_starts import START_BATCHES
from smp.task import longest_text, read_task
from smp.teacher import read_teacher
from smp.unfinished import unfinished_directory

__all__ = ["TrainingEstimate", "estimate"]

_TYPICAL_TOKENS_A_WORD = 1.4
# Forward, and backward for states and for weights: two operations a weight and token each.
_OPERATIONS_A_WEIGHT_AND_TOKEN = 6
_OPERATIONS_FORWARD = 2
# What a step reaches of the speed of one large product, seen on CPUs with 32 x 24 tokens.
_TYPICAL_EFFICIENCY = 0.4


@dataclass(frozen=True)
class TrainingEstimate:
    """An estimate; the real run depends on lengths of texts and on the load of the machine.

    Attributes:
        examples: training examples.
        validation_examples: validation examples.
        steps: optimiser steps.
        trained: what is trained, in words.
        pruned_weights: weights of the pruned matrices.
        remaining_weights: how many of them remain.
        device: where it would run.
        precision: in which arithmetic.
        seconds: rough duration, from a matrix product timed just now.
        memory_bytes: rough peak for weights, scores, gradients and optimiser state.
        run_bytes: rough size of the run directory.
        writes: what appears where.
    """

    examples: int
    validation_examples: int
    steps: int
    trained: str
    pruned_weights: int
    remaining_weights: int
    device: str
    precision: str
    seconds: float
    memory_bytes: int
    run_bytes: int
    writes: str


def estimate(config: TrainConfig) -> TrainingEstimate:
    """Estimate a run: reads the data and the model's configuration, loads no weights.

    Args:
        config: a resolved configuration.

    Raises:
        PipelineError: what the run itself would refuse of data, model and device.
    """
    device = choose_device(config.device)
    precision = choose_precision(config.precision, device)
    task = read_task(config)
    if config.teacher is not None:
        read_teacher(config.teacher, task)
    with model_errors(config.model) as source, torch.device("meta"):
        model_config = AutoConfig.from_pretrained(source, revision=config.revision)
        encoder = AutoModel.from_config(model_config)
    matrices = pruned_matrices(encoder, model_config.model_type)
    check_shapes(matrices, config.pattern)
    pruned = sum(matrix.module.weight.numel() for matrix in matrices)
    # The run leaves the pooler away.
    named = encoder.named_parameters()
    total = sum(tensor.numel() for name, tensor in named if not name.startswith("pooler."))

    batch = config.batch_size * config.gradient_accumulation_steps
    longest = longest_text(config, task.kind)
    examples, tokens = _examples(task.train, longest, config.stride)
    steps = total_steps(config, examples)
    training = steps * batch * tokens
    if config.learns_scores and config.score_init in ("gradient", "fisher"):
        training += min(examples, START_BATCHES * config.batch_size) * tokens
    validation_examples, _ = _examples(task.validation, longest, config.stride)
    evaluating = config.evaluations * validation_examples * tokens / 3
    live = config.teacher is not None and config.teacher_logits == "on-the-fly"
    teaching = 0.0
    if config.teacher is not None:  # forward passes of a model that is taken to be as large
        teaching = (training if live else examples * tokens) / 3
    operations = _OPERATIONS_A_WEIGHT_AND_TOKEN * pruned * (training + evaluating + teaching)
    if config.gradient_checkpointing:
        operations += _OPERATIONS_FORWARD * pruned * training
    scores = pruned if config.learns_scores else 0
    weights = total if config.trains_weights else 0
    masks = pruned if config.prunes else 0
    remaining = round((config.density or 1.0) * pruned)
    return TrainingEstimate(
        examples=len(task.train),
        validation_examples=len(task.validation),
        steps=steps,
        trained=_trained(scores, weights),
        pruned_weights=pruned,
        remaining_weights=remaining,
        device=str(device),
        precision=precision,
        seconds=operations / (_speed(device, precision) * _TYPICAL_EFFICIENCY),
        # Weights (a live teacher's too) and scores; gradient and two moments of what is trained,
        # of which scores may share one; masks and masked weights; states beside it.
        memory_bytes=4 * (total + scores + (total if live else 0))
        + (8 if config.second_moment == "matrix" else 12) * scores
        + 12 * weights
        + 5 * masks
        + _state_bytes(config, model_config, tokens),
        run_bytes=4 * weights + masks // 8,
        writes=f"{config.output_dir}; checkpoints in {unfinished_directory(config.output_dir)} "
        "until it is complete",
    )


def _trained(scores: int, weights: int) -> str:
    counts = [f"{count:,} {what}" for count, what in ((scores, "scores"), (weights, "weights"))]
    found = [text for text, count in zip(counts, (scores, weights), strict=True) if count]
    return f"{', '.join(found)}, and the head if linear"


def _examples(data: TaskData, longest: int, stride: int) -> tuple[int, float]:
    """Examples that the model sees, and the mean of their tokens, from the number of words."""
    if isinstance(data, TaggedWords):
        words = sum(map(len, data.words)) / len(data)
        return len(data), min(longest, words * _TYPICAL_TOKENS_A_WORD + 2)
    mean = sum(len(text.split()) for text in data.texts) / len(data) * _TYPICAL_TOKENS_A_WORD
    if not isinstance(data, Questions):
        return len(data), min(longest, mean + 2)
    room = max(2.0, longest - mean - 3)
    overlap = min(stride, room / 2)
    windows, tokens = 0, 0.0
    for context in data.pairs:
        length = len(context.split()) * _TYPICAL_TOKENS_A_WORD
        own = 1 + max(0, math.ceil((length - room) / (room - overlap)))
        windows += own
        tokens += length + (own - 1) * overlap + own * (mean + 3)
    return windows, tokens / windows


def _state_bytes(config: TrainConfig, model_config: object, tokens: float) -> int:
    hidden = int(getattr(model_config, "hidden_size", 768))
    layers = int(getattr(model_config, "num_hidden_layers", 12))
    # About twenty states of the hidden size are kept a layer for the backward pass; with gradient
    # checkpointing the one that it starts from, and the twenty of the layer that is computed again.
    states = layers + 20 if config.gradient_checkpointing else 20 * layers
    return int(4 * states * hidden * config.batch_size * tokens)


def _speed(device: torch.device, precision: str) -> float:
    """Operations a second of one matrix product of 1024 x 1024, the best of five."""
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    size = 1024
    left = torch.randn(size, size, device=device).to(dtype)
    best = float("inf")
    for _ in range(5):
        started = time.perf_counter()
        (left @ left).sum().item()
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best
