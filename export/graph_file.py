"""ONNX files: read whatever a user gives; write one file, or two where one cannot hold the weights.

The second file, model.onnx.data beside model.onnx, has the raw bytes of all tensors of 1 KiB or
more in the order of the graph. Each starts at a multiple of 4096 bytes, so that ONNX Runtime can
map it into memory.
"""

import math
from pathlib import Path
from typing import TypeVar

import onnx
import onnx_ir as ir

from pipeline.errors import ArtifactError, ModelError, first_line

__all__ = ["read_graph", "write_graph"]

_Message = TypeVar("_Message", onnx.ModelProto, onnx.GraphProto)

# Protobuf's limit of one message, and so of one ONNX file, less some room for names and nodes.
_LARGEST_FILE_BYTES = 2**31 - 2**26
# Smaller tensors stay in model.onnx: shapes and axes are among them, which checkers look at.
_SMALLEST_EXTERNAL_BYTES = 1024
_ALIGNMENT_BYTES = 4096


def read_graph(path: Path) -> onnx.ModelProto:
    """Read an ONNX file with all its weights, also those in files beside it.

    Raises:
        ArtifactError: it is missing, no ONNX file, lacks weights, or takes them from outside of
            its directory.
    """
    if path.is_dir():
        raise ArtifactError(f"{path} is a directory; give the ONNX file in it")
    try:
        model = onnx.load(str(path), load_external_data=False)
    except FileNotFoundError as error:
        raise ArtifactError(f"{path} is missing; give an ONNX file with its data") from error
    except Exception as error:  # protobuf's and onnx's errors share no other base
        raise ArtifactError(
            f"{path} is no ONNX file, or is damaged ({first_line(error)})"
        ) from error
    if not model.graph.node:
        raise ArtifactError(f"{path} is no ONNX file, or has no graph")
    try:
        # Refuses links, and locations that are absolute or lead out of the directory.
        onnx.load_external_data_for_model(model, str(path.parent))
    except Exception as error:  # onnx's errors share no other base
        raise ArtifactError(
            f"{path} needs files of weights in its own directory ({first_line(error)}); give an "
            "ONNX file with its data"
        ) from error
    for tensor in model.graph.initializer:
        _check_size(path, tensor)
    return model


def _check_size(path: Path, tensor: onnx.TensorProto) -> None:
    """Compare a tensor's bytes with its shape: nothing that is read later checks that."""
    if not tensor.HasField("raw_data"):
        return
    expected = _size_bytes(tensor)
    found = len(tensor.raw_data)
    if found != expected:
        raise ArtifactError(
            f"{path} is damaged: {tensor.name} of shape {list(tensor.dims)} takes {expected} "
            f"bytes, got {found}; give the original file with its data"
        )


def _size_bytes(tensor: onnx.TensorProto) -> int:
    """Bytes of a tensor's data by its shape: protobuf cannot measure what is over its limit."""
    try:
        item_bytes = ir.DataType(tensor.data_type).itemsize
    except (TypeError, ValueError):  # strings, which are never raw, or a number without a type
        return 0
    elements: int = math.prod(tensor.dims)
    return math.ceil(elements * item_bytes)


def write_graph(model: onnx.ModelProto, path: Path) -> bool:
    """Write a model; the same model gives the same bytes.

    Args:
        model: the model; its tensors hold their data themselves.
        path: the ONNX file. If that would be too large, the weights go into ``PATH.data``.

    Returns:
        Whether there is such a second file.

    Raises:
        ModelError: its sparse tensors, which cannot go there, are too large for one file.
    """
    graph = model.graph
    sparse_bytes = sum(
        _size_bytes(part)
        for tensor in graph.sparse_initializer
        for part in (tensor.values, tensor.indices)
    )
    if sparse_bytes > _LARGEST_FILE_BYTES:
        raise ModelError(
            f"the graph has {sparse_bytes / 2**30:.1f} GiB of sparse tensors, one ONNX file holds "
            "2 GiB, and they cannot lie in a second one; use --format packed"
        )
    dense_bytes = sum(_size_bytes(tensor) for tensor in graph.initializer)
    external = sparse_bytes + dense_bytes > _LARGEST_FILE_BYTES
    if external:
        model = _move_weights(model, path.with_name(f"{path.name}.data"))
    path.write_bytes(model.SerializeToString(deterministic=True))
    return external


def _move_weights(model: onnx.ModelProto, data_path: Path) -> onnx.ModelProto:
    """Write the data of large tensors into a file; a copy of the model that refers to it."""
    moved = onnx.ModelProto()
    _copy_fields(model, moved, leave_out="graph")
    _copy_fields(model.graph, moved.graph, leave_out="initializer")
    with data_path.open("wb") as file:
        for tensor in model.graph.initializer:
            content = b""  # text stays inside
            if tensor.data_type != onnx.TensorProto.STRING:
                content = ir.serde.deserialize_tensor(tensor).tobytes()
            if len(content) < _SMALLEST_EXTERNAL_BYTES:
                moved.graph.initializer.append(tensor)
                continue
            file.write(bytes(-file.tell() % _ALIGNMENT_BYTES))
            reference = moved.graph.initializer.add(
                name=tensor.name,
                data_type=tensor.data_type,
                dims=tensor.dims,
                data_location=onnx.TensorProto.EXTERNAL,
            )
            place = {"location": data_path.name, "offset": file.tell(), "length": len(content)}
            for key, value in place.items():
                reference.external_data.add(key=key, value=str(value))
            file.write(content)
    return moved


def _copy_fields(source: _Message, target: _Message, *, leave_out: str) -> None:
    """Copy all fields of a message but one: a whole copy would hold the weights twice."""
    for field, value in source.ListFields():
        if field.name == leave_out:
            continue
        if isinstance(value, (str, int)):
            setattr(target, field.name, value)
        elif hasattr(value, "extend"):
            getattr(target, field.name).extend(value)
        else:
            getattr(target, field.name).CopyFrom(value)
