"""The run directory: what `train` leaves and `export` reads.

    RUN/
      manifest.json       this module's RunManifest
      masks.safetensors   one bit a pruned weight (absent for --method finetune)
      head.safetensors    the head's tensors
      weights.safetensors the encoder's weights (for --method finetune only: they changed)
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
    "BaseModel",
    "DataFile",
    "HeadLayout",
    "HeadTransform",
    "MatrixDensity",
    "RunManifest",
    "TaskLayout",
    "read_run",
    "write_run_manifest",
]

KIND = "smp-run"
SCHEMA_VERSION = 1
MANIFEST_FILE = "manifest.json"
MASKS_FILE = "masks.safetensors"
HEAD_FILE = "head.safetensors"
WEIGHTS_FILE = "weights.safetensors"

Method = Literal["smp-s", "smp-l", "finetune"]
Pooling = Literal["first", "mean", "mask"]


@dataclass(frozen=True)
class BaseModel:
    """The frozen pretrained model.

    Attributes:
        id: a local directory or a hub id, as the user gave it.
        revision: the hub revision, None for the default one or a local directory.
        model_type: the configuration's ``model_type``, for instance ``bert``.
        sha256: hash over names, dtypes, shapes and bytes of the encoder's weights
            (:func:`pipeline.artifacts.classifier.encoder_sha256`).
    """

    id: str
    revision: str | None
    model_type: str
    sha256: str


@dataclass(frozen=True)
class TaskLayout:
    """What the model predicts, from which columns.

    Attributes:
        kind: one label out of several, or one number.
        labels: label names in the order of the logits; empty for regression.
        text_column: the column of the text.
        text_pair_column: the column of the second text, None if there is one text.
        label_column: the column of the label.
        max_length: tokens after which a text is truncated, special tokens included.
        metric: the metric that the task is judged by, a name in :mod:`pipeline.metrics`.
    """

    kind: Literal["classification", "regression"]
    labels: tuple[str, ...]
    text_column: str
    text_pair_column: str | None
    label_column: str
    max_length: int
    metric: str


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
        pooling: which state the head sees: the first token's, the mean over real tokens, or the
            state at the mask token (the first token's where a text has none).
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
        weights_sha256: hash of weights.safetensors, None unless finetune.
        matrices: parameter name -> density of that matrix; empty for finetune.
        metrics: name -> value on the validation data.
        settings: the resolved training configuration.
        versions: package -> version.
        hardware: what it ran on.
        training: steps, seconds and the like.
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
    needed = [HEAD_FILE, WEIGHTS_FILE if manifest.method == "finetune" else MASKS_FILE]
    for name in needed:
        if not (directory / name).is_file():
            raise ArtifactError(f"{directory / name} is missing; copy the run directory again")
    return manifest
