"""Which engine is called what."""

from pipeline.config.bench import PeerName
from pipeline.errors import ConfigurationError
from serve.peers.check import EXACT, ROUNDED
from serve.peers.onnxruntime_int8 import open_onnxruntime_int8
from serve.peers.openvino import open_openvino
from serve.peers.peer import LoadPytorch, Peer, need_packages
from serve.session import Session

__all__ = ["open_peer"]


def open_peer(
    name: PeerName, first: Session, pytorch_model: str | None, load_pytorch: LoadPytorch | None
) -> Peer:
    """Open the first model on another engine, with as many threads.

    Args:
        name: the engine.
        first: the first model.
        pytorch_model: what the engines of PyTorch load.
        load_pytorch: how they load it; None where nobody can.

    Raises:
        ArtifactError, ModelError: the engine cannot read the model.
        ConfigurationError: the engine has no use for this model, or ``pytorch_model`` is missing.
        MachineError: its package is missing.
    """
    if name == "onnxruntime-int8":
        return open_onnxruntime_int8(first)
    if name == "openvino":
        return open_openvino(first)
    path = first.layout.source.path
    if pytorch_model is None or load_pytorch is None:
        raise ConfigurationError(
            f"--peers {name} needs --pytorch-model: the run directory that {path} "
            "was exported from, or the Hugging Face model that it was made from"
        )
    if first.task is None:
        raise ConfigurationError(
            f"--peers {name} needs a first model whose output is logits, one vector a text; "
            f"{path} has another output"
        )
    versions = need_packages(name, "torch", "transformers", extra="train")
    run = load_pytorch(
        pytorch_model,
        kind=first.task.kind,
        threads=first.threads,
        compiled=name == "pytorch-compiled",
    )
    manifest = first.manifest
    exact = manifest is None or {manifest.values, manifest.embeddings} == {"fp32"}
    tolerance = EXACT if exact and first.layout.format != "engine" else ROUNDED
    return Peer(run, pytorch_model, "cpu", None, None, versions, tolerance)
