"""The export stage: bake, trace, pack, check, and only then write."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from rich.console import Console
from transformers import AutoTokenizer

from export.bake import apply_masks, load_weights
from export.engine import convert
from export.graph import export_graph, graph_inputs
from export.graph_file import write_graph
from export.model_card import write_model_card
from export.model_config import write_config, write_tokenizer
from export.packed_graph import PackInitializers
from export.verify import check_graph, check_weights, compare_with_pytorch
from pipeline import __version__, native
from pipeline.artifacts.classifier import (
    TextClassifier,
    encoder_sha256,
    load_encoder,
    load_head,
)
from pipeline.artifacts.exported import (
    MODEL_FILE,
    TOKENIZER_FILE,
    ExportManifest,
    write_export_manifest,
)
from pipeline.artifacts.files import sha256_file, staged_directory
from pipeline.artifacts.manifest import to_json
from pipeline.artifacts.masks import read_masks
from pipeline.artifacts.run import HEAD_FILE, MASKS_FILE, WEIGHTS_FILE, RunManifest, read_run
from pipeline.config import ExportConfig
from pipeline.data import LabelledText, read_labelled_text
from pipeline.environment import package_versions
from pipeline.errors import ArtifactError, ConfigurationError, DataError, ModelError

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
    source = config.run
    assert source is not None
    if config.format == "engine":
        native.library_path()
    console = Console(file=sys.stderr)
    with (
        console.status("reading the run", spinner="line") as status,
        staged_directory(config.output_dir) as directory,
    ):
        run = read_run(source)
        if config.format != "dense" and run.method == "finetune":
            raise ConfigurationError(
                f"--format {config.format} stores pruned weights, and {source} has none (it "
                "was trained with --method finetune); use --format dense"
            )
        _check_hashes(source, run)
        texts = _validation_texts(config, run)
        tokenizer = _load_tokenizer(source)
        classifier, masks = _bake(config, source, run)
        inputs = graph_inputs(tokenizer.model_input_names, classifier)

        status.update("tracing the model")
        model = export_graph(classifier, tuple(masks), inputs, config.opset)
        _describe(model, config, run)
        encodings = dict.fromkeys(masks, "dense")
        engine = None
        if config.format == "packed":
            status.update("packing the weights")
            packing = PackInitializers(masks, _dtype(config))
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
        )
        write_export_manifest(directory, manifest)
        write_model_card(directory, manifest)
    return manifest


def _check_hashes(directory: Path, run: RunManifest) -> None:
    recorded = {
        HEAD_FILE: run.head_sha256,
        MASKS_FILE: run.masks_sha256,
        WEIGHTS_FILE: run.weights_sha256,
    }
    for name, digest in recorded.items():
        if digest is not None and sha256_file(directory / name) != digest:
            raise ArtifactError(
                f"{directory / name} is not the file that the manifest was written for; "
                "copy the run directory again"
            )


def _validation_texts(config: ExportConfig, run: RunManifest) -> LabelledText:
    path = config.validation_file
    flag = "--validation-file"
    if path is None:
        path = Path(run.validation_data.source)
        flag = "the run's validation data"
        if not path.is_file():
            raise DataError(
                f"the run's validation data {path} are not there to compare ONNX Runtime with "
                "PyTorch on; give a file of such texts with --validation-file"
            )
    texts = read_labelled_text(
        path,
        flag=flag,
        text_column=run.task.text_column,
        text_pair_column=run.task.text_pair_column,
        label_column=run.task.label_column,
    )
    return texts.head(config.verification_samples)


def _load_tokenizer(directory: Path) -> Any:
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(directory))
    except Exception as error:  # tokenizers raises plain Exception
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ArtifactError(
            f"{directory}: the tokenizer cannot be loaded ({reason}); copy the run directory again"
        ) from error
    if not tokenizer.is_fast:
        raise ModelError(
            f"{directory}: the tokenizer has no tokenizer.json, which the exported model needs; "
            "choose a base model with a fast tokenizer"
        )
    return tokenizer


def _bake(
    config: ExportConfig, directory: Path, run: RunManifest
) -> tuple[TextClassifier, dict[str, NDArray[np.bool_]]]:
    """The classifier with final weights, and the masks that are in them (none for finetune)."""
    model = config.model or run.base_model.id
    revision = run.base_model.revision if model == run.base_model.id else None
    encoder = load_encoder(model, revision=revision)
    digest = encoder_sha256(encoder)
    if digest != run.base_model.sha256:
        raise ModelError(
            f"--model {model} has weights of hash {digest[:12]}, the run {directory} belongs to "
            f"{run.base_model.id} with hash {run.base_model.sha256[:12]}; give that model"
        )
    masks: dict[str, NDArray[np.bool_]] = {}
    if run.method == "finetune":
        load_weights(encoder, directory / WEIGHTS_FILE)
    else:
        masks = read_masks(directory / MASKS_FILE)
        _check_densities(directory, run, masks)
        apply_masks(encoder, masks)
    head = load_head(directory / HEAD_FILE, run.head)
    return TextClassifier(encoder, head, run.head).eval(), masks


def _check_densities(
    directory: Path, run: RunManifest, masks: Mapping[str, NDArray[np.bool_]]
) -> None:
    found = {name: (mask.shape, int(np.count_nonzero(mask))) for name, mask in masks.items()}
    recorded = {name: (matrix.shape, matrix.kept) for name, matrix in run.matrices.items()}
    if found != recorded:
        raise ArtifactError(
            f"{directory}: the masks are not those that the manifest describes; "
            "copy the run directory again"
        )


def _dtype(config: ExportConfig) -> type[np.float16] | type[np.float32]:
    return np.float16 if config.weight_values == "fp16" else np.float32


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
