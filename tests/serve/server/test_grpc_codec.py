import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from tritonclient.grpc import service_pb2 as messages

from serve.server.errors import InvalidRequest, TooLarge
from serve.server.grpc_codec import (
    read_infer_request,
    write_index,
    write_infer_response,
    write_model_metadata,
    write_server_metadata,
)
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

FIELDS = {
    "BOOL": "bool_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    "INT64": "int64_contents",
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
NAMES = st.text(max_size=6)


def read(message: Any, max_texts: int = 1000) -> InferRequest:
    return read_infer_request(message, max_texts=max_texts)


def text_request(*texts: bytes, shape: Sequence[int] | None = None) -> Any:
    message = messages.ModelInferRequest(model_name="reviews")
    tensor = message.inputs.add(name="text", datatype="BYTES", shape=shape or [len(texts)])
    tensor.contents.bytes_contents.extend(texts)
    return message


@st.composite
def tensors(draw: st.DrawFn, name: str, datatypes: Sequence[str] = (*DTYPES, "BYTES")) -> Tensor:
    datatype = draw(st.sampled_from(datatypes))
    shape = draw(arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
    data: Any
    if datatype == "BYTES":
        count = math.prod(shape)
        data = draw(st.lists(st.text(max_size=5), min_size=count, max_size=count))
    else:
        data = draw(arrays.arrays(DTYPES[datatype], shape))
    return Tensor(name, datatype, shape, data)


@st.composite
def inputs(draw: st.DrawFn, datatypes: Sequence[str] = (*DTYPES, "BYTES")) -> list[Tensor]:
    names = draw(st.lists(NAMES, unique=True, max_size=3))
    return [draw(tensors(name, datatypes)) for name in names]


def raw_request(given: Sequence[Tensor]) -> Any:
    """The message as tritonclient makes it."""
    infer_inputs = []
    for tensor in given:
        infer_input = tritonclient.grpc.InferInput(tensor.name, tensor.shape, tensor.datatype)
        values = tensor.data
        if isinstance(values, list):
            values = np.array(values, dtype=np.object_).reshape(tensor.shape)
        infer_input.set_data_from_numpy(values)
        infer_inputs.append(infer_input)
    message = messages.ModelInferRequest(model_name="reviews", model_version="1", id="7")
    for infer_input in infer_inputs:
        message.inputs.append(infer_input._get_tensor())
        message.raw_input_contents.append(infer_input._get_content())
    return message


def typed_request(given: Sequence[Tensor]) -> Any:
    message = messages.ModelInferRequest(model_name="reviews")
    for tensor in given:
        entry = message.inputs.add(
            name=tensor.name, datatype=tensor.datatype, shape=list(tensor.shape)
        )
        elements: Any
        if isinstance(tensor.data, list):
            elements = [text.encode() for text in tensor.data]
        else:
            elements = tensor.data.ravel().tolist()
        getattr(entry.contents, FIELDS[tensor.datatype]).extend(elements)
    return message


def assert_same(left: Tensor, right: Tensor) -> None:
    assert (left.name, left.datatype, left.shape) == (right.name, right.datatype, right.shape)
    if isinstance(left.data, list):
        assert left.data == right.data
    else:
        assert isinstance(right.data, np.ndarray)
        assert (left.data.dtype, left.data.shape) == (right.data.dtype, right.data.shape)
        np.testing.assert_array_equal(left.data, right.data)


@given(inputs())
def test_tensors_of_tritonclient_arrive_as_they_were(given: list[Tensor]) -> None:
    request = read(raw_request(given))
    assert (request.model, request.version, request.id) == ("reviews", "1", "7")
    assert list(request.inputs) == [tensor.name for tensor in given]
    for tensor in given:
        assert_same(request.inputs[tensor.name], tensor)


@given(inputs(tuple(FIELDS)))
def test_typed_contents_arrive_as_they_were(given: list[Tensor]) -> None:
    request = read(typed_request(given))
    assert list(request.inputs) == [tensor.name for tensor in given]
    for tensor in given:
        assert_same(request.inputs[tensor.name], tensor)


@given(inputs())
def test_tritonclient_reads_the_answer(outputs: list[Tensor]) -> None:
    message = write_infer_response(InferResponse("reviews", "1", "7", tuple(outputs)))
    assert (message.model_name, message.model_version, message.id) == ("reviews", "1", "7")
    result = tritonclient.grpc.InferResult(message)
    for output in outputs:
        found = result.as_numpy(output.name)
        assert found is not None
        assert found.shape == output.shape
        if isinstance(output.data, list):
            assert [element.decode() for element in found.ravel()] == output.data
        else:
            np.testing.assert_array_equal(found, output.data)


@given(inputs(tuple(FIELDS)), st.booleans(), st.data())
def test_a_message_with_changed_bytes_is_read_or_refused(
    given: list[Tensor], is_raw: bool, data: st.DataObject
) -> None:
    """Whatever still is a message of this type gives tensors that hold, or an invalid request."""
    encoded = bytearray((raw_request if is_raw else typed_request)(given).SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(encoded)))
        if data.draw(st.booleans()):
            encoded[position : position + 1] = data.draw(st.binary(max_size=3))
        else:
            del encoded[position : position + data.draw(st.integers(0, 4))]
    try:
        message = messages.ModelInferRequest.FromString(bytes(encoded))
    except DecodeError:
        return
    try:
        request = read(message)
    except InvalidRequest:
        return
    for name, tensor in request.inputs.items():
        assert name == tensor.name
        if isinstance(tensor.data, list):
            assert len(tensor.data) == math.prod(tensor.shape)
        else:
            assert tensor.data.shape == tensor.shape
            assert tensor.data.dtype == DTYPES[tensor.datatype]


@given(
    st.lists(
        st.builds(
            messages.ModelInferRequest.InferInputTensor,
            name=NAMES,
            datatype=st.sampled_from([*DTYPES, "BYTES", "INT65", ""]),
            shape=st.lists(st.integers(-3, 3) | st.integers(-(2**63), 2**63 - 1), max_size=3),
            contents=st.none()
            | st.builds(
                messages.InferTensorContents,
                bool_contents=st.lists(st.booleans(), max_size=2),
                int_contents=st.lists(st.integers(-(2**31), 2**31 - 1), max_size=4),
                int64_contents=st.lists(st.integers(-(2**63), 2**63 - 1), max_size=2),
                fp32_contents=st.lists(st.floats(width=32), max_size=2),
                bytes_contents=st.lists(st.binary(max_size=4), max_size=4),
            ),
        ),
        max_size=3,
    ),
    st.lists(st.binary(max_size=12), max_size=3),
)
def test_any_message_is_read_or_refused(entries: list[Any], raw: list[bytes]) -> None:
    message = messages.ModelInferRequest(inputs=entries, raw_input_contents=raw)
    try:
        request = read(message)
    except (InvalidRequest, TooLarge):
        return
    assert len(request.inputs) == len(entries)


def with_input(**fields: Any) -> Any:
    message = text_request(b"good")
    message.inputs.add(**fields)
    return message


def also_raw(message: Any, *raw: bytes) -> Any:
    message.raw_input_contents.extend(raw)
    return message


def asking(*outputs: str, **parameters: Any) -> Any:
    message = text_request(b"good")
    for name in outputs:
        entry = message.outputs.add(name=name)
        for key, value in parameters.items():
            entry.parameters[key].int64_param = value
    return message


def in_shared_memory() -> Any:
    message = text_request(b"good")
    message.inputs[0].parameters["shared_memory_region"].string_param = "region"
    return message


def contents(datatype: str, field: str, elements: list[Any], shape: list[int]) -> Any:
    message = messages.ModelInferRequest(model_name="reviews")
    tensor = message.inputs.add(name="x", datatype=datatype, shape=shape)
    getattr(tensor.contents, field).extend(elements)
    return message


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: with_input(name="text", datatype="BYTES", shape=[0]), "'text' is given twice"),
        (lambda: asking("label", "label"), "output 'label' is asked for twice"),
        (
            lambda: asking(*map(str, range(MAX_TENSORS + 1))),
            "1 inputs and 17 outputs; a request has at most 16 of each",
        ),
        (
            lambda: messages.ModelInferRequest(inputs=[text_request().inputs[0]] * 17),
            "17 inputs and 0 outputs",
        ),
        (lambda: asking("label", classification=3), "not have the parameter classification"),
        (in_shared_memory, "not have the parameter shared_memory_region"),
        (lambda: also_raw(text_request(b"good"), b""), "contents beside raw_input_contents"),
        (
            lambda: also_raw(text_request(b"good"), b"", b""),
            "1 inputs and 2 raw_input_contents; give one for each",
        ),
        (lambda: also_raw(messages.ModelInferRequest(), b""), "0 inputs and 1 raw_input_contents"),
        (
            lambda: text_request(b"good", shape=[2]),
            r"1 elements in bytes_contents; the shape \[2\]",
        ),
        (lambda: text_request(b"good", shape=[-1]), "no dimension of a request may be negative"),
        (lambda: text_request(b"fine", b"a\xff"), "element 1 of text is not UTF-8"),
        (lambda: contents("INT64", "int_contents", [1], [1]), "must be in int64_contents, is in"),
        (lambda: contents("INT8", "int_contents", [128], [1]), "does not fit INT8"),
        (lambda: contents("UINT16", "uint_contents", [2**16], [1]), "does not fit UINT16"),
        (lambda: contents("FP16", "fp32_contents", [1.0], [1]), "FP16 must be in raw_input"),
        (lambda: contents("INT65", "int_contents", [1], [1]), "unknown datatype 'INT65'"),
        (lambda: contents("INT64", "int64_contents", [], [0, 2**62, 2**62]), "no tensor can have"),
    ],
)
def test_what_cannot_be_is_refused(make: Callable[[], Any], expected: str) -> None:
    with pytest.raises(InvalidRequest, match=expected):
        read(make())


def test_too_many_texts_are_refused_before_they_are_read() -> None:
    expected = "3 texts; this server takes 2"
    with pytest.raises(TooLarge, match=expected):
        read(text_request(b"\xff", b"\xff", b"\xff"), max_texts=2)
    message = messages.ModelInferRequest()
    message.inputs.add(name="text", datatype="BYTES", shape=[3])
    message.raw_input_contents.append(b"\x01\0\0\0\xff" * 3)
    with pytest.raises(TooLarge, match=expected):
        read(message, max_texts=2)


def test_an_empty_contents_beside_raw_ones_is_none() -> None:
    message = messages.ModelInferRequest()
    tensor = message.inputs.add(name="text", datatype="BYTES", shape=[1])
    tensor.contents.SetInParent()
    message.raw_input_contents.append(b"\x04\0\0\0good")
    assert read(message).inputs["text"].data == ["good"]


def test_the_outputs_asked_for_keep_their_order() -> None:
    assert read(asking("logits", "label", "probabilities")).outputs == (
        "logits",
        "label",
        "probabilities",
    )


def test_metadata_and_index_arrive_as_they_were() -> None:
    server = write_server_metadata(ServerMetadata("smp", "0.1", ("model_repository",)))
    assert (server.name, server.version, list(server.extensions)) == (
        "smp",
        "0.1",
        ["model_repository"],
    )
    model = write_model_metadata(
        ModelMetadata(
            "reviews",
            ("1",),
            "onnx",
            (TensorMetadata("text", "BYTES", (-1,)),),
            (TensorMetadata("logits", "FP32", (-1, 2)),),
            {"density": 0.1},
        )
    )
    assert (model.name, list(model.versions), model.platform) == ("reviews", ["1"], "onnx")
    for tensor, expected in (
        (model.inputs, ("text", "BYTES", [-1])),
        (model.outputs, ("logits", "FP32", [-1, 2])),
    ):
        (entry,) = tensor
        assert (entry.name, entry.datatype, list(entry.shape)) == expected
    index = write_index([IndexEntry("reviews", "1", "READY"), IndexEntry("x", "", "LOADING", "!")])
    assert [(entry.name, entry.version, entry.state, entry.reason) for entry in index.models] == [
        ("reviews", "1", "READY", ""),
        ("x", "", "LOADING", "!"),
    ]
