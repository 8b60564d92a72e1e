"""transformers' Trainer with masks recomputed before every step and the regulariser in the loss."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import Sampler
from transformers import Trainer, TrainerCallback

from pipeline.artifacts.classifier import TextClassifier
from pipeline.artifacts.run import TaskKind
from pipeline.errors import ArtifactError
from smp.distillation import TEACHER_LOGITS, Distillation
from smp.examples import Examples
from smp.losses import task_loss
from smp.optimiser import MatrixAdam
from smp.ranks import check_same_masks
from smp.schedules import CubicSchedules
from smp.scores import ScoredMatrices
from smp.unfinished import mark_complete

__all__ = ["LengthGroupedOrder", "MaskTrainer"]

CHECKPOINT_FILE = "model.safetensors"
_BATCHES_A_GROUP = 50
# A trainable linear head learns beside the scores at this share of their learning rate.
_HEAD_LEARNING_RATE_SHARE = 0.1


class LengthGroupedOrder(Sampler[int]):
    """A random order in which the examples of a batch have similar lengths, so little is padding.

    The order depends on seed and epoch alone, so a resumed run sees what it would have seen.

    Args:
        lengths: tokens of each example.
        batch_size: examples of a batch.
        seed: seed of the order.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self.lengths = torch.tensor(lengths)
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next, from 0."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        order = torch.randperm(len(self.lengths), generator=generator)
        batches: list[Tensor] = []
        for group in torch.split(order, self.batch_size * _BATCHES_A_GROUP):
            by_length = group[self.lengths[group].argsort(stable=True)]
            batches.extend(torch.split(by_length, self.batch_size))
        # A short batch must come last: Trainer cuts the order into batches of equal size.
        full = [batch for batch in batches if len(batch) == self.batch_size]
        short = [batch for batch in batches if len(batch) < self.batch_size]
        shuffled = [full[i] for i in torch.randperm(len(full), generator=generator).tolist()]
        for batch in (*shuffled, *short):
            yield from batch.tolist()


class _MaskUpdates(TrainerCallback):
    """Recomputes the masks before each optimiser step, from the scores as they then are."""

    def __init__(self, trainer: "MaskTrainer") -> None:
        self.trainer = trainer

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.trainer.update_masks()


class MaskTrainer(Trainer):
    """Trains what of a classifier requires gradients: scores, weights, a linear head.

    Args:
        model: the classifier, masks attached.
        scored: its pruned matrices, None to train without masks (the fine-tuning baseline).
        schedules: density and regulariser over the run, None without masks.
        kind: the kind of the task, for its loss.
        weight_learning_rate: of weights and head where scores learn beside them; None for
            the one of the training arguments.
        second_moment: Adam's, of the scores: one a weight, or one a matrix.
        kwargs: everything else that Trainer takes.
    """

    def __init__(
        self,
        model: TextClassifier,
        scored: ScoredMatrices | None,
        schedules: CubicSchedules | None,
        *,
        kind: TaskKind,
        weight_learning_rate: float | None = None,
        second_moment: Literal["weight", "matrix"] = "weight",
        **kwargs: Any,
    ) -> None:
        super().__init__(model=model, **kwargs)
        self.scored = scored
        self.schedules = schedules
        self.kind = kind
        self.weight_learning_rate = weight_learning_rate
        self.second_moment = second_moment
        self._regularised = scored is not None and scored.method.regularised
        self.distillation: Distillation | None = None  # see smp.teacher.learn_from
        self.task_losses: list[Tensor] = []
        # Our loss is a mean over the batch: Trainer divides it by the accumulation steps.
        self.model_accepts_loss_kwargs = False
        self.loss_is_scaled_for_ga = False
        if scored is not None:
            self.add_callback(_MaskUpdates(self))

    @property
    def density(self) -> float:
        """The scheduled density after the steps done so far, in (0, 1]."""
        return 1.0 if self.schedules is None else self.schedules.density_at(self.state.global_step)

    def update_masks(self) -> None:
        """Recompute the masks for the present scores and the present step."""
        if self.scored is not None:
            self.scored.update_masks(self.density)

    def check_masks(self) -> None:
        """Check that all processes have the same masks; at once where there is one process.

        Raises:
            MachineError: they have not.
        """
        if self.scored is not None and self.args.world_size > 1:
            step = self.state.global_step
            check_same_masks(self.scored.masks(), self.args.device, step=step)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Adam without weight decay, over what learns: scores, weights, a linear head."""
        if self.optimizer is None:
            named = [(n, p) for n, p in self.model.named_parameters() if p.requires_grad]
            head = [p for name, p in named if name.startswith("head.")]
            scores = [p for name, p in named if name.endswith(".scores")]
            weights = [
                p for n, p in named if not n.startswith("head.") and not n.endswith(".scores")
            ]
            rate = self.args.learning_rate
            weight_rate = rate if self.weight_learning_rate is None else self.weight_learning_rate
            head_rate = weight_rate if weights else rate * _HEAD_LEARNING_RATE_SHARE
            groups: list[dict[str, Any]] = [
                {"params": scores, "lr": rate, "shared": self.second_moment == "matrix"},
                {"params": weights, "lr": weight_rate},
                {"params": head, "lr": head_rate},
            ]
            groups = [group for group in groups if group["params"]]
            betas = (self.args.adam_beta1, self.args.adam_beta2)
            eps = self.args.adam_epsilon
            self.optimizer: Any
            if self.second_moment == "matrix":
                self.optimizer = MatrixAdam(groups, betas=betas, eps=eps)
            else:
                self.optimizer = torch.optim.Adam(groups, betas=betas, eps=eps, fused=True)
        optimizer: torch.optim.Optimizer = self.optimizer
        return optimizer

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Task loss, the teacher's, and lambda_t R(S) (SMP, equation 9); to evaluate, the first."""
        targets = inputs.pop("labels")
        teacher = inputs.pop(TEACHER_LOGITS, None)
        logits = model(**inputs).float()
        mask = inputs["attention_mask"]
        loss = task_loss(logits, targets, self.kind, mask)
        if self.distillation is not None and model.training:
            if teacher is None:
                with self.accelerator.autocast():
                    teacher = self.distillation.ask(inputs)
            loss = self.distillation.mix(loss, logits, teacher, targets, mask)
        if self._regularised and model.training:
            assert self.scored is not None
            assert self.schedules is not None
            self.task_losses.append(loss.detach())
            weight = self.schedules.lambda_at(self.state.global_step)
            loss = loss + weight * self.scored.regulariser()
        return (loss, {"logits": logits}) if return_outputs else loss

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Evaluate under the masks that the present scores and step give."""
        self.update_masks()
        self.check_masks()
        metrics: dict[str, float] = super().evaluate(*args, **kwargs)
        return metrics

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log the density, lambda and the loss without the regulariser beside Trainer's logs."""
        if "loss" in logs and self.task_losses:
            logs["task_loss"] = float(torch.stack(self.task_losses).mean())
            self.task_losses.clear()
        if self.schedules is not None:
            logs["density"] = round(self.density, 4)
        if self.schedules is not None and self._regularised:
            logs["lambda"] = round(self.schedules.lambda_at(self.state.global_step), 2)
        super().log(logs, start_time)

    def _get_train_sampler(self, train_dataset: Any = None) -> LengthGroupedOrder:
        examples: Examples = self.train_dataset if train_dataset is None else train_dataset
        lengths = [len(ids) for ids in examples.inputs["input_ids"]]
        # Grouped by all that one step sees, however many processes and batches share it.
        examples_a_step = (
            self._train_batch_size * self.args.world_size * self.args.gradient_accumulation_steps
        )
        return LengthGroupedOrder(lengths, examples_a_step, self.args.seed)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        # A run that is killed while Trainer writes leaves half a checkpoint: only one with the
        # mark counts, and the one before it is kept until then (save_total_limit=2).
        super()._save_checkpoint(model, trial)
        # Every process writes the state of its random generators.
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            step = self.state.global_step
            mark_complete(Path(self.args.output_dir) / f"checkpoint-{step}")

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        # Only what is trained: the frozen weights come from the base model again.
        if self.args.should_save:
            directory = Path(output_dir or self.args.output_dir)
            directory.mkdir(parents=True, exist_ok=True)
            save_file(self._trained_tensors(), str(directory / CHECKPOINT_FILE))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        path = Path(resume_from_checkpoint) / CHECKPOINT_FILE
        saved = load_file(str(path))
        trained = {n: p for n, p in self.model.named_parameters() if p.requires_grad}
        shapes = {name: parameter.shape for name, parameter in trained.items()}
        if {name: tensor.shape for name, tensor in saved.items()} != shapes:
            raise ArtifactError(
                f"{path} was written with another model or method; train again without --resume"
            )
        with torch.no_grad():
            for name, parameter in trained.items():
                parameter.copy_(saved[name])

    def _trained_tensors(self) -> dict[str, Tensor]:
        named = self.model.named_parameters()
        return {n: p.detach().cpu().contiguous() for n, p in named if p.requires_grad}
