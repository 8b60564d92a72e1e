"""All that a run is made of before its first step: data, model, teacher, head and scores."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from transformers import set_seed

from pipeline.artifacts.classifier import TextClassifier, encoder_sha256, load_encoder
from pipeline.config import TrainConfig
from pipeline.status import status_line
from smp.architectures import PrunedMatrix, pruned_matrices
from smp.backbone import build_head, check_vocabulary, load_tokenizer, longest_input
from smp.device import choose_device, choose_precision
from smp.examples import Examples
from smp.gradient_checkpointing import enable_gradient_checkpointing
from smp.methods import pruning_method
from smp.patterns import check_shapes
from smp.score_starts import starting_scores
from smp.scores import ScoredMatrices
from smp.task import Task, longest_text, read_task, tokenise_task
from smp.teacher import Teacher, open_teacher

__all__ = ["Prepared", "prepare"]


@dataclass(frozen=True)
class Prepared:
    """A run before its first step.

    Attributes:
        config: the resolved configuration.
        device: where it trains.
        precision: the arithmetic of the encoder.
        task: its data and what is to be predicted.
        tokenizer: the model's tokenizer.
        max_length: tokens after which a text is cut.
        train_examples: the training data, tokenised.
        validation_examples: the validation data, tokenised.
        base_sha256: hash of the encoder's weights as they were loaded.
        matrices: the encoder's matrices that the method prunes.
        classifier: encoder and head, with scores and masks attached.
        scored: these, None for a method that prunes nothing.
        teacher: the run that it learns from, None for none.
    """

    config: TrainConfig
    device: torch.device
    precision: Literal["fp32", "bf16", "fp16"]
    task: Task
    tokenizer: Any
    max_length: int
    train_examples: Examples
    validation_examples: Examples
    base_sha256: str
    matrices: Sequence[PrunedMatrix]
    classifier: TextClassifier
    scored: ScoredMatrices | None
    teacher: Teacher | None


def prepare(config: TrainConfig) -> Prepared:
    """Read and make what a run needs.

    Args:
        config: a resolved configuration.

    Raises:
        PipelineError: see the subclasses for what a user can get wrong.
    """
    device = choose_device(config.device)
    precision = choose_precision(config.precision, device)
    with status_line("reading the data") as status:
        task = read_task(config)
        status.update("loading the model")
        encoder = load_encoder(config.model, revision=config.revision)
        tokenizer = load_tokenizer(config.model, revision=config.revision)
        check_vocabulary(config.model, tokenizer, encoder)
        matrices = pruned_matrices(encoder, encoder.config.model_type)
        check_shapes(matrices, config.pattern)
        base_sha256 = encoder_sha256(encoder)
        max_length = min(longest_text(config, task.kind), longest_input(encoder))
        status.update("tokenising the texts")
        train_examples, validation_examples = tokenise_task(task, tokenizer, max_length)
        status.update("loading the teacher")
        teacher = open_teacher(config, task, max_length, tokenizer, base_sha256)
        status.update("preparing the head and the scores")
        set_seed(config.seed)
        encoder.requires_grad_(config.trains_weights)
        head, layout = build_head(
            config, encoder, tokenizer, train_examples, task.labels, device, task=task.kind
        )
        classifier = TextClassifier(encoder, head, layout)
        if config.gradient_checkpointing:
            enable_gradient_checkpointing(encoder)
        scored = None
        if config.prunes:
            starts = starting_scores(
                config,
                classifier,
                matrices,
                train_examples,
                kind=task.kind,
                pad_token_id=tokenizer.pad_token_id,
                device=device,
            )
            scored = ScoredMatrices(matrices, pruning_method(config), starts)
    return Prepared(
        config=config,
        device=device,
        precision=precision,
        task=task,
        tokenizer=tokenizer,
        max_length=max_length,
        train_examples=train_examples,
        validation_examples=validation_examples,
        base_sha256=base_sha256,
        matrices=matrices,
        classifier=classifier,
        scored=scored,
        teacher=teacher,
    )
