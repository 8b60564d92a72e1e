"""The export stage: bake, trace, pack, check, and only then write."""

import sys

import numpy as np
import onnx_ir as ir
from rich.console import Console

from export.comparison_texts import comparison_texts
from export.engine import convert
from export.graph import export_graph, graph_inputs
from export.graph_file import write_graph
from export.model_card import write_model_card
from export.model_config import write_config, write_tokenizer
from export.packed_graph import PackInitializers
from export.source import load_run
from export.verify import check_graph, check_weights, compare_with_pytorch
from pipeline import __version__, native
from pipeline.artifacts.exported import (
    MODEL_FILE,
    TOKENIZER_FILE,
    ExportManifest,
    write_export_manifest,
)
from pipeline.artifacts.files import sha256_file, staged_directory
from pipeline.artifacts.manifest import to_json
from pipeline.artifacts.run import RunManifest, read_run
from pipeline.config import ExportConfig
from pipeline.environment import package_versions
from pipeline.errors import ConfigurationError, DataError

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
    assert config.run is not None
    assert config.format != "delta"
    if config.format == "engine":
        native.library_path()
    console = Console(file=sys.stderr)
    with (
        console.status("reading the run", spinner="line") as status,
        staged_directory(config.output_dir) as directory,
    ):
        run = read_run(config.run)
        if config.format != "dense" and run.method == "finetune":
            raise ConfigurationError(
                f"--format {config.format} stores pruned weights, and {config.run} has none (it "
                "was trained with --method finetune); use --format dense"
            )
        texts = comparison_texts(config, run.task, run.validation_data.source)
        if texts is None:
            raise DataError(
                f"the run's validation data {run.validation_data.source} are not there to compare "
                "ONNX Runtime with PyTorch on; give a file of such texts with --validation-file"
            )
        trained = load_run(config.run, run, model=config.model)
        tokenizer, classifier, masks = trained.tokenizer, trained.classifier, trained.masks
        inputs = graph_inputs(tokenizer.model_input_names, classifier)

        status.update("tracing the model")
        model = export_graph(classifier, tuple(masks), inputs, config.opset)
        _describe(model, config, run)
        encodings = dict.fromkeys(masks, "dense")
        engine = None
        if config.format == "packed":
            status.update("packing the weights")
            packing = PackInitializers(
                masks, np.float16 if config.weight_values == "fp16" else np.float32
            )
            packing(model)
            encodings = packing.encodings
        graph = ir.to_proto(model)
        if config.format == "engine":
            status.update("putting in the engine's operators")
            converted = convert(graph, values=config.weight_values, compute=config.compute)
            graph, engine = converted.model, converted.report
            encodings.update(converted.encodings)
        write_tokenizer(directory, tokenizer, run.task.max_length)
        write_config(directory, classifier.encoder.config, run.task)
        path = directory / MODEL_FILE
        write_graph(graph, path)

        status.update("checking against PyTorch")
        check_graph(path)
        check_weights(path, classifier, masks, config.weight_values)
        verification = compare_with_pytorch(
            path,
            classifier,
            directory / TOKENIZER_FILE,
            texts,
            inputs=inputs,
            max_length=run.task.max_length,
            pad_token_id=int(tokenizer.pad_token_id or 0),
            tolerance=config.share_allowed,
            engine=engine is not None,
        )
        manifest = ExportManifest(
            smp_pipeline_version=__version__,
            format=config.format,
            method=run.method,
            density=run.density,
            opset=config.opset,
            base_model=run.base_model,
            task=run.task,
            inputs=inputs,
            pad_token_id=int(tokenizer.pad_token_id or 0),
            model_sha256=sha256_file(path),
            verification=verification,
            encodings=encodings,
            run={key: value for key, value in to_json(run).items() if key in _RUN_RECORD},
            versions=package_versions(_PACKAGES),
            compute=config.compute if engine is not None else None,
            engine=engine,
            values=config.weight_values,
            embeddings=config.embedding_values,
        )
        write_export_manifest(directory, manifest)
        write_model_card(directory, manifest)
    return manifest


def _describe(model: ir.Model, config: ExportConfig, run: RunManifest) -> None:
    """Say in the file what it is; no times and no paths, so that files can be reproduced."""
    model.metadata_props.update(
        {
            "smp_pipeline.version": __version__,
            "smp_pipeline.format": config.format,
            "smp_pipeline.method": run.method,
            "smp_pipeline.density": repr(run.density),
            "smp_pipeline.base_model_sha256": run.base_model.sha256,
        }
    )
    if config.format == "engine":
        model.metadata_props["smp_pipeline.compute"] = config.compute
