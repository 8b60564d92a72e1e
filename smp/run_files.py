"""The finished run directory: its density figures and its files."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from transformers import PreTrainedModel

from pipeline.artifacts.classifier import TextClassifier
from pipeline.artifacts.files import sha256_file, staged_directory
from pipeline.artifacts.masks import write_masks
from pipeline.artifacts.run import (
    HEAD_FILE,
    MASKS_FILE,
    WEIGHTS_FILE,
    MatrixDensity,
    RunManifest,
    trains_weights,
    write_run_manifest,
)
from smp.architectures import PrunedMatrix

__all__ = ["Masks", "local_path_or_hub_id", "matrix_densities", "overall_density", "write_run"]

Masks = Mapping[str, NDArray[np.bool_]]


def overall_density(masks: Masks) -> float:
    """Kept weights over all weights of the pruned matrices; 1 where nothing is pruned."""
    size = sum(mask.size for mask in masks.values())
    return sum(int(np.count_nonzero(mask)) for mask in masks.values()) / size if size else 1.0


def matrix_densities(matrices: Sequence[PrunedMatrix], masks: Masks) -> dict[str, MatrixDensity]:
    """Parameter name -> how much of that matrix its mask keeps, for the matrices with a mask."""
    return {
        matrix.name: MatrixDensity(
            matrix_type=matrix.matrix_type,
            layer=matrix.layer,
            shape=masks[matrix.name].shape,
            kept=int(np.count_nonzero(masks[matrix.name])),
        )
        for matrix in matrices
        if matrix.name in masks
    }


def local_path_or_hub_id(model: str) -> str:
    """The base model as the manifest names it: absolute for a directory, so export finds it."""
    path = Path(model).expanduser()
    return str(path.resolve()) if path.is_dir() else model


def write_run(
    output_dir: Path,
    manifest: RunManifest,
    classifier: TextClassifier,
    tokenizer: Any,
    masks: Masks,
) -> RunManifest:
    """Write the run directory, complete or not at all.

    Args:
        output_dir: where it appears.
        manifest: the manifest, without the files' hashes.
        classifier: the classifier, masks detached.
        tokenizer: its tokenizer.
        masks: parameter name -> mask; empty where nothing is pruned.

    Returns:
        the manifest with the files' hashes.

    Raises:
        ConfigurationError: ``output_dir`` is taken.
        MachineError: the disk is full or not writable.
    """
    with staged_directory(output_dir) as directory:
        tokenizer.save_pretrained(directory)
        head = {n: t.detach().cpu().contiguous() for n, t in classifier.head.state_dict().items()}
        save_file(head, str(directory / HEAD_FILE))
        manifest = dataclasses.replace(manifest, head_sha256=sha256_file(directory / HEAD_FILE))
        if masks:
            write_masks(directory / MASKS_FILE, masks)
            digest = sha256_file(directory / MASKS_FILE)
            manifest = dataclasses.replace(manifest, masks_sha256=digest)
        if trains_weights(manifest.method):
            save_file(_weights(classifier.encoder), str(directory / WEIGHTS_FILE))
            digest = sha256_file(directory / WEIGHTS_FILE)
            manifest = dataclasses.replace(manifest, weights_sha256=digest)
        write_run_manifest(directory, manifest)
    return manifest


def _weights(encoder: PreTrainedModel) -> dict[str, torch.Tensor]:
    named = encoder.named_parameters()
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in named}
