"""What is exported: a trained run, out of its directory or of a delta, with its base model."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import AutoTokenizer

from export.bake import apply_masks, load_weights
from pipeline.artifacts.classifier import (
    TextClassifier,
    encoder_sha256,
    load_encoder,
    load_head,
)
from pipeline.artifacts.files import sha256_file
from pipeline.artifacts.masks import read_masks
from pipeline.artifacts.run import HEAD_FILE, MASKS_FILE, WEIGHTS_FILE, RunManifest
from pipeline.errors import ArtifactError, ModelError

__all__ = ["TrainedModel", "load_run"]


@dataclass
class TrainedModel:
    """What a run's ONNX graph is made of.

    Attributes:
        tokenizer: a fast tokenizer of transformers.
        classifier: with final weights, in evaluation mode.
        masks: parameter name in the encoder -> bool array of the weight's shape, as they are in
            the classifier's weights; none for finetune.
    """

    tokenizer: Any
    classifier: TextClassifier
    masks: dict[str, NDArray[np.bool_]]


def load_run(directory: Path, run: RunManifest, *, model: str | None) -> TrainedModel:
    """Load a run's files and its base model, and multiply the masks in.

    Args:
        directory: the run directory.
        run: its manifest.
        model: the base model, if it is not where the run says.

    Raises:
        ArtifactError: the run directory is incomplete, corrupt, or was changed.
        ModelError: the base model is missing, or another one.
    """
    _check_hashes(directory, run)
    tokenizer = _load_tokenizer(directory)
    classifier, masks = _bake(model, directory, run)
    return TrainedModel(tokenizer, classifier, masks)


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
    model: str | None, directory: Path, run: RunManifest
) -> tuple[TextClassifier, dict[str, NDArray[np.bool_]]]:
    """The classifier with final weights, and the masks that are in them (none for finetune)."""
    model = model or run.base_model.id
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
