"""The teacher of a run: a finished run, what is checked of it, and its logits, cached or live."""

import hashlib
import json
import textwrap
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from pipeline.artifacts.classifier import TextClassifier
from pipeline.artifacts.files import sha256_file, staged_file
from pipeline.artifacts.run import RunManifest, is_by_token, read_run
from pipeline.artifacts.trained import load_run
from pipeline.config import TrainConfig
from pipeline.data import LabelledText
from pipeline.errors import ArtifactError, ConfigurationError, ModelError
from pipeline.status import status_line
from smp.backbone import longest_input
from smp.distillation import Distillation, TaughtExamples, collate_taught
from smp.examples import Examples, length_sorted_batches, tokenise
from smp.task import Task
from smp.trainer import MaskTrainer

__all__ = ["Teacher", "learn_from", "open_teacher", "read_teacher"]

_CACHE = "teacher-logits"
_LOGITS = "logits"


@dataclass(frozen=True)
class Teacher:
    """A finished run that others learn from.

    Attributes:
        directory: the run directory.
        run: its manifest.
        sha256: hash over names and contents of the directory's files.
        tokenizer: its tokenizer.
        classifier: frozen, in evaluation mode, masks multiplied in.
        order: the column of its logits for each label of the student.
    """

    directory: Path
    run: RunManifest
    sha256: str
    tokenizer: Any
    classifier: TextClassifier
    order: tuple[int, ...]

    def logits(self, **inputs: Tensor) -> Tensor:
        """Its logits in the student's order of labels.

        Args:
            inputs: token ids and masks, int64 [batch, sequence].

        Returns:
            float [batch, outputs], or [batch, sequence, outputs] for answers a token.
        """
        logits: Tensor = self.classifier(**inputs)
        return logits[..., list(self.order)]

    def record(self, config: TrainConfig) -> dict[str, Any]:
        """What the student's manifest says of its teacher."""
        return {
            "id": str(self.directory.resolve()),
            "sha256": self.sha256,
            "metrics": dict(self.run.metrics),
            "temperature": config.teacher_temperature,
            "weight": config.teacher_weight,
            "logits": config.teacher_logits,
        }


def open_teacher(
    config: TrainConfig, task: Task, max_length: int, tokenizer: Any, base_sha256: str
) -> Teacher | None:
    """Load the teacher that the configuration names, and check that it fits; None for none.

    Args:
        config: the configuration.
        task: the student's task.
        max_length: tokens after which its texts are cut.
        tokenizer: the student's tokenizer.
        base_sha256: hash of the student's base model, in whose place the teacher's is looked for if
            they are the same.

    Raises:
        ArtifactError: no run directory, or a corrupt one.
        ConfigurationError: it was trained for something else, or reads other tokens where the
            student's are given to it.
        ModelError: its base model is missing, or another one.
    """
    directory = config.teacher
    if directory is None:
        return None
    run = read_teacher(directory, task)
    same_base = run.base_model.sha256 == base_sha256 and config.revision is None
    flag = f"--teacher {directory}: its base model"
    try:
        trained = load_run(directory, run, model=config.model if same_base else None, flag=flag)
    except ArtifactError as error:
        raise ArtifactError(f"--teacher: {error}") from error
    except ModelError as error:
        raise ModelError(f"{error}; put that model back, or train the teacher again") from error
    teacher = Teacher(
        directory=directory,
        run=run,
        sha256=_directory_sha256(directory),
        tokenizer=trained.tokenizer,
        classifier=trained.classifier.requires_grad_(False),
        order=tuple(run.task.labels.index(label) for label in task.labels)
        or tuple(range(run.head.outputs)),
    )
    if not _reads_texts(config, task):
        _check_tokens(teacher, tokenizer, max_length)
    return teacher


def read_teacher(directory: Path, student: Task) -> RunManifest:
    """Read a teacher's manifest and check that it was trained for the student's task.

    Raises:
        ArtifactError: no run directory, or an incomplete one.
        ConfigurationError: it was trained for something else.
    """
    try:
        run = read_run(directory)
    except ArtifactError as error:
        raise ArtifactError(f"--teacher: {error}") from error
    teacher = run.task
    if teacher.kind != student.kind:
        raise ConfigurationError(
            f"--teacher {directory}: was trained for {teacher.kind}, this run is "
            f"{student.kind}; give a teacher of the same task"
        )
    if set(teacher.labels) != set(student.labels):
        theirs, ours = (
            textwrap.shorten(", ".join(labels), 80) for labels in (teacher.labels, student.labels)
        )
        raise ConfigurationError(
            f"--teacher {directory}: its labels are {theirs}, this run's are {ours}; "
            "give a teacher of the same task"
        )
    columns = (teacher.text_pair_column, student.train.text_pair_column)
    texts = ["one text" if column is None else "two texts" for column in columns]
    if texts[0] != texts[1]:
        raise ConfigurationError(
            f"--teacher {directory}: was trained on {texts[0]} an example, this run has "
            f"{texts[1]}; give a teacher of the same task"
        )
    if teacher.answers and student.answers:
        says = [
            "some without" if a.no_answer else "all with"
            for a in (teacher.answers, student.answers)
        ]
        if says[0] != says[1]:
            raise ConfigurationError(
                f"--teacher {directory}: was trained on questions {says[0]} an answer, this run's "
                f"are {says[1]}; give a teacher of the same task"
            )
    return run


def _reads_texts(config: TrainConfig, task: Task) -> bool:
    # One answer a text: the teacher may read the text with a tokenizer of its own.
    return config.teacher_logits == "cached" and not is_by_token(task.kind)


def _check_tokens(teacher: Teacher, tokenizer: Any, max_length: int) -> None:
    # What the student reads is given to the teacher as it is.
    where = f"--teacher {teacher.directory}"
    whole_text = not is_by_token(teacher.run.task.kind)
    advice = "use --teacher-logits cached" if whole_text else "give one that was trained with it"
    same_inputs = tokenizer.model_input_names == teacher.tokenizer.model_input_names
    if tokenizer.get_vocab() != teacher.tokenizer.get_vocab() or not same_inputs:
        raise ConfigurationError(f"{where}: has another tokenizer than --model; {advice}")
    longest = longest_input(teacher.classifier.encoder)
    if max_length > longest:
        raise ConfigurationError(
            f"{where}: takes texts of up to {longest} tokens; give --max-length {longest}"
        )


def _directory_sha256(directory: Path) -> str:
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    named = {str(path.relative_to(directory)): sha256_file(path) for path in files}
    return hashlib.sha256(json.dumps(named).encode()).hexdigest()


def learn_from(
    teacher: Teacher,
    trainer: MaskTrainer,
    config: TrainConfig,
    task: Task,
    directory: Path,
) -> None:
    """Make a trainer's steps learn from a teacher, too.

    Cached logits are computed by the first process; the others wait, and read its file.

    Args:
        teacher: the teacher.
        trainer: a trainer that has not begun.
        config: the configuration.
        task: the student's task, whose training data are the trainer's examples.
        directory: the unfinished run, where logits are kept for ``--resume``.

    Raises:
        ArtifactError: the cached logits are corrupt.
        MachineError: they cannot be written.
    """
    kind, max_length = teacher.run.task.kind, teacher.run.task.max_length
    device = trainer.args.device
    live = None
    if config.teacher_logits == "cached":
        examples: Any = trainer.train_dataset
        inputs = examples
        if not is_by_token(kind):
            assert isinstance(task.train, LabelledText)
            targets = examples.targets.tolist()
            inputs = tokenise(task.train, targets, teacher.tokenizer, max_length)
        with trainer.args.main_process_first(local=False):
            logits = _cached_logits(teacher, inputs, directory / _CACHE, device)
        trainer.train_dataset = TaughtExamples(examples, logits)
        trainer.data_collator = partial(collate_taught, collate=trainer.data_collator)
    else:
        teacher.classifier.to(device)
        live = teacher.logits
    trainer.distillation = Distillation(
        kind, config.teacher_temperature, config.teacher_weight, live
    )


def _cached_logits(
    teacher: Teacher, examples: Examples, directory: Path, device: torch.device
) -> list[Tensor]:
    """The logits of every example, float32: out of the cache, or computed and put there."""
    ids = examples.inputs["input_ids"]
    key = hashlib.sha256(json.dumps([teacher.sha256, teacher.order, ids]).encode()).hexdigest()
    path = directory / f"{key}.safetensors"
    if not path.exists():
        with staged_file(path) as staged:
            rows = torch.cat(_ask(teacher, examples, device))
            save_file({_LOGITS: rows}, str(staged))
    outputs = len(teacher.order)
    whole_text = not is_by_token(teacher.run.task.kind)
    lengths = [1 if whole_text else len(row) for row in ids]
    try:
        rows = load_file(str(path))[_LOGITS]
    except (SafetensorError, KeyError, OSError) as error:
        raise ArtifactError(f"{path} is truncated or corrupt; remove it") from error
    if rows.shape != (sum(lengths), outputs) or rows.dtype != torch.float32:
        raise ArtifactError(f"{path} is not what the teacher says of these examples; remove it")
    return list(rows) if whole_text else list(rows.split(lengths))


@torch.no_grad()
def _ask(teacher: Teacher, examples: Examples, device: torch.device) -> list[Tensor]:
    """The logits of every example, float32 [1 or its tokens, outputs], on the CPU."""
    classifier = teacher.classifier.to(device)
    answers: list[Tensor] = [torch.empty(0)] * len(examples)
    done = 0
    with status_line("asking the teacher") as status:
        for indices, batch in length_sorted_batches(
            examples, teacher.tokenizer.pad_token_id, device
        ):
            logits = teacher.logits(**batch).float().cpu()
            lengths = batch["attention_mask"].sum(dim=1).tolist()
            for index, row, length in zip(indices.tolist(), logits, lengths, strict=True):
                answers[index] = row[:length].clone() if row.dim() == 2 else row.unsqueeze(0)
            done += len(indices)
            status.update(f"asking the teacher, example {done:,} of {len(examples):,}")
    classifier.cpu()
    return answers
