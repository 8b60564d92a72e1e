"""A trained run, out of its directory, with its base model: what is exported, or teaches."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import AutoTokenizer, PreTrainedModel

from pipeline.artifacts.bake import apply_masks, load_weights
from pipeline.artifacts.base_model import load_base_encoder
from pipeline.artifacts.classifier import TextClassifier, load_head
from pipeline.artifacts.files import sha256_file
from pipeline.artifacts.masks import read_masks
from pipeline.artifacts.run import (
    HEAD_FILE,
    MASKS_FILE,
    WEIGHTS_FILE,
    RunManifest,
    prunes,
    trains_weights,
)
from pipeline.errors import ArtifactError, ModelError, first_line

__all__ = [
    "TrainedModel",
    "check_densities",
    "check_files",
    "check_length",
    "load_run",
    "load_tokenizer",
]


@dataclass
class TrainedModel:
    """A run's tokenizer and its classifier, as it predicts.

    Attributes:
        tokenizer: a fast tokenizer of transformers.
        classifier: with final weights, in evaluation mode.
        masks: parameter name in the encoder -> bool array of the weight's shape, as they are in
            the classifier's weights; none for finetune.
    """

    tokenizer: Any
    classifier: TextClassifier
    masks: dict[str, NDArray[np.bool_]]


def load_run(
    directory: Path, run: RunManifest, *, model: str | None, flag: str = "--model"
) -> TrainedModel:
    """Load a run's files and its base model, put its weights in, and multiply the masks in.

    Args:
        directory: the run directory.
        run: its manifest.
        model: the base model, if it is not where the run says.
        flag: what names the base model, for messages.

    Raises:
        ArtifactError: the run directory is incomplete, corrupt, or was changed.
        ModelError: the base model is missing, or another one.
    """
    check_files(directory, run)
    tokenizer = load_tokenizer(directory)
    encoder = load_base_encoder(run.base_model, model, owner=f"the run {directory}", flag=flag)
    check_length(directory, run, encoder)
    masks: dict[str, NDArray[np.bool_]] = {}
    if trains_weights(run.method):
        load_weights(encoder, directory / WEIGHTS_FILE)
    if prunes(run.method):
        masks = read_masks(directory / MASKS_FILE)
        check_densities(directory, run, masks)
        apply_masks(encoder, masks)
    head = load_head(directory / HEAD_FILE, run.head)
    return TrainedModel(tokenizer, TextClassifier(encoder, head, run.head).eval(), masks)


def check_files(directory: Path, run: RunManifest) -> None:
    """Check that a run's files have the hashes of its manifest.

    Raises:
        ArtifactError: one has another.
    """
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


def load_tokenizer(directory: Path) -> Any:
    """Load the tokenizer of a run directory.

    Raises:
        ArtifactError: it cannot be loaded.
        ModelError: it is no fast one.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(directory), trust_remote_code=False)
    except Exception as error:  # tokenizers raises plain Exception
        reason = first_line(error)
        raise ArtifactError(
            f"{directory}: the tokenizer cannot be loaded ({reason}); copy the run directory again"
        ) from error
    if not tokenizer.is_fast:
        raise ModelError(
            f"{directory}: the tokenizer has no tokenizer.json, which the exported model needs; "
            "choose a base model with a fast tokenizer"
        )
    return tokenizer


def check_length(directory: Path, run: RunManifest, encoder: PreTrainedModel) -> None:
    """Check that the encoder takes texts as long as a run's manifest says.

    Raises:
        ArtifactError: it does not.
    """
    longest = int(encoder.config.max_position_embeddings)
    if not 0 < run.task.max_length <= longest:
        raise ArtifactError(
            f"{directory}: its manifest has texts of up to {run.task.max_length} tokens, the base "
            f"model takes 1 to {longest}; copy the directory again"
        )


def check_densities(
    directory: Path, run: RunManifest, masks: Mapping[str, NDArray[np.bool_]]
) -> None:
    """Check that masks have the names, shapes, counts and overall density of a run's manifest.

    Raises:
        ArtifactError: they have others.
    """
    found = {name: (mask.shape, int(np.count_nonzero(mask))) for name, mask in masks.items()}
    recorded = {name: (matrix.shape, matrix.kept) for name, matrix in run.matrices.items()}
    size = sum(mask.size for mask in masks.values())
    density = sum(kept for _, kept in found.values()) / max(1, size)
    if found != recorded or not math.isclose(density, run.density, rel_tol=1e-6):
        raise ArtifactError(
            f"{directory}: the masks are not those that the manifest describes; "
            "copy the directory again"
        )
