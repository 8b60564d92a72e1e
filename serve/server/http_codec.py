"""Inference requests and answers as HTTP bodies: JSON, followed by binary tensors where asked for.

Source: the Open Inference Protocol over HTTP, with its binary tensor data extension.
"""

import itertools
import math
from collections.abc import Mapping
from functools import cache
from types import GenericAlias
from typing import Annotated, Any, NamedTuple, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from serve.server.errors import InvalidRequest
from serve.server.http_bodies import (
    DATATYPES,
    JsonInferRequest,
    JsonInferResponse,
    JsonInput,
    JsonOutput,
)
from serve.server.protocol import DTYPES, InferRequest, InferResponse, Tensor
from serve.server.raw_tensors import decode_raw, encode_raw

__all__ = [
    "BinaryOutputs",
    "decode_infer_request",
    "decode_json",
    "encode_infer_response",
]


class BinaryOutputs(NamedTuple):
    """Which outputs the client wants as binary data.

    Attributes:
        default: whether it wants those that it did not name.
        named: by name.
    """

    default: bool
    named: Mapping[str, bool]


_Decoded = TypeVar("_Decoded")

_REQUEST = msgspec.json.Decoder(JsonInferRequest)
_ENCODER = msgspec.json.Encoder()


def decode_infer_request(
    model: str,
    version: str,
    body: bytes,
    json_length: bytes | None,
    *,
    max_texts: int | None = None,
) -> tuple[InferRequest, BinaryOutputs]:
    """Read the body of an inference request.

    Args:
        model: the model's name, from the path.
        version: the model's version, from the path; may be empty.
        body: the whole body.
        json_length: the header Inference-Header-Content-Length, if there is one.
        max_texts: elements that a BYTES tensor in binary may have.

    Raises:
        InvalidRequest: the body is not such a request.
        TooLarge: a BYTES tensor in binary has more elements than ``max_texts``.
    """
    binary = memoryview(b"")
    if json_length is not None:
        length = _json_length(json_length, len(body))
        binary = memoryview(body)[length:]
        body = body[:length]
    request = decode_json(_REQUEST, body, "the body")
    inputs = {}
    position = 0
    for given in request.inputs:
        size = _binary_size(given)
        if size is None:
            tensor = _decode_json_tensor(given)
        else:
            if position + size > len(binary):
                raise InvalidRequest(
                    f"input {given.name} has binary_data_size {size}, of which "
                    f"{len(binary) - position} bytes follow the JSON; check the header "
                    "Inference-Header-Content-Length"
                )
            data = binary[position : position + size]
            tensor = decode_raw(given.name, given.datatype, given.shape, data, max_texts=max_texts)
            position += size
        if given.name in inputs:
            raise InvalidRequest(f"input {given.name} is given twice")
        inputs[given.name] = tensor
    if position != len(binary):
        raise InvalidRequest(
            f"{len(binary)} bytes of binary data follow the JSON, and the inputs' binary_data_size "
            f"adds up to {position}"
        )
    outputs, binary_outputs = _requested_outputs(request)
    return InferRequest(model, version, request.id, inputs, outputs), binary_outputs


def encode_infer_response(
    response: InferResponse, binary: BinaryOutputs
) -> tuple[bytes, int | None]:
    """The body of an answer, and the length of its JSON where binary data follows it."""
    outputs = []
    parts = []
    for tensor in response.outputs:
        output = JsonOutput(tensor.name, tensor.datatype, tensor.shape)
        if binary.named.get(tensor.name, binary.default):
            part = encode_raw(tensor)
            parts.append(part)
            output.parameters = {"binary_data_size": len(part)}
        else:
            output.data = _json_data(tensor.data)
        outputs.append(output)
    head = _ENCODER.encode(
        JsonInferResponse(response.model, response.version, outputs, response.id)
    )
    if not parts:
        return head, None
    return b"".join((head, *parts)), len(head)


def decode_json(decoder: msgspec.json.Decoder[_Decoded], data: Any, what: str) -> _Decoded:
    """Read JSON of a client.

    Args:
        decoder: knows what it must look like.
        data: the bytes.
        what: what they are, for messages.

    Raises:
        InvalidRequest: it is no JSON, or looks otherwise.
    """
    try:
        return decoder.decode(data)
    except msgspec.DecodeError as error:
        raise InvalidRequest(f"{what}: {error}") from error
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"{what} is not UTF-8 (byte {error.start} of a text)") from error
    except RecursionError as error:
        raise InvalidRequest(f"{what} is nested too deeply") from error


def _json_length(header: bytes, body_length: int) -> int:
    # int() alone would take signs, spaces, underscores and thousands of digits.
    if not header.isdigit() or len(header) > 18 or int(header) > body_length:
        raise InvalidRequest(
            "the header Inference-Header-Content-Length must be the number of bytes of JSON at the "
            f"start of the body, from 0 to {body_length}"
        )
    return int(header)


def _binary_size(given: JsonInput) -> int | None:
    if given.parameters is None:
        return None
    if given.parameters.shared_memory_region is not None:
        raise InvalidRequest(
            f"input {given.name} is in shared memory, which this server does not read; send it"
        )
    size = given.parameters.binary_data_size
    if size is None:
        return None
    if memoryview(given.data):
        raise InvalidRequest(f"input {given.name} has data and binary_data_size; give one of them")
    return size


def _requested_outputs(request: JsonInferRequest) -> tuple[tuple[str, ...], BinaryOutputs]:
    default = request.parameters is not None and request.parameters.binary_data_output
    named = {}
    for output in request.outputs:
        if output.name in named:
            raise InvalidRequest(f"output {output.name} is asked for twice")
        named[output.name] = default
        if output.parameters is None:
            continue
        if output.parameters.shared_memory_region is not None:
            raise InvalidRequest(
                f"output {output.name} is to go to shared memory, which this server does not "
                "write; leave shared_memory_region out"
            )
        if output.parameters.classification is not None:
            raise InvalidRequest(
                f"output {output.name}: the parameter classification is not supported; ask for the "
                "outputs label and probabilities"
            )
        if output.parameters.binary_data is not None:
            named[output.name] = output.parameters.binary_data
    return tuple(named), BinaryOutputs(default, named)


def _decode_json_tensor(given: JsonInput) -> Tensor:
    name, datatype, shape = given.name, given.datatype, given.shape
    count = math.prod(shape)
    view = memoryview(given.data)
    if not view:
        raise InvalidRequest(f"input {name} has no data")
    # A flat array's first element is no array; one of one dimension is flat in any case.
    nested = len(shape) > 1 and view[1:].tobytes().lstrip()[:1] == b"["
    if datatype not in DATATYPES:
        raise InvalidRequest(
            f"input {name} has the unknown datatype {datatype!r}; known are {', '.join(DATATYPES)}"
        )
    decoder = _data_decoder(datatype, len(shape) if nested else 1)
    values = decode_json(decoder, given.data, f"data of input {name}")
    if nested:
        values = _flatten(values, given)
    if len(values) != count:
        raise InvalidRequest(
            f"input {name} has {len(values)} elements; its shape {shape} takes {count}"
        )
    data = values if datatype == "BYTES" else _array(values, given)
    return Tensor(name, datatype, tuple(shape), data)


def _flatten(values: list[Any], given: JsonInput) -> list[Any]:
    """The elements of nested lists in row-major order; the lists must have the input's shape."""
    parts = [values]
    for size in given.shape:
        if any(len(part) != size for part in parts):
            raise InvalidRequest(
                f"data of input {given.name} is not nested as its shape {given.shape} says"
            )
        parts = list(itertools.chain.from_iterable(parts))
    return parts


@cache
def _data_decoder(datatype: str, rank: int) -> msgspec.json.Decoder[list[Any]]:
    kind = _element_type(datatype)
    for _ in range(rank):
        kind = GenericAlias(list, (kind,))
    return msgspec.json.Decoder(kind)


def _element_type(datatype: str) -> Any:
    if datatype == "BYTES":
        return str
    dtype = DTYPES[datatype]
    if dtype.kind == "b":
        return bool
    if dtype.kind == "f":
        return float
    limits = np.iinfo(dtype)
    # msgspec has no bounds beyond 64 bits with sign; numpy refuses what UINT64 does not hold.
    high = None if datatype == "UINT64" else int(limits.max)
    return Annotated[int, msgspec.Meta(ge=int(limits.min), le=high)]


def _array(values: list[Any], given: JsonInput) -> NDArray[Any]:
    dtype = DTYPES[given.datatype]
    try:
        with np.errstate(over="ignore"):
            array = np.array(values, dtype).reshape(given.shape)
    except (OverflowError, ValueError) as error:
        raise InvalidRequest(
            f"input {given.name} cannot be {given.datatype} of the shape {given.shape}: {error}"
        ) from error
    if dtype.kind == "f" and not np.isfinite(array).all():
        raise InvalidRequest(
            f"input {given.name} has a number that is too large for {given.datatype}"
        )
    return array


def _json_data(data: list[str] | NDArray[Any]) -> list[Any]:
    if isinstance(data, list):
        return data
    if data.dtype.itemsize < 8 and data.dtype.kind == "f":
        # Nine digits read back as the same float32; numpy's shortest decimals take 3 us each.
        return [float(f"{value:.9g}") for value in data.ravel().tolist()]
    values: list[Any] = data.ravel().tolist()
    return values
