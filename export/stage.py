"""The export stage: bake, trace, pack, check, and only then write."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from rich.markup import escape
from rich.status import Status

from export.comparison_texts import comparison_texts
from export.delta_stage import load_delta
from export.embeddings import EncodeEmbeddings
from export.engine import convert
from export.fusion import fuse
from export.graph import export_graph, graph_inputs
from export.graph_file import write_graph
from export.model_card import write_model_card
from export.model_config import write_config, write_tokenizer
from export.packed_graph import EncodeWeights
from export.sparse_initializers import to_sparse_initializers
from export.structure import RemoveEmptyStructure
from export.triton import check_kind, lay_out
from export.verify import check_graph, check_weights, compare_with_pytorch
from export.vocabulary import prune_vocabulary
from pipeline import __version__, native
from pipeline.artifacts.classifier import TextClassifier
from pipeline.artifacts.delta import read_delta
from pipeline.artifacts.exported import (
    DATA_FILE,
    MODEL_FILE,
    TOKENIZER_FILE,
    EngineReport,
    ExportManifest,
    StructureReport,
    graph_outputs,
    write_export_manifest,
)
from pipeline.artifacts.files import sha256_file, staged_directory
from pipeline.artifacts.manifest import to_json
from pipeline.artifacts.run import RunManifest, prunes, read_run
from pipeline.artifacts.trained import TrainedModel, load_run
from pipeline.config import ExportConfig
from pipeline.environment import package_versions
from pipeline.errors import ConfigurationError, DataError
from pipeline.status import status_line

__all__ = ["export_run"]

_PACKAGES = ("numpy", "onnx", "onnx-ir", "onnxruntime", "onnxscript", "torch", "transformers")
_RUN_RECORD = (
    "head",
    "train_data",
    "validation_data",
    "matrices",
    "metrics",
    "settings",
    "versions",
    "hardware",
    "training",
    "pattern",
)


def export_run(config: ExportConfig) -> ExportManifest:
    """Export a run to a verified ONNX model directory.

    Returns:
        The manifest that was written.

    Raises:
        ArtifactError: the run directory is incomplete, corrupt, or was changed.
        ConfigurationError: the output directory is taken, or the run has nothing to pack.
        DataError: there are no validation texts to compare on.
        MachineError: the disk is full, or the native library is missing that an engine export is
            checked with.
        ModelError: the base model is missing, another one, or cannot be exported.
        VerificationError: the graph is wrong; nothing was written.
    """
    if config.is_engine:
        native.library_path()
    with (
        status_line("reading the run") as status,
        staged_directory(config.output_dir) as directory,
    ):
        run, load = _source(config)
        if config.format == "triton":
            check_kind(run.task.kind)
        if not prunes(run.method) and (config.format, config.weight_values) != ("dense", "fp32"):
            flag = f"--format {config.format}"
            if config.format == "dense":
                flag = f"--values {config.weight_values}"
            raise ConfigurationError(
                f"{flag} is for pruned weights, and {config.run} has none (it was trained with "
                "--method finetune); use --format dense with --values fp32"
            )
        texts = comparison_texts(config, run.task, run.validation_data.source)
        if texts is None:
            raise DataError(
                f"the run's validation data {run.validation_data.source} are not there to compare "
                "ONNX Runtime with PyTorch on; give a file of such texts with --validation-file"
            )
        trained = load()
        tokenizer, classifier, masks = trained.tokenizer, trained.classifier, trained.masks
        vocabulary = None
        if config.prune_vocabulary is not None:
            pruned = prune_vocabulary(
                classifier,
                tokenizer,
                config.prune_vocabulary,
                texts=texts,
                max_length=run.task.max_length,
                progress=lambda line: status.update(escape(line)),
            )
            classifier, tokenizer, vocabulary = pruned.classifier, pruned.tokenizer, pruned.report
        inputs = graph_inputs(tokenizer.model_input_names, classifier)

        built = _build(config, run, classifier, masks, inputs, status)
        write_tokenizer(directory, tokenizer, run.task.max_length)
        write_config(directory, classifier.encoder.config, run.task)
        path = directory / MODEL_FILE
        external = write_graph(built.proto, path)

        status.update("checking against PyTorch")
        check_graph(path)
        check_weights(
            path,
            classifier,
            masks,
            config.weight_values,
            built.kept,
            embeddings=config.embedding_values,
        )
        verification = compare_with_pytorch(
            path,
            classifier,
            directory / TOKENIZER_FILE,
            texts,
            inputs=inputs,
            outputs=graph_outputs(run.task.kind),
            max_length=run.task.max_length,
            pad_token_id=int(tokenizer.pad_token_id or 0),
            tolerance=config.share_allowed,
            engine=config.is_engine,
        )
        manifest = ExportManifest(
            smp_pipeline_version=__version__,
            format=config.graph_format,
            method=run.method,
            density=run.density,
            opset=config.opset,
            base_model=run.base_model,
            task=run.task,
            inputs=inputs,
            pad_token_id=int(tokenizer.pad_token_id or 0),
            model_sha256=sha256_file(path),
            verification=verification,
            encodings=built.encodings,
            run={key: value for key, value in to_json(run).items() if key in _RUN_RECORD},
            versions=package_versions(_PACKAGES),
            compute=config.engine_compute,
            engine=built.engine,
            values=config.weight_values,
            embeddings=config.embedding_values,
            data_sha256=sha256_file(directory / DATA_FILE) if external else None,
            structure=built.structure,
            vocabulary=vocabulary,
            fusions=built.fusions,
        )
        if config.format == "triton":
            lay_out(directory, manifest, name=config.triton_name, repository=config.triton_path)
        else:
            write_export_manifest(directory, manifest)
            write_model_card(directory, manifest)
    for line in _remarks(manifest, config):
        print(line, file=sys.stderr)
    return manifest


# Indices of the output and of the input features that are still there; None for all.
Kept = tuple[NDArray[np.intp] | None, NDArray[np.intp] | None]


@dataclass(frozen=True)
class _Built:
    """A graph as it is written, and what was done to it.

    Attributes:
        proto: the graph.
        encodings: parameter name -> how it is stored.
        engine: what the engine's operators compute; None for other formats.
        structure: what was empty and is taken out; None if that was not asked for.
        kept: parameter name -> features of a matrix that got smaller.
        fusions: fusion -> how often it was found and done.
    """

    proto: onnx.ModelProto
    encodings: dict[str, str]
    engine: EngineReport | None
    structure: StructureReport | None
    kept: dict[str, Kept]
    fusions: dict[str, int]


def _build(
    config: ExportConfig,
    run: RunManifest,
    classifier: TextClassifier,
    masks: Mapping[str, NDArray[np.bool_]],
    inputs: Sequence[str],
    status: Status,
) -> _Built:
    """Trace the classifier, run the graph passes, and encode embeddings and weights."""
    status.update("tracing the model")
    model = export_graph(
        classifier,
        tuple(masks),
        inputs,
        config.opset,
        outputs=graph_outputs(run.task.kind),
        fold_constants=config.fold_constants,
    )
    _describe(model, config, run)
    structure: StructureReport | None = None
    kept: dict[str, Kept] = {}
    if config.remove_structure:
        status.update("removing empty structure")
        removal = RemoveEmptyStructure(tuple(masks))
        removal(model)
        structure, kept = removal.report, removal.kept
    fusions = fuse(model, config.fuse)

    status.update("encoding the weights")
    if config.embedding_values != "fp32":
        EncodeEmbeddings(config.embedding_values)(model)
    if config.engine_compute is not None:
        converted = convert(
            ir.to_proto(model), values=config.weight_values, compute=config.engine_compute
        )
        encodings = {**dict.fromkeys(masks, "dense"), **converted.encodings}
        return _Built(converted.model, encodings, converted.report, structure, kept, fusions)
    encoding = EncodeWeights(masks, config.weight_values, packed=config.format == "packed")
    encoding(model)
    proto, encodings = ir.to_proto(model), encoding.encodings
    if config.format == "sparse":
        encodings = to_sparse_initializers(proto, encoding.stored)
    return _Built(proto, encodings, None, structure, kept, fusions)


def _source(config: ExportConfig) -> tuple[RunManifest, Callable[[], TrainedModel]]:
    """The manifest of the run, and what loads the rest of it, which takes longer."""
    if config.from_delta is not None:
        directory = config.from_delta
        delta = read_delta(directory)
        return delta.run, lambda: load_delta(directory, delta, model=config.model)
    assert config.run is not None
    directory = config.run
    run = read_run(directory)
    return run, lambda: load_run(directory, run, model=config.model)


def _remarks(manifest: ExportManifest, config: ExportConfig) -> Iterator[str]:
    """What came out otherwise than the flags may suggest."""
    if manifest.vocabulary is not None:
        yield manifest.vocabulary.summary()
    if manifest.structure is not None:
        yield manifest.structure.summary()
    for name, count in manifest.fusions.items():
        if count == 0:
            unfolded = name == "attention" and not config.fold_constants
            hint = "; it needs --fold-constants" if unfolded else ""
            yield f"--fuse {name}: the model has no part of that form, nothing was replaced{hint}"
    if manifest.format in ("sparse", "packed"):
        kinds = list(manifest.encodings.values())
        if "dense" in kinds:
            yield (
                f"{kinds.count('dense')} of {len(kinds)} matrices are stored dense: --format "
                f"{manifest.format} would not make them smaller"
            )


def _describe(model: ir.Model, config: ExportConfig, run: RunManifest) -> None:
    """Say in the file what it is; no times and no paths, so that files can be reproduced."""
    model.metadata_props.update(
        {
            "smp_pipeline.version": __version__,
            "smp_pipeline.format": config.graph_format,
            "smp_pipeline.method": run.method,
            "smp_pipeline.density": repr(run.density),
            "smp_pipeline.base_model_sha256": run.base_model.sha256,
        }
    )
    if config.engine_compute is not None:
        model.metadata_props["smp_pipeline.compute"] = config.engine_compute
