"""The choice of device and arithmetic."""

import pytest
import torch

from pipeline.errors import ConfigurationError, MachineError
from smp.device import choose_device, choose_precision, refuse_sharding

CPU = torch.device("cpu")


def test_cpu_is_there_always():
    assert choose_device("cpu") == CPU


def test_auto_takes_the_gpu_exactly_where_there_is_one():
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_refused():
    with pytest.raises(MachineError, match="--device cuda: this torch sees no GPU"):
        choose_device("cuda")


def test_fp16_on_a_cpu_is_refused():
    with pytest.raises(ConfigurationError, match="--precision fp16 needs a GPU"):
        choose_precision("fp16", CPU)


def test_what_was_asked_for_is_taken():
    assert choose_precision("bf16", CPU) == "bf16"
    assert choose_precision("fp32", CPU) == "fp32"
    assert choose_precision("auto", CPU) in ("fp32", "bf16")


@pytest.mark.parametrize(
    ("variable", "name"),
    [
        ("FSDP", "FSDP"),
        ("DEEPSPEED", "DeepSpeed"),
        ("MEGATRON_LM", "Megatron-LM"),
        ("PARALLELISM_CONFIG", "accelerate's parallelism configuration"),
    ],
)
def test_launchers_that_shard_are_refused(monkeypatch, variable, name):
    refuse_sharding()
    monkeypatch.setenv(f"ACCELERATE_USE_{variable}", "true")
    with pytest.raises(ConfigurationError, match=f"{name} shards the scores"):
        refuse_sharding()
