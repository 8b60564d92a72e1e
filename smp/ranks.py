"""Data-parallel processes keep scores and masks of their own: whether these are the same in all."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed

from pipeline.errors import ConfigurationError, MachineError

__all__ = ["check_same_inputs", "check_same_masks", "mask_digest", "ranks_agree"]


def ranks_agree(digest: bytes, device: torch.device) -> bool:
    """Whether all processes gave the same bytes; every one of them gets the same answer.

    Args:
        digest: as long in all processes.
        device: where the processes exchange tensors.
    """
    if not distributed.is_initialized() or distributed.get_world_size() == 1:
        return True
    own = torch.frombuffer(bytearray(digest), dtype=torch.uint8).to(device)
    gathered = [torch.empty_like(own) for _ in range(distributed.get_world_size())]
    distributed.all_gather(gathered, own)
    return all(torch.equal(other, gathered[0]) for other in gathered)


def mask_digest(masks: Mapping[str, Tensor]) -> bytes:
    """A SHA-256 over names and bits of masks, 32 bytes."""
    digest = hashlib.sha256()
    for name in sorted(masks):
        digest.update(name.encode() + b"\0")
        digest.update(np.packbits(masks[name].numpy()).tobytes())
    return digest.digest()


def check_same_inputs(inputs: Mapping[str, Any], device: torch.device) -> None:
    """Check that all processes were started with the same settings, model and files.

    Args:
        inputs: settings and hashes, as plain JSON types.
        device: where the processes exchange tensors.

    Raises:
        ConfigurationError: they were not.
    """
    text = json.dumps(inputs, sort_keys=True)
    if not ranks_agree(hashlib.sha256(text.encode()).digest(), device):
        raise ConfigurationError(
            "the processes of this run have different flags, models or data files; start the same "
            "command with the same files on every host"
        )


def check_same_masks(masks: Mapping[str, Tensor], device: torch.device, *, step: int) -> None:
    """Check that all processes have the same masks, to the bit.

    Args:
        masks: parameter name -> bool mask, on the CPU.
        device: where the processes exchange tensors.
        step: finished optimiser steps, for the message.

    Raises:
        MachineError: they have not.
    """
    if not ranks_agree(mask_digest(masks), device):
        raise MachineError(
            f"the masks of the processes differ after step {step}: their devices or packages "
            "compute differently; use one kind of GPU and one version of PyTorch on all hosts, "
            "then train again"
        )
