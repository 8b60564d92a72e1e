"""The model directory: what `export` leaves and `bench` and `serve` read.

DIR/
  manifest.json    this module's ExportManifest
  model.onnx       inputs named as the tokenizer names them, int64 [batch, sequence];
                   one output, ``logits``, float32 [batch, outputs]; [batch, sequence, labels] for
                   token classification; for question answering ``start_logits`` and
                   ``end_logits``, float32 [batch, sequence] (:func:`graph_outputs`)
  model.onnx.data  the weights of a model that is too large for one ONNX file
  tokenizer.json   for the tokenizers library (the other tokenizer files lie beside it)
  config.json      for optimum's and transformers' classes
  README.md        the model card
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pipeline.artifacts.files import read_json
from pipeline.artifacts.manifest import from_json, to_json
from pipeline.artifacts.run import BaseModel, MatrixDensity, TaskKind, TaskLayout
from pipeline.errors import ArtifactError

__all__ = [
    "DATA_FILE",
    "KIND",
    "MANIFEST_FILE",
    "MODEL_FILE",
    "TOKENIZER_FILE",
    "EngineReport",
    "ExportManifest",
    "StructureReport",
    "Verification",
    "VocabularyReport",
    "graph_outputs",
    "read_exported",
    "write_export_manifest",
]

KIND = "smp-model"
SCHEMA_VERSION = 1
MANIFEST_FILE = "manifest.json"
MODEL_FILE = "model.onnx"
DATA_FILE = "model.onnx.data"
TOKENIZER_FILE = "tokenizer.json"

_INPUTS = {"input_ids", "attention_mask", "token_type_ids"}
# Tokens, far beyond any model's: one text of the full length is made up to compare on.
_LONGEST = 2**20


def graph_outputs(kind: TaskKind) -> tuple[str, ...]:
    """The graph's outputs, named as optimum's classes want them."""
    return ("start_logits", "end_logits") if kind == "question-answering" else ("logits",)


@dataclass(frozen=True)
class Verification:
    """How far the exported graph agrees with what it was made from.

    Attributes:
        texts: number of texts compared.
        largest_logit_difference: over all texts and logits, of padding none.
        tolerance: what was allowed.
        label_agreement: share of texts with the same predicted label, in [0, 1]; 1 for regression.
            Of tokens for token classification. For question answering, of texts with the same
            likeliest start, or end, whichever is the smaller share.
        reference: what computed the logits to compare with: PyTorch, or the ONNX file that was
            converted, in ONNX Runtime.
    """

    texts: int
    largest_logit_difference: float
    tolerance: float
    label_agreement: float
    reference: Literal["pytorch", "onnx"] = "pytorch"


@dataclass(frozen=True)
class EngineReport:
    """What of a graph the engine's operators compute.

    Attributes:
        encoder_layers: encoder layers that were found.
        encoder_nodes: operators that compute them: one for all that follow each other.
        linear_layers: linear layers beside those, each an operator.
        density: share of all those weights that is not zero.
        left: weight of a linear layer that stays an ONNX operator -> why.
    """

    encoder_layers: int
    encoder_nodes: int
    linear_layers: int
    density: float
    left: Mapping[str, str]

    def summary(self) -> str:
        """What was found, for people, in one line."""
        found = []
        if self.encoder_layers:
            operators = (
                "1 operator" if self.encoder_nodes == 1 else f"{self.encoder_nodes} operators"
            )
            found.append(f"{self.encoder_layers} encoder layers in {operators}")
        if self.linear_layers:
            found.append(f"{self.linear_layers} linear layers in an operator each")
        parts = [", ".join(found), f"density {self.density:.3g}"]
        if self.left:
            name, why = next(iter(self.left.items()))
            more = f" and {len(self.left) - 1} more" if len(self.left) > 1 else ""
            parts.append(f"left to ONNX Runtime: {name} ({why}){more}")
        return "; ".join(parts)


@dataclass(frozen=True)
class StructureReport:
    """What of the encoder was empty and is taken out.

    Attributes:
        neurons: encoder layer -> how many neurons of its feed-forward part went.
        neurons_before: neurons of all layers before.
        heads: encoder layer -> how many attention heads went.
        heads_before: attention heads of all layers before.
        weights: weights of the pruned matrices that went, zeros included.
    """

    neurons: Mapping[str, int]
    neurons_before: int
    heads: Mapping[str, int]
    heads_before: int
    weights: int

    def summary(self) -> str:
        """What went, for people, in one line."""
        return (
            f"{sum(self.neurons.values()):,} of {self.neurons_before:,} neurons and "
            f"{sum(self.heads.values()):,} of {self.heads_before:,} attention heads were empty; "
            f"{self.weights:,} weights went with them"
        )


@dataclass(frozen=True)
class VocabularyReport:
    """What a corpus left of the vocabulary.

    Attributes:
        corpus: the file, without its directory.
        corpus_sha256: its hash.
        texts: texts in it.
        tokens: tokens that are kept.
        tokens_before: tokens of the base model.
        compared: validation texts that the two below are of.
        changed: share of them that become other tokens now, in [0, 1].
        label_agreement: share of them that get the label from before, in [0, 1]; 1 for regression;
            None where labels are of tokens, which are others now.
    """

    corpus: str
    corpus_sha256: str
    texts: int
    tokens: int
    tokens_before: int
    compared: int
    changed: float
    label_agreement: float | None

    def summary(self) -> str:
        """What is left, for people, in one line."""
        labels = ""
        if self.label_agreement is not None:
            labels = f", and {self.label_agreement:.1%} get the label that they got with all tokens"
        return (
            f"{self.tokens:,} of {self.tokens_before:,} tokens are kept. Of {self.compared} "
            f"validation texts {self.changed:.1%} become other tokens{labels}."
        )


@dataclass(frozen=True)
class ExportManifest:
    """Everything about an exported model that is not in the graph.

    Attributes:
        smp_pipeline_version: the version that wrote it.
        format: how the pruned weights are stored.
        method: how the model was trained.
        density: kept weights over all weights of the pruned matrices; 1 for finetune.
        opset: the ONNX opset of the default domain.
        base_model: the pretrained model.
        task: what it predicts, and the columns it was trained from.
        inputs: the graph's input names, a subset of what the tokenizer gives.
        pad_token_id: the id that pads ``input_ids``.
        model_sha256: hash of model.onnx.
        verification: agreement with PyTorch.
        encodings: parameter name -> how it is stored (``dense``, ``bitmap``, ``gaps``, ...).
        run: the training run's settings, metrics, data and versions, for the record.
        versions: package -> version at export.
        compute: how the engine's operators compute; None for other formats.
        engine: what the engine's operators compute; None for other formats.
        values: how the weights that remain are stored.
        embeddings: how embedding tables are stored.
        data_sha256: hash of model.onnx.data; None where model.onnx holds everything.
        structure: what was empty and is taken out; None if that was not asked for.
        vocabulary: what a corpus left of the vocabulary; None if that was not asked for.
        fusions: fusion -> how often it was found and done.
    """

    smp_pipeline_version: str
    format: Literal["dense", "sparse", "packed", "engine"]
    method: str
    density: float
    opset: int
    base_model: BaseModel
    task: TaskLayout
    inputs: tuple[str, ...]
    pad_token_id: int
    model_sha256: str
    verification: Verification
    encodings: Mapping[str, str]
    run: Mapping[str, Any]
    versions: Mapping[str, str]
    compute: Literal["int8", "fp32"] | None = None
    engine: EngineReport | None = None
    values: Literal["fp32", "fp16", "int8"] = "fp32"
    embeddings: Literal["fp32", "fp16", "int8"] = "fp32"
    data_sha256: str | None = None
    structure: StructureReport | None = None
    vocabulary: VocabularyReport | None = None
    fusions: Mapping[str, int] = field(default_factory=dict)

    @property
    def matrices(self) -> Mapping[str, MatrixDensity]:
        """Pruned matrix -> what training kept of it, as ``run`` has it.

        The shapes are those from before empty structure was removed. Empty for finetune.

        Raises:
            ArtifactError: ``run`` is corrupt; :func:`read_exported` has checked it.
        """
        return _matrices(self.run, Path(MANIFEST_FILE))

    @property
    def densities(self) -> dict[str, float]:
        """Pruned matrix -> share of its weights that is kept, in [0, 1]; see ``matrices``."""
        return {name: matrix.density for name, matrix in self.matrices.items()}


@dataclass(frozen=True)
class _RunRecord:
    """What of ``ExportManifest.run`` is more than a record."""

    matrices: Mapping[str, MatrixDensity] = field(default_factory=dict)


def _matrices(run: Mapping[str, Any], source: Path) -> Mapping[str, MatrixDensity]:
    matrices = from_json(_RunRecord, run, source=source).matrices
    for name, matrix in matrices.items():
        if min(matrix.shape, default=1) < 1 or not 0 <= matrix.kept <= matrix.size:
            raise ArtifactError(
                f"{source} is corrupt: the matrix {name} of shape {list(matrix.shape)} cannot keep "
                f"{matrix.kept} weights; export the model again"
            )
    return matrices


def write_export_manifest(directory: Path, manifest: ExportManifest) -> None:
    """Write ``manifest.json`` into a (staged) model directory."""
    content = {"kind": KIND, "schema_version": SCHEMA_VERSION, **to_json(manifest)}
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    (directory / MANIFEST_FILE).write_text(text, encoding="utf-8")


def read_exported(directory: Path) -> ExportManifest:
    """Read and check a model directory's manifest, and that its files are there.

    Raises:
        ArtifactError: no model directory, of a newer schema, corrupt, or incomplete.
    """
    if not directory.is_dir():
        raise ArtifactError(
            f"{directory} is no model directory; give what `smp-pipeline export --output-dir` wrote"
        )
    path = directory / MANIFEST_FILE
    content = read_json(path, kind=KIND, schema_version=SCHEMA_VERSION)
    manifest = from_json(ExportManifest, content, source=path)
    if not 0 < manifest.task.max_length <= _LONGEST or not _INPUTS.issuperset(manifest.inputs):
        raise ArtifactError(
            f"{path} is corrupt: no model takes {', '.join(manifest.inputs) or 'nothing'} of up to "
            f"{manifest.task.max_length} tokens; export the model again"
        )
    _matrices(manifest.run, path)
    needed = [MODEL_FILE, TOKENIZER_FILE, *([DATA_FILE] if manifest.data_sha256 else [])]
    for name in needed:
        if not (directory / name).is_file():
            raise ArtifactError(f"{directory / name} is missing; export the model again")
    return manifest
