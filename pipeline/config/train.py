"""The configuration of `smp-pipeline train`."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.artifacts.run import Method, Pattern, prunes, trains_weights
from pipeline.config.fields import check_bounds, check_output_directory, flag_name, option
from pipeline.errors import ConfigurationError

__all__ = ["GLUE_TASKS", "SQUAD_TASKS", "TrainConfig"]

GLUE_TASKS = ("cola", "mnli", "mrpc", "qnli", "qqp", "rte", "sst2", "stsb")
SQUAD_TASKS = ("squad", "squad_v2")

_DATA = "Data"
_OPTIMISATION = "Optimisation"
_PRUNING = "Pruning"
_DISTILLATION = "Distillation"
_HEAD = "Head"
_RUN = "Run"

_PRUNING_METHODS: tuple[Method, ...] = ("smp-s", "smp-l", "magnitude", "movement", "soft-movement")
_SCORE_METHODS: tuple[Method, ...] = ("smp-s", "smp-l", "movement", "soft-movement")
# Options without effect with the other methods, which refuse them.
_METHODS_OF_OPTION: dict[str, tuple[Method, ...]] = {
    "pattern": _PRUNING_METHODS,
    "lambda_": ("smp-s", "smp-l", "soft-movement"),
    "score_init": _SCORE_METHODS,
    "score_init_scale": _SCORE_METHODS,
    "score_temperature": ("smp-s",),
    "overflow": ("smp-s",),
    "density_fraction": _PRUNING_METHODS,
    "density_steps": _PRUNING_METHODS,
    "weight_learning_rate": ("movement", "soft-movement"),
    "second_moment": _SCORE_METHODS,
}
_DENSITY_FRACTION = 0.6
_LARGEST_DENSITY: dict[Pattern, float] = {"2:4": 0.5, "4:8": 0.5}


@dataclass(frozen=True)
class TrainConfig:
    """What to prune, on which data, how, and where to."""

    model: str = option(help="The pretrained encoder: a local directory or a hub id.")
    output_dir: Path = option(help="Run directory to write: a new or an empty one.")
    revision: str | None = option(None, help="Hub revision of the model; the newest if not given.")

    train_file: Path | None = option(
        None,
        help="Training examples: csv, tsv, json, jsonl or parquet; SQuAD's json; CoNLL's .conll or "
        ".txt.",
        group=_DATA,
    )
    validation_file: Path | None = option(
        None, help="Validation examples, same columns as the training file.", group=_DATA
    )
    task: str | None = option(
        None,
        help=f"A task from the hub, in place of files: {', '.join(GLUE_TASKS + SQUAD_TASKS)}.",
        group=_DATA,
    )
    task_type: Literal[
        "auto", "classification", "regression", "question-answering", "token-classification"
    ] = option(
        "auto",
        help="auto: question-answering for files of SQuAD's form, token-classification where the "
        "labels are lists, regression if they are numbers with fractions, else classification.",
        group=_DATA,
    )
    text_column: str | None = option(
        None,
        help="Column of the text, the question or the words; the usual names are tried if not "
        "given.",
        group=_DATA,
    )
    text_pair_column: str | None = option(
        None, help="Column of the second text, if there is one, or of the context.", group=_DATA
    )
    label_column: str | None = option(
        None,
        help="Column of the label, the answers or the words' labels; the usual names are tried if "
        "not given.",
        group=_DATA,
    )
    max_length: int | None = option(
        None,
        help="Tokens after which a text is cut, special tokens included; of a window for "
        "question-answering. If not given 128, and 384 for question-answering.",
        minimum=4,
        group=_DATA,
    )
    stride: int = option(
        128,
        help="question-answering: tokens of a long context that two neighbouring windows share, at "
        "most half of what a window has room for.",
        minimum=0,
        group=_DATA,
    )
    max_answer_length: int = option(
        30, help="question-answering: tokens of the longest answer.", minimum=1, group=_DATA
    )
    n_best: int = option(
        20,
        help="question-answering: starts, and ends, of a window that answers are chosen among.",
        minimum=1,
        group=_DATA,
    )
    max_train_samples: int | None = option(
        None,
        help="Use the first so many training examples; all if not given.",
        minimum=1,
        group=_DATA,
    )
    max_validation_samples: int | None = option(
        None,
        help="Use the first so many validation examples; all if not given.",
        minimum=1,
        group=_DATA,
    )

    method: Method = option(
        "smp-s",
        help="smp-s: layers share the density by their scores. smp-l: every matrix has the same. "
        "Baselines that train the weights, too: finetune (prunes none), magnitude, movement, "
        "soft-movement.",
        group=_PRUNING,
    )
    density: float | None = option(
        None,
        help="Share of the weights of the pruned matrices that remains, from 0 to 1; all methods "
        "but finetune need it, unless the pattern is 2:4 or 4:8 (0.5).",
        minimum=0,
        exclusive_minimum=True,
        maximum=1,
        group=_PRUNING,
    )
    pattern: Pattern = option(
        "unstructured",
        help="Which weights remain together: any, at most 2 of 4 or 4 of 8 neighbours along the "
        "input, or blocks of 4 outputs by 1 input.",
        group=_PRUNING,
    )
    lambda_: float = option(
        400.0,
        help="Final weight of the regulariser, on the scale of BERT-base for any model size.",
        minimum=0,
        group=_PRUNING,
    )
    score_init: Literal["magnitude", "gradient", "fisher", "zero"] = option(
        "magnitude",
        help="Start of the scores: abs(weight), abs(gradient * weight) or gradient^2 * weight^2 "
        "on some training batches, or zero, which is the paper's and needs some 40,000 steps.",
        group=_PRUNING,
    )
    score_init_scale: float = option(
        0.15,
        help="Root of the mean square of the starting scores, for all starts but zero.",
        minimum=0,
        exclusive_minimum=True,
        group=_PRUNING,
    )
    score_temperature: float = option(
        1.0,
        help="smp-s: the scores are divided by it before the sigmoid that ranks the layers.",
        minimum=0,
        exclusive_minimum=True,
        group=_PRUNING,
    )
    overflow: Literal["redistribute", "clip"] = option(
        "redistribute",
        help="smp-s: what becomes of a layer's share beyond 1. clip is the reference "
        "implementation's, and falls short of the density.",
        group=_PRUNING,
    )
    density_fraction: float = option(
        _DENSITY_FRACTION,
        help="Share of the run after which the density is reached.",
        minimum=0,
        maximum=1,
        group=_PRUNING,
    )
    density_steps: int | None = option(
        None,
        help="Steps after which the density is reached, in place of --density-fraction. "
        "Negative: so many steps before the end, as the paper counts.",
        group=_PRUNING,
    )

    teacher: Path | None = option(
        None,
        help="A run directory of a model of the same task whose logits are learned from, too.",
        group=_DISTILLATION,
    )
    teacher_temperature: float = option(
        2.0,
        help="Both logits are divided by it before they are compared.",
        minimum=0,
        exclusive_minimum=True,
        group=_DISTILLATION,
    )
    teacher_weight: float = option(
        0.5,
        help="Share of the teacher in the loss; the labels have the rest.",
        minimum=0,
        maximum=1,
        group=_DISTILLATION,
    )
    teacher_logits: Literal["cached", "on-the-fly"] = option(
        "cached",
        help="cached: the teacher runs once over the training data, and what it says is kept on "
        "disk. on-the-fly: it runs beside every step.",
        group=_DISTILLATION,
    )

    epochs: float | None = option(
        None,
        help="Passes over the training data; without --steps, 3 for finetune and 10 for the other "
        "methods if not given.",
        minimum=0,
        exclusive_minimum=True,
        group=_OPTIMISATION,
    )
    steps: int | None = option(
        None, help="Optimiser steps, in place of --epochs.", minimum=1, group=_OPTIMISATION
    )
    batch_size: int = option(32, help="Examples a step and device.", minimum=1, group=_OPTIMISATION)
    gradient_accumulation_steps: int = option(
        1, help="Batches whose gradients are added up for one step.", minimum=1, group=_OPTIMISATION
    )
    learning_rate: float | None = option(
        None,
        help="Peak learning rate; 3e-3 for scores, 5e-5 for finetune and magnitude if not given.",
        minimum=0,
        exclusive_minimum=True,
        group=_OPTIMISATION,
    )
    weight_learning_rate: float = option(
        5e-5,
        help="movement and soft-movement: peak learning rate of the weights beside the scores.",
        minimum=0,
        exclusive_minimum=True,
        group=_OPTIMISATION,
    )
    second_moment: Literal["weight", "matrix"] = option(
        "weight",
        help="What Adam divides a score's mean gradient by: its own root mean square, or that of "
        "its matrix, so that scores whose gradients are noise move less.",
        group=_OPTIMISATION,
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = option(
        "auto",
        help="Arithmetic of the encoder while training; scores stay in fp32. auto: bf16 where the "
        "device computes it natively.",
        group=_OPTIMISATION,
    )
    gradient_checkpointing: bool = option(
        False,
        help="Compute states a second time in the backward pass in place of keeping them: less "
        "memory, more time.",
        group=_OPTIMISATION,
    )

    head: Literal["auto", "label-words", "least-squares", "class-means", "linear"] = option(
        "auto",
        help="auto: label-words where the checkpoint has a masked-language-model head, else "
        "least-squares. All are frozen but linear.",
        group=_HEAD,
    )
    label_words: tuple[str, ...] = option(
        (),
        help="One word a label, in the order of the label names; the paper's for its tasks.",
        group=_HEAD,
    )
    pooling: Literal["auto", "first", "mean", "mask"] = option(
        "auto", help="Which state the head sees; auto follows the model.", group=_HEAD
    )

    seed: int = option(
        0, help="Seed of data order and dropout.", minimum=0, maximum=2**32 - 1, group=_RUN
    )
    device: Literal["auto", "cpu", "cuda"] = option("auto", help="Where to train.", group=_RUN)
    evaluations: int = option(
        10, help="How often the validation data are scored during the run.", minimum=1, group=_RUN
    )
    resume: bool = option(False, help="Go on with a run that was stopped.", group=_RUN)
    report_to: tuple[str, ...] = option(
        (),
        help="Trainer's logging integrations, for instance tensorboard; none if not given.",
        group=_RUN,
    )

    def __post_init__(self) -> None:
        check_bounds(self)
        check_output_directory(self.output_dir)
        self._check_data()
        self._check_pruning()
        self._check_distillation()
        if self.epochs is not None and self.steps is not None:
            raise ConfigurationError("--epochs and --steps exclude each other; give one of them")
        if len(set(self.label_words)) != len(self.label_words):
            raise ConfigurationError("--label-words must differ from each other")

    def _check_pruning(self) -> None:
        if not self.prunes and self.density not in (None, 1.0):
            raise ConfigurationError(
                "--method finetune prunes nothing; leave --density away or choose smp-s"
            )
        if self.density_steps is not None and self.density_fraction != _DENSITY_FRACTION:
            raise ConfigurationError(
                "--density-fraction and --density-steps exclude each other; give one of them"
            )
        largest = _LARGEST_DENSITY.get(self.pattern)
        if self.prunes and self.density is None and largest is None:
            raise ConfigurationError(f"--density is needed for --method {self.method}; try 0.1")
        if largest is not None and self.density is not None and self.density > largest:
            raise ConfigurationError(
                f"--density must be at most {largest:g} with --pattern {self.pattern}, "
                f"got {self.density:g}"
            )
        for field in dataclasses.fields(self):
            methods = _METHODS_OF_OPTION.get(field.name)
            if methods is None or self.method in methods:
                continue
            if getattr(self, field.name) != field.default:
                raise ConfigurationError(
                    f"{flag_name(field)} has no effect with --method {self.method}, only with "
                    f"{', '.join(methods)}; leave it away"
                )

    def _check_distillation(self) -> None:
        for field in dataclasses.fields(self):
            of_teacher = field.name.startswith("teacher_")
            if self.teacher is None and of_teacher and getattr(self, field.name) != field.default:
                raise ConfigurationError(
                    f"{flag_name(field)} has no effect without --teacher; give a run directory "
                    "there, or leave it away"
                )

    def _check_data(self) -> None:
        if self.task is not None:
            if self.task not in GLUE_TASKS + SQUAD_TASKS:
                raise ConfigurationError(
                    f"--task must be one of {', '.join(GLUE_TASKS + SQUAD_TASKS)}, "
                    f"got {self.task!r}"
                )
            if self.train_file is not None or self.validation_file is not None:
                raise ConfigurationError(
                    "--task and --train-file/--validation-file exclude each other; give one"
                )
        elif self.train_file is None or self.validation_file is None:
            raise ConfigurationError("give --train-file and --validation-file, or --task")

    def resolved(self) -> "TrainConfig":
        """The same configuration with the method's defaults in place of what was left open."""
        epochs = self.epochs
        if epochs is None and self.steps is None:
            epochs = 10.0 if self.prunes else 3.0
        return dataclasses.replace(
            self,
            density=(self.density or _LARGEST_DENSITY[self.pattern]) if self.prunes else 1.0,
            epochs=epochs,
            learning_rate=self.learning_rate or (3e-3 if self.learns_scores else 5e-5),
        )

    @property
    def prunes(self) -> bool:
        """Whether the method prunes (all but finetune)."""
        return prunes(self.method)

    @property
    def learns_scores(self) -> bool:
        """Whether the method learns scores (not finetune, and not magnitude)."""
        return self.method not in ("finetune", "magnitude")

    @property
    def trains_weights(self) -> bool:
        """Whether the method changes the weights (all but SMP)."""
        return trains_weights(self.method)
