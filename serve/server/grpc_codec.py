"""The protocol's messages <-> the messages of its gRPC service."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2 as messages

from serve.server.errors import InvalidRequest, TooLarge
from serve.server.protocol import (
    DTYPES,
    MAX_TENSORS,
    IndexEntry,
    InferRequest,
    InferResponse,
    ModelMetadata,
    ServerMetadata,
    Tensor,
    TensorMetadata,
)
from serve.server.raw_tensors import count_elements, decode_raw, decode_text, encode_raw, reshape

__all__ = [
    "read_infer_request",
    "write_index",
    "write_infer_response",
    "write_model_metadata",
    "write_server_metadata",
]

# Datatype -> the field of InferTensorContents with its elements; FP16 has none.
_CONTENTS: Mapping[str, str] = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}

# Parameters of a tensor that would change what it means; all others may be left out.
_UNSUPPORTED = ("shared_memory_region", "classification")


def read_infer_request(message: Any, *, max_texts: int) -> InferRequest:
    """Read a request, whose tensors are either all raw or all in their contents.

    Args:
        message: a ``ModelInferRequest``.
        max_texts: elements that a BYTES tensor may have.

    Raises:
        InvalidRequest: its tensors are not what their datatypes and shapes say.
        TooLarge: a BYTES tensor has more elements than ``max_texts``.
    """
    entries = message.inputs
    raw = message.raw_input_contents
    if max(len(entries), len(message.outputs)) > MAX_TENSORS:
        raise InvalidRequest(
            f"{len(entries)} inputs and {len(message.outputs)} outputs; a request has at most "
            f"{MAX_TENSORS} of each"
        )
    if raw and len(raw) != len(entries):
        raise InvalidRequest(
            f"{len(entries)} inputs and {len(raw)} raw_input_contents; give one for each"
        )
    inputs = {}
    for index, entry in enumerate(entries):
        name = entry.name
        _check_parameters(name, entry.parameters)
        if not raw:
            tensor = _read_contents(entry, max_texts)
        elif entry.HasField("contents") and entry.contents.ListFields():
            raise InvalidRequest(
                f"{name} has contents beside raw_input_contents; give one of the two"
            )
        else:
            tensor = decode_raw(
                name, entry.datatype, tuple(entry.shape), raw[index], max_texts=max_texts
            )
        if name in inputs:
            raise InvalidRequest(f"the input {name!r} is given twice")
        inputs[name] = tensor
    outputs: list[str] = []
    for entry in message.outputs:
        name = entry.name
        _check_parameters(name, entry.parameters)
        if name in outputs:
            raise InvalidRequest(f"the output {name!r} is asked for twice")
        outputs.append(name)
    return InferRequest(
        message.model_name, message.model_version, message.id, inputs, tuple(outputs)
    )


def write_infer_response(response: InferResponse) -> Any:
    """Write an answer as a ``ModelInferResponse`` with raw contents."""
    return messages.ModelInferResponse(
        model_name=response.model,
        model_version=response.version,
        id=response.id,
        outputs=[
            messages.ModelInferResponse.InferOutputTensor(
                name=tensor.name, datatype=tensor.datatype, shape=tensor.shape
            )
            for tensor in response.outputs
        ],
        raw_output_contents=[encode_raw(tensor) for tensor in response.outputs],
    )


def write_server_metadata(metadata: ServerMetadata) -> Any:
    """Write a ``ServerMetadataResponse``."""
    return messages.ServerMetadataResponse(
        name=metadata.name, version=metadata.version, extensions=metadata.extensions
    )


def write_model_metadata(metadata: ModelMetadata) -> Any:
    """Write a ``ModelMetadataResponse``, which has no place for the parameters."""
    return messages.ModelMetadataResponse(
        name=metadata.name,
        versions=metadata.versions,
        platform=metadata.platform,
        inputs=_write_tensors(metadata.inputs),
        outputs=_write_tensors(metadata.outputs),
    )


def write_index(entries: Iterable[IndexEntry]) -> Any:
    """Write a ``RepositoryIndexResponse``."""
    return messages.RepositoryIndexResponse(
        models=[
            messages.RepositoryIndexResponse.ModelIndex(
                name=entry.name, version=entry.version, state=entry.state, reason=entry.reason
            )
            for entry in entries
        ]
    )


def _write_tensors(tensors: Iterable[TensorMetadata]) -> list[Any]:
    return [
        messages.ModelMetadataResponse.TensorMetadata(
            name=tensor.name, datatype=tensor.datatype, shape=tensor.shape
        )
        for tensor in tensors
    ]


def _check_parameters(tensor: str, parameters: Any) -> None:
    if parameters:
        for name in _UNSUPPORTED:
            if name in parameters:
                raise InvalidRequest(f"{tensor}: this server does not have the parameter {name}")


def _read_contents(entry: Any, max_texts: int) -> Tensor:
    name, datatype, shape = entry.name, entry.datatype, tuple(entry.shape)
    field = _CONTENTS.get(datatype)
    if field is None:
        if datatype in DTYPES:
            raise InvalidRequest(f"{name} of {datatype} must be in raw_input_contents")
        raise InvalidRequest(
            f"{name} has the unknown datatype {datatype!r}; known are BYTES, {', '.join(DTYPES)}"
        )
    wrong = [found.name for found, _ in entry.contents.ListFields() if found.name != field]
    if wrong:
        raise InvalidRequest(f"{name} of {datatype} must be in {field}, is in {wrong[0]}")
    count = count_elements(name, shape)
    elements = getattr(entry.contents, field)
    if len(elements) != count:
        raise InvalidRequest(
            f"{name} has {len(elements)} elements in {field}; the shape {list(shape)} has {count}"
        )
    if datatype == "BYTES":
        if count > max_texts:
            raise TooLarge(f"{count} texts; this server takes {max_texts} in a request")
        texts = [decode_text(name, index, element) for index, element in enumerate(elements)]
        return Tensor(name, datatype, shape, texts)
    return Tensor(name, datatype, shape, _to_array(name, datatype, elements, shape))


def _to_array(name: str, datatype: str, elements: Any, shape: tuple[int, ...]) -> NDArray[Any]:
    dtype = DTYPES[datatype]
    # Integers of 8 and 16 bits come as 32 and must fit.
    kind = dtype.kind
    wide = np.dtype(f"{kind}4") if kind in "iu" and dtype.itemsize < 4 else dtype
    values = np.array(list(elements), dtype=wide)
    narrow = values.astype(dtype, copy=False)
    if wide != dtype and (narrow != values).any():
        raise InvalidRequest(f"{name} has an element that does not fit {datatype}")
    return reshape(name, narrow, shape)
