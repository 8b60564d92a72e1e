"""ONNX files: read whatever a user gives, write one file."""

from pathlib import Path

import onnx

from pipeline.errors import ArtifactError, ModelError

__all__ = ["read_graph", "write_graph"]

# Protobuf's limit of one message, and so of one ONNX file without external data.
_LARGEST_FILE_BYTES = 2**31 - 1


def read_graph(path: Path) -> onnx.ModelProto:
    """Read an ONNX file with all its weights, also those in files beside it.

    Raises:
        ArtifactError: it is missing, no ONNX file, or lacks files with weights.
    """
    if path.is_dir():
        raise ArtifactError(f"{path} is a directory; give the ONNX file in it")
    try:
        model = onnx.load(str(path))
    except FileNotFoundError as error:
        missing = error.filename or path
        raise ArtifactError(f"{missing} is missing; give an ONNX file with its data") from error
    except Exception as error:  # protobuf's and onnx's errors share no other base
        reason = str(error).strip().partition("\n")[0]
        raise ArtifactError(f"{path} is no ONNX file, or is damaged ({reason})") from error
    if not model.graph.node:
        raise ArtifactError(f"{path} is no ONNX file, or has no graph")
    return model


def write_graph(model: onnx.ModelProto, path: Path) -> None:
    """Write a model into one file; the same model gives the same bytes.

    Raises:
        ModelError: it is too large for that.
    """
    size_bytes = sum(tensor.ByteSize() for tensor in model.graph.initializer)
    if size_bytes > _LARGEST_FILE_BYTES:
        raise ModelError(
            f"the graph has {size_bytes / 2**30:.1f} GiB of weights, one ONNX file holds 2 GiB, "
            "and external data are not supported yet; try --format packed or a smaller base model"
        )
    path.write_bytes(model.SerializeToString(deterministic=True))
