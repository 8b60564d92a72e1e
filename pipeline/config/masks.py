"""The configurations of `smp-pipeline import-masks` and `smp-pipeline export-masks`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.config.fields import check_bounds, check_output_directory, option
from pipeline.config.train import GLUE_TASKS
from pipeline.errors import ConfigurationError

__all__ = ["MASK_TASKS", "ExportMasksConfig", "ImportMasksConfig"]

MASK_TASKS = (*GLUE_TASKS, "squad")

_DATA = "Data"


@dataclass(frozen=True)
class ImportMasksConfig:
    """Which masks to make a run of, for which model and task."""

    masks: Path = option(
        help="A .npy file in the layout of those that SMP's authors published.", positional=True
    )
    model: str = option(help="The BERT that the masks belong to: a directory or a hub id.")
    output_dir: Path = option(help="Run directory to write: a new or an empty one.")
    revision: str | None = option(None, help="Hub revision of the model; the newest if not given.")
    task: str | None = option(
        None,
        help="A task of the paper, for its labels, columns and metric, in place of --labels: "
        f"{', '.join(MASK_TASKS)}.",
    )
    labels: tuple[str, ...] = option((), help="The label names, in the order of the logits.")
    label_words: tuple[str, ...] = option(
        (),
        help="One word a label, in the order of the labels; the paper's for its tasks, but for "
        "mnli, where the published files have others.",
    )
    method: Literal["smp-s", "smp-l"] = option(
        "smp-s", help="How the masks were chosen: smp-s for the published files that say mag."
    )
    validation_file: Path | None = option(
        None,
        help="Labelled texts to score the imported run on; without them it has no metrics.",
        group=_DATA,
    )
    text_column: str | None = option(
        None, help="Column of the text; the task's, or text, if not given.", group=_DATA
    )
    text_pair_column: str | None = option(
        None, help="Column of the second text; the task's, or none, if not given.", group=_DATA
    )
    label_column: str | None = option(
        None, help="Column of the label; label if not given.", group=_DATA
    )
    max_length: int | None = option(
        None,
        help="Tokens after which a text is cut, special tokens included; 384 for squad and 128 for "
        "the other tasks if not given.",
        minimum=4,
        group=_DATA,
    )
    device: Literal["auto", "cpu", "cuda"] = option(
        "auto", help="Where to score the validation file."
    )

    def __post_init__(self) -> None:
        check_bounds(self)
        check_output_directory(self.output_dir)
        if (self.task is None) == (not self.labels):
            raise ConfigurationError("give --task or --labels, one of the two")
        if self.task is not None and self.task not in MASK_TASKS:
            raise ConfigurationError(
                f"--task must be one of {', '.join(MASK_TASKS)}, got {self.task!r}"
            )
        if self.task == "squad" and self.validation_file is not None:
            raise ConfigurationError(
                "--validation-file scores texts with labels, not questions; leave it away and "
                "measure the exported model with `smp-pipeline bench`"
            )
        if self.labels and (len(self.labels) < 2 or len(set(self.labels)) < len(self.labels)):
            raise ConfigurationError("--labels: give two or more that differ from each other")
        if self.labels and not self.label_words:
            raise ConfigurationError("--label-words is needed beside --labels: one word a label")
        if len(set(self.label_words)) != len(self.label_words):
            raise ConfigurationError("--label-words must differ from each other")


@dataclass(frozen=True)
class ExportMasksConfig:
    """Which run's masks to write, and where to."""

    run: Path = option(help="The run directory of a pruned BERT.", positional=True)
    output: Path = option(Path("masks.npy"), help="The .npy file to write.")

    def __post_init__(self) -> None:
        if self.output.suffix != ".npy":
            raise ConfigurationError(f"--output must end in .npy, got {self.output}")
