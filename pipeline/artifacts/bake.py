"""Baking: masks multiplied into a plain encoder, and trained weights put in."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from pipeline.errors import ArtifactError, ModelError

__all__ = ["apply_masks", "load_weights"]


def apply_masks(encoder: nn.Module, masks: Mapping[str, NDArray[np.bool_]]) -> None:
    """Set the weights that the masks remove to zero, in place.

    Args:
        encoder: the plain encoder.
        masks: parameter name -> bool array of the weight's shape, True where it is kept.

    Raises:
        ModelError: a mask belongs to another architecture or size of model.
    """
    parameters = dict(encoder.named_parameters())
    for name, mask in masks.items():
        if name not in parameters:
            raise ModelError(
                f"the run's masks name {name}, which the base model does not have; "
                "give the model of the run with --model"
            )
        shape = tuple(parameters[name].shape)
        if shape != mask.shape:
            raise ModelError(
                f"the mask of {name} has shape {mask.shape}, the base model's weight {shape}; "
                "give the model of the run with --model"
            )
    with torch.no_grad():
        for name, mask in masks.items():
            parameters[name].mul_(torch.from_numpy(mask))


def load_weights(encoder: nn.Module, path: Path) -> None:
    """Load ``weights.safetensors`` of a run that trained them into an encoder, in place.

    Raises:
        ArtifactError: the file is truncated, corrupt, or does not fit the encoder.
    """
    try:
        tensors = load_file(str(path))
    except (SafetensorError, OSError) as error:
        raise ArtifactError(f"{path} is truncated or corrupt ({error}); train again") from error
    parameters = dict(encoder.named_parameters())
    expected = {name: tuple(tensor.shape) for name, tensor in parameters.items()}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if found != expected:
        different = sorted(dict(found.items() ^ expected.items()))
        raise ArtifactError(
            f"{path} does not fit the base model ({different[0]} is missing, too many, or of "
            "another shape); give the model of the run with --model, or train again"
        )
    with torch.no_grad():
        for name, tensor in tensors.items():
            parameters[name].copy_(tensor)
