"""Where to train, and in which arithmetic."""

import os
from typing import Literal

import torch

from pipeline.errors import ConfigurationError, MachineError

__all__ = ["choose_device", "choose_precision", "device_name", "refuse_sharding"]

_SHARDING = {
    "ACCELERATE_USE_FSDP": "FSDP",
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "accelerate's parallelism configuration",
}


def refuse_sharding() -> None:
    """Refuse launchers that shard parameters: masks are chosen among whole matrices.

    ``accelerate launch`` tells its processes by environment variables, whether it was told by flags
    or by its configuration file.

    Raises:
        ConfigurationError: accelerate was configured to shard.
    """
    for variable, name in _SHARDING.items():
        if os.environ.get(variable, "false").lower() == "true":
            raise ConfigurationError(
                f"{name} shards the scores that masks are computed from; "
                "use torchrun or accelerate's plain multi-GPU mode"
            )


def choose_device(asked: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """The device that was asked for, or the GPU where there is one: the process's own of several.

    Raises:
        MachineError: cuda was asked for and is not there.
    """
    there = torch.cuda.is_available()
    if asked == "cuda" and not there:
        raise MachineError(
            "--device cuda: this torch sees no GPU; use --device cpu or install torch with CUDA"
        )
    if not there or asked == "cpu":
        return torch.device("cpu")
    # Before Trainer gives each process of a launcher its own, "cuda" is the first GPU for all.
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())


def device_name(device: torch.device) -> str:
    """The device as the manifest records it: ``cpu``, or the GPU's name."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


def choose_precision(
    asked: Literal["auto", "fp32", "bf16", "fp16"], device: torch.device
) -> Literal["fp32", "bf16", "fp16"]:
    """The arithmetic that was asked for; for auto, bf16 where the device has it in hardware.

    Raises:
        ConfigurationError: fp16 on a CPU, which would only be slow.
    """
    if asked == "fp16" and device.type == "cpu":
        raise ConfigurationError("--precision fp16 needs a GPU; use bf16 or fp32 on a CPU")
    if asked != "auto":
        return asked
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if torch.cpu._is_avx512_bf16_supported() else "fp32"
