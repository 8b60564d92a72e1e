"""The three ways to train that benchmarks/train_step.py compares, one step at a time."""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from transformers import BertConfig, BertModel, PreTrainedModel, TrainingArguments

from pipeline.artifacts.classifier import TextClassifier, load_encoder
from pipeline.config import TrainConfig
from smp.architectures import pruned_matrices
from smp.heads import linear_head
from smp.masking import score_based_counts
from smp.methods import pruning_method
from smp.schedules import CubicSchedules
from smp.score_starts import initial_scores
from smp.scores import ScoredMatrices, Scores
from smp.trainer import MaskTrainer

FINETUNE, OURS, SORTED = "fine-tuning", "SMP-S", "SMP-S, full sort"
SUBJECTS = (FINETUNE, OURS, SORTED)
PARTS = ("masks", "loss and gradients", "optimiser")
# Where in the run of a thousand steps the measured ones are: the density falls by 0.15 % a step.
_TOTAL_STEPS, _FIRST_STEP = 1000, 300


@dataclass(frozen=True)
class Setting:
    """What is measured.

    Attributes:
        model: a directory or hub id; None for BERT-base's shapes with random weights.
        batch_size: texts of the batch.
        sequence_length: tokens of each, none of them padding.
        precision: fp32, bf16 or fp16.
        device: cpu or cuda.
        density: that the run ends with.
        turns: timed steps of each subject.
        warm_up: steps of each before.
        seed: of weights, batch and order.
    """

    model: str | None
    batch_size: int
    sequence_length: int
    precision: str
    device: str
    density: float
    turns: int
    warm_up: int
    seed: int


class Subject:
    """One way to train, with a model of its own.

    Args:
        name: of :data:`SUBJECTS`.
        setting: what is measured.

    Attributes:
        trainer: as `smp-pipeline train` makes it.
    """

    def __init__(self, name: str, setting: Setting) -> None:
        method: Literal["finetune", "smp-s"] = "finetune" if name == FINETUNE else "smp-s"
        config = TrainConfig(
            model=setting.model or "bert-base",
            output_dir=Path(tempfile.gettempdir()) / "train-step",  # nothing is written there
            train_file=Path("none.csv"),
            validation_file=Path("none.csv"),
            method=method,
            density=setting.density if method == "smp-s" else None,
            seed=setting.seed,
        ).resolved()
        self.sorts = name == SORTED
        self.trainer = _trainer(config, setting)
        self.trainer.state.global_step = _FIRST_STEP
        optimiser = self.trainer.create_optimizer()
        prepared = self.trainer.accelerator.prepare(self.trainer.model, optimiser)
        self.model, self.optimiser = prepared
        self.model.train()

    @property
    def trained(self) -> int:
        """Number of weights or scores that are trained."""
        parameters = self.trainer.model.parameters()
        return sum(parameter.numel() for parameter in parameters if parameter.requires_grad)

    def update_masks(self) -> None:
        """What comes before every step."""
        if self.sorts:
            assert self.trainer.scored is not None
            sort_masks(self.trainer.scored, self.trainer.density)
        else:
            self.trainer.update_masks()

    def step(
        self, batch: Mapping[str, Tensor], after: Callable[[str], None] = lambda part: None
    ) -> float:
        """One optimiser step.

        Args:
            batch: inputs, int64 [batch, sequence], and labels, int64 [batch].
            after: called with the name of each of :data:`PARTS` when it is done.

        Returns:
            the loss.
        """
        self.update_masks()
        after("masks")
        loss: Tensor = self.trainer.compute_loss(self.model, dict(batch))
        self.trainer.accelerator.backward(loss)
        after("loss and gradients")
        self.optimiser.step()
        self.optimiser.zero_grad()
        self.trainer.state.global_step += 1
        value = float(loss.detach())
        after("optimiser")
        return value


@torch.no_grad()
def sort_masks(scored: ScoredMatrices, density: float) -> None:
    """The masks of SMP-S as the reference implementation computes them: each matrix is sorted."""
    for matrix_type in dict.fromkeys(matrix.matrix_type for matrix in scored.matrices):
        group = [
            item
            for matrix, item in zip(scored.matrices, scored.parametrizations, strict=True)
            if matrix.matrix_type == matrix_type and isinstance(item, Scores)
        ]
        means = torch.stack([torch.sigmoid(item.scores).mean() for item in group]).tolist()
        counts = score_based_counts([item.scores.numel() for item in group], means, density)
        for item, count in zip(group, counts, strict=True):
            order = item.scores.reshape(-1).sort(descending=True).indices
            mask = item.mask.reshape(-1)
            mask[order[:count]] = True
            mask[order[count:]] = False


def make_batch(setting: Setting, vocabulary: int) -> dict[str, Tensor]:
    """Random tokens with labels in turn."""
    generator = torch.Generator().manual_seed(setting.seed)
    shape = (setting.batch_size, setting.sequence_length)
    batch = {
        "input_ids": torch.randint(vocabulary, shape, generator=generator),
        "attention_mask": torch.ones(shape, dtype=torch.int64),
        "labels": torch.arange(setting.batch_size) % 2,
    }
    return {name: tensor.to(setting.device) for name, tensor in batch.items()}


def _trainer(config: TrainConfig, setting: Setting) -> MaskTrainer:
    torch.manual_seed(setting.seed)
    encoder = _encoder(setting)
    matrices = pruned_matrices(encoder, encoder.config.model_type)
    encoder.requires_grad_(not config.prunes)
    generator = torch.Generator().manual_seed(setting.seed)
    hidden_size = encoder.config.hidden_size
    head, layout = linear_head(hidden_size, 2, pooling="mean", generator=generator)
    head.requires_grad_(not config.prunes)
    scored = schedules = None
    if config.prunes:
        assert config.density is not None
        starts = [
            initial_scores(matrix.module.weight, config.score_init, config.score_init_scale)
            for matrix in matrices
        ]
        scored = ScoredMatrices(matrices, pruning_method(config), starts)
        schedules = CubicSchedules.of_run(
            density=config.density,
            lambda_=config.lambda_,
            total_steps=_TOTAL_STEPS,
            density_fraction=config.density_fraction,
            density_steps=None,
            pruned_weights=scored.size,
        )
    arguments = TrainingArguments(
        output_dir=str(config.output_dir),
        use_cpu=setting.device == "cpu",
        bf16=setting.precision == "bf16",
        fp16=setting.precision == "fp16",
        learning_rate=config.learning_rate,
        max_steps=_TOTAL_STEPS,
        report_to="none",
    )
    classifier = TextClassifier(encoder, head, layout)
    return MaskTrainer(classifier, scored, schedules, kind="classification", args=arguments)


def _encoder(setting: Setting) -> PreTrainedModel:
    if setting.model is not None:
        return load_encoder(setting.model)
    encoder: PreTrainedModel = BertModel(BertConfig(), add_pooling_layer=False)
    return encoder
