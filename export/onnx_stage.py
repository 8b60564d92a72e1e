"""The export stage for an ONNX file: put in the engine's operators, check, and only then write."""

import dataclasses
import json
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import onnx

from export.comparison_texts import comparison_texts, text_batches
from export.engine import convert
from export.engine.probe import Batch, make_batches
from export.fusion import DOMAIN, OPERATORS
from export.graph_file import read_graph, write_graph
from export.model_card import write_model_card
from export.sparse_initializers import to_dense_initializers
from export.triton import check_kind, lay_out
from export.verify_onnx import compare_with_onnx
from pipeline import __version__, native
from pipeline.artifacts.exported import (
    DATA_FILE,
    KIND,
    MANIFEST_FILE,
    MODEL_FILE,
    TOKENIZER_FILE,
    EngineReport,
    ExportManifest,
    Verification,
    read_exported,
    write_export_manifest,
)
from pipeline.artifacts.files import sha256_file, staged_directory
from pipeline.config import ExportConfig
from pipeline.environment import package_versions
from pipeline.errors import ArtifactError, ConfigurationError, ModelError
from pipeline.status import status_line

__all__ = ["ConvertedFile", "convert_file"]

_PACKAGES = ("numpy", "onnx", "onnx-ir", "onnxruntime")
# What transformers and tokenizers read beside a model.
_COMPANIONS = (
    "added_tokens.json",
    "config.json",
    "merges.txt",
    "sentencepiece.bpe.model",
    "special_tokens_map.json",
    "spiece.model",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
)


@dataclass(frozen=True)
class ConvertedFile:
    """A converted ONNX file.

    Attributes:
        compute: how the operators compute.
        engine: what was found in the graph.
        verification: agreement with the original.
        size_bytes: of the converted file.
        original_size_bytes: of the original, without data in other files.
        manifest: what was written beside it; None if the original is no export of ours.
    """

    compute: str
    engine: EngineReport
    verification: Verification
    size_bytes: int
    original_size_bytes: int
    manifest: ExportManifest | None


def convert_file(config: ExportConfig) -> ConvertedFile:
    """Convert an ONNX file to the engine's operators.

    Beside model.onnx go the tokenizer and configuration files that lie beside the original. If that
    is of a model directory of ours, the result is one too.

    Raises:
        ArtifactError: the file is missing, damaged, or not the one of its manifest.
        ConfigurationError: the output directory is taken, or texts are given without a manifest.
        DataError: the texts cannot be read.
        MachineError: the disk is full, or the engine's native library is missing.
        ModelError: the graph has nothing sparse enough, or does not run.
        VerificationError: the outputs differ; nothing was written.
    """
    source, compute = config.from_onnx, config.engine_compute
    assert source is not None
    assert compute is not None
    native.library_path()
    with (
        status_line("reading the graph") as status,
        staged_directory(config.output_dir) as directory,
    ):
        manifest = _manifest_beside(source)
        original = read_graph(source)
        try:
            to_dense_initializers(original)
        except ArtifactError as error:
            raise ArtifactError(f"--from-onnx {source}: {error}; copy the file again") from error
        if manifest is None and config.validation_file is not None:
            raise ConfigurationError(
                f"--validation-file needs {MANIFEST_FILE} of an export beside {source}, which "
                "says how its texts become inputs; leave it out"
            )
        if manifest is None and config.format == "triton":
            raise ConfigurationError(
                f"--format triton needs {MANIFEST_FILE} of an export beside {source}, which says "
                "what the model's inputs and labels are; use --format engine"
            )
        if manifest is not None and config.format == "triton":
            check_kind(manifest.task.kind)
        status.update("putting in the engine's operators")
        try:
            converted = convert(original, values=config.weight_values, compute=compute)
        except ModelError as error:
            raise ModelError(f"--from-onnx {source}: {error}") from error
        _describe(converted.model, config)
        path = directory / MODEL_FILE
        external = write_graph(converted.model, path)
        for name in _COMPANIONS:
            if (source.parent / name).is_file():
                shutil.copyfile(source.parent / name, directory / name)

        status.update("checking against the original")
        batches, texts = _batches(config, source, manifest), 0
        if batches:
            texts = sum(len(batch.kept) for batch in batches[:-2])
        else:
            batches = make_batches(original)
        verification = compare_with_onnx(
            path, source, batches, texts=texts, tolerance=config.share_allowed
        )
        size_bytes = path.stat().st_size
        if manifest is not None:
            manifest = dataclasses.replace(
                manifest,
                smp_pipeline_version=__version__,
                format="engine",
                compute=compute,
                engine=converted.report,
                values=config.weight_values,
                model_sha256=sha256_file(path),
                data_sha256=sha256_file(directory / DATA_FILE) if external else None,
                verification=verification,
                encodings={**_encodings_read(manifest), **converted.encodings},
                fusions=_fusions_left(manifest, converted.model),
                versions={**manifest.versions, **package_versions(_PACKAGES)},
            )
            if config.format == "triton":
                lay_out(directory, manifest, name=config.triton_name, repository=config.triton_path)
            else:
                write_export_manifest(directory, manifest)
                write_model_card(directory, manifest)
        return ConvertedFile(
            compute=compute,
            engine=converted.report,
            verification=verification,
            size_bytes=size_bytes,
            original_size_bytes=source.stat().st_size,
            manifest=manifest,
        )


def _manifest_beside(source: Path) -> ExportManifest | None:
    """The manifest of the model directory of ours that the file lies in, if it does."""
    try:
        content = json.loads((source.parent / MANIFEST_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if source.name != MODEL_FILE or not isinstance(content, dict) or content.get("kind") != KIND:
        return None
    manifest = read_exported(source.parent)
    changed = None
    if sha256_file(source) != manifest.model_sha256:
        changed = source
    elif manifest.data_sha256 is not None:
        data = source.with_name(DATA_FILE)
        changed = None if sha256_file(data) == manifest.data_sha256 else data
    if changed is not None:
        raise ArtifactError(
            f"{changed} is truncated or was changed: its hash is not that of {MANIFEST_FILE}; "
            f"export again, or remove {MANIFEST_FILE} to convert it as a file of its own"
        )
    return manifest


def _encodings_read(manifest: ExportManifest) -> dict[str, str]:
    """How weights are stored that no operator took over: sparse initializers are made dense."""
    dense = {"sparse": "dense"}
    return {name: dense.get(kind, kind) for name, kind in manifest.encodings.items()}


def _fusions_left(manifest: ExportManifest, model: onnx.ModelProto) -> dict[str, int]:
    """How often each fusion's operators are there still: the engine's took others over."""
    found = Counter(node.op_type for node in model.graph.node if node.domain == DOMAIN)
    return {
        name: sum(found[operator] for operator in OPERATORS.get(name, ()))
        for name in manifest.fusions
    }


def _batches(config: ExportConfig, source: Path, manifest: ExportManifest | None) -> list[Batch]:
    """Real texts to compare on; none if there are none."""
    if manifest is None:
        return []
    data = manifest.run.get("validation_data")
    recorded = str(data.get("source", "")) if isinstance(data, dict) else None
    texts = comparison_texts(config, manifest.task, recorded)
    if texts is None:
        return []
    batches = text_batches(
        source.parent / TOKENIZER_FILE,
        texts,
        inputs=manifest.inputs,
        max_length=manifest.task.max_length,
        pad_token_id=manifest.pad_token_id,
    )
    return [Batch(dict(feeds), feeds["attention_mask"] != 0) for feeds in batches]


def _describe(model: onnx.ModelProto, config: ExportConfig) -> None:
    """Say in the file what it is; what else the original says of itself stays."""
    facts = {entry.key: entry.value for entry in model.metadata_props}
    facts["smp_pipeline.version"] = __version__
    facts["smp_pipeline.format"] = "engine"
    facts["smp_pipeline.compute"] = str(config.engine_compute)
    onnx.helper.set_model_props(model, facts)
