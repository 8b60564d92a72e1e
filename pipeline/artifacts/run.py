"""The run directory: what `train` leaves and `export` reads.

    RUN/
      manifest.json       this module's RunManifest
      masks.safetensors   one bit a pruned weight (absent for --method finetune)
      head.safetensors    the head's tensors
      weights.safetensors the encoder's weights, before masks (for the methods that change them)
      tokenizer.json ...  the tokenizer, as transformers saves it

The frozen weights are not copied; the manifest names the base model and the hash of its weights.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pipeline.artifacts.files import read_json
from pipeline.artifacts.manifest import from_json, to_json
from pipeline.errors import ArtifactError

__all__ = [
    "HEAD_FILE",
    "MASKS_FILE",
    "WEIGHTS_FILE",
    "AnswerLayout",
    "BaseModel",
    "DataFile",
    "HeadLayout",
    "HeadTransform",
    "MatrixDensity",
    "Method",
    "Pattern",
    "Pooling",
    "RunManifest",
    "TaskKind",
    "TaskLayout",
    "is_by_token",
    "prunes",
    "read_run",
    "trains_weights",
    "write_run_manifest",
]

KIND = "smp-run"
SCHEMA_VERSION = 1
MANIFEST_FILE = "manifest.json"
MASKS_FILE = "masks.safetensors"
HEAD_FILE = "head.safetensors"
WEIGHTS_FILE = "weights.safetensors"

Method = Literal["smp-s", "smp-l", "finetune", "magnitude", "movement", "soft-movement"]
Pattern = Literal["unstructured", "2:4", "4:8", "block-4x1"]
Pooling = Literal["first", "mean", "mask", "tokens"]
TaskKind = Literal["classification", "regression", "question-answering", "token-classification"]


def is_by_token(kind: TaskKind) -> bool:
    """Whether a model of this kind gives logits of every token, not of the text."""
    return kind in ("question-answering", "token-classification")


def prunes(method: str) -> bool:
    """Whether a method prunes, and so leaves masks (all but finetune)."""
    return method != "finetune"


def trains_weights(method: str) -> bool:
    """Whether a method changes the encoder's weights, and so leaves them (all but SMP)."""
    return method not in ("smp-s", "smp-l")


@dataclass(frozen=True)
class BaseModel:
    """The frozen pretrained model.

    Attributes:
        id: a local directory or a hub id, as the user gave it.
        revision: the hub revision, None for the default one or a local directory.
        model_type: the configuration's ``model_type``, for instance ``bert``.
        sha256: hash over names, dtypes, shapes and bytes of the encoder's weights
            (:func:`pipeline.artifacts.classifier.encoder_sha256`).
        attention_heads: heads of an encoder layer, None in runs that do not say.
    """

    id: str
    revision: str | None
    model_type: str
    sha256: str
    attention_heads: int | None = None


@dataclass(frozen=True)
class AnswerLayout:
    """How answers are found in contexts that may be longer than the model takes (SQuAD).

    Attributes:
        stride: tokens of the context that two neighbouring windows share.
        max_answer_length: tokens of the longest answer.
        n_best: starts, and ends, of a window that answers are chosen among.
        no_answer: whether a question may have no answer (SQuAD v2).
        no_answer_threshold: no answer is given where the score of none (start and end at the first
            token, the smallest over the windows) is larger than the best answer's by more than
            this; the value that was best on the validation data.
    """

    stride: int
    max_answer_length: int
    n_best: int
    no_answer: bool
    no_answer_threshold: float = 0.0


@dataclass(frozen=True)
class TaskLayout:
    """What the model predicts, from which columns.

    Attributes:
        kind: one label out of several, one number, a span of the second text, or a label a word.
        labels: label names in the order of the logits; empty for regression and for
            question answering, whose two logits a token are of the answer's start and end.
        text_column: the column of the text (the question; the list of words).
        text_pair_column: the column of the second text (the context), None if there is one text.
        label_column: the column of the label (the answers; the list of a label a word).
        max_length: tokens after which a text is truncated, special tokens included; of a window
            for question answering.
        metric: the metric that the task is judged by, a name in :mod:`pipeline.metrics`.
        answers: for question answering, how answers are found; None for the other kinds.
    """

    kind: TaskKind
    labels: tuple[str, ...]
    text_column: str
    text_pair_column: str | None
    label_column: str
    max_length: int
    metric: str
    answers: AnswerLayout | None = None


@dataclass(frozen=True)
class HeadTransform:
    """The dense layer, activation and LayerNorm before the rows of a label-word head.

    Attributes:
        activation: a name in transformers' activation table, for instance ``gelu``.
        layer_norm_eps: the epsilon of the LayerNorm.
        size: output features of the dense layer.
    """

    activation: str
    layer_norm_eps: float
    size: int


@dataclass(frozen=True)
class HeadLayout:
    """The shape of the head; its tensors are in head.safetensors.

    Attributes:
        kind: ``label-words``, ``least-squares``, ``class-means`` or ``linear``.
        pooling: which state the head sees: the first token's, the mean over real tokens, the
            state at the mask token (the first token's where a text has none), or ``tokens``:
            every token's, for question answering and token classification.
        hidden_size: features of the encoder's states.
        outputs: number of logits; 1 for regression.
        transform: the layers between state and logits, None for none.
        mask_token_id: the mask token, for pooling ``mask``.
        label_words: the word of each label, for a label-word head.
    """

    kind: Literal["label-words", "least-squares", "class-means", "linear"]
    pooling: Pooling
    hidden_size: int
    outputs: int
    transform: HeadTransform | None = None
    mask_token_id: int | None = None
    label_words: tuple[str, ...] = ()


@dataclass(frozen=True)
class MatrixDensity:
    """How much of one pruned matrix is kept.

    Attributes:
        matrix_type: one of the types of the architecture, for instance ``intermediate``.
        layer: the encoder layer, from 0.
        shape: ``(out_features, in_features)``.
        kept: number of weights that remain.
    """

    matrix_type: str
    layer: int
    shape: tuple[int, ...]
    kept: int

    @property
    def size(self) -> int:
        """Number of weights of the matrix."""
        size = 1
        for dimension in self.shape:
            size *= dimension
        return size

    @property
    def density(self) -> float:
        """Kept weights over all weights, in [0, 1]."""
        return self.kept / self.size


@dataclass(frozen=True)
class DataFile:
    """A data file that was used.

    Attributes:
        source: the path, or the hub name of a GLUE task and split.
        sha256: hash of the file, None for hub data.
        rows: examples used.
        truncated: how many of them were longer than ``max_length`` tokens and were cut.
    """

    source: str
    sha256: str | None
    rows: int
    truncated: int


@dataclass(frozen=True)
class RunManifest:
    """Everything about a run that is no tensor.

    Attributes:
        smp_pipeline_version: the version that wrote it.
        method: how it was trained.
        density: kept weights over all weights of the pruned matrices, exactly; 1 for finetune.
        base_model: the frozen model.
        task: what it predicts.
        head: the head's layout.
        train_data: training examples.
        validation_data: validation examples.
        masks_sha256: hash of masks.safetensors, None for finetune.
        head_sha256: hash of head.safetensors.
        weights_sha256: hash of weights.safetensors, None where the weights are the base model's.
        matrices: parameter name -> density of that matrix; empty for finetune.
        metrics: name -> value on the validation data.
        settings: the resolved training configuration.
        versions: package -> version.
        hardware: what it ran on.
        training: steps, seconds and the like; the teacher, if there was one.
        pattern: which weights remain together.
    """

    smp_pipeline_version: str
    method: Method
    density: float
    base_model: BaseModel
    task: TaskLayout
    head: HeadLayout
    train_data: DataFile
    validation_data: DataFile
    masks_sha256: str | None
    head_sha256: str
    weights_sha256: str | None
    matrices: Mapping[str, MatrixDensity]
    metrics: Mapping[str, float]
    settings: Mapping[str, Any]
    versions: Mapping[str, str]
    hardware: Mapping[str, Any]
    training: Mapping[str, Any] = field(default_factory=dict)
    pattern: Pattern = "unstructured"


def write_run_manifest(directory: Path, manifest: RunManifest) -> None:
    """Write ``manifest.json`` into a run directory (a staged one: see files.staged_directory)."""
    content = {"kind": KIND, "schema_version": SCHEMA_VERSION, **to_json(manifest)}
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    (directory / MANIFEST_FILE).write_text(text, encoding="utf-8")


def read_run(directory: Path) -> RunManifest:
    """Read and check a run directory's manifest, and that its files are there.

    Raises:
        ArtifactError: no run directory, of a newer schema, corrupt, or incomplete.
    """
    if not directory.is_dir():
        raise ArtifactError(
            f"{directory} is no run directory; give what `smp-pipeline train --output-dir` wrote"
        )
    path = directory / MANIFEST_FILE
    content = read_json(path, kind=KIND, schema_version=SCHEMA_VERSION)
    manifest = from_json(RunManifest, content, source=path)
    written = {
        HEAD_FILE: True,
        MASKS_FILE: prunes(manifest.method),
        WEIGHTS_FILE: trains_weights(manifest.method),
    }
    for name in (name for name, there in written.items() if there):
        if not (directory / name).is_file():
            raise ArtifactError(f"{directory / name} is missing; copy the run directory again")
    return manifest
