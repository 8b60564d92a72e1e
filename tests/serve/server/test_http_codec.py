import json
import re
import struct
import tracemalloc
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from serve.server.errors import InvalidRequest, TooLarge
from serve.server.http_codec import BinaryOutputs, decode_infer_request, encode_infer_response
from serve.server.protocol import DTYPES, InferRequest, InferResponse, Tensor

NO_BINARY = BinaryOutputs(False, {})


def request(*inputs: dict[str, Any], **others: Any) -> bytes:
    return json.dumps({"inputs": inputs, **others}).encode()


def tensor(data: Any, shape: list[int], datatype: str = "INT64", **others: Any) -> dict[str, Any]:
    return {"name": "x", "datatype": datatype, "shape": shape, "data": data, **others}


def decode(body: bytes, json_length: int | None = None) -> InferRequest:
    header = None if json_length is None else str(json_length).encode()
    return decode_infer_request("m", "1", body, header)[0]


def refusal(body: bytes, json_length: bytes | None = None) -> str:
    with pytest.raises(InvalidRequest) as caught:
        decode_infer_request("m", "", body, json_length)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_texts_come_as_json() -> None:
    text = {"name": "text", "datatype": "BYTES", "shape": [2], "data": ["a", "ü😀"]}
    found, binary = decode_infer_request("m", "1", request(text, id="7"), None)
    assert found == InferRequest(
        "m", "1", "7", {"text": Tensor("text", "BYTES", (2,), ["a", "ü😀"])}
    )
    assert binary == NO_BINARY


def test_data_is_flat_or_nested() -> None:
    for data in ([1, 2, 3, 4, 5, 6], [[1, 2, 3], [4, 5, 6]]):
        found = decode(request(tensor(data, [2, 3]))).inputs["x"].data
        np.testing.assert_array_equal(found, [[1, 2, 3], [4, 5, 6]])
    for data in (["a", "b"], [["a"], ["b"]]):
        assert decode(request(tensor(data, [2, 1], "BYTES"))).inputs["x"].data == ["a", "b"]


@st.composite
def any_arrays(draw: st.DrawFn) -> tuple[str, NDArray[Any]]:
    datatype = draw(st.sampled_from(sorted(DTYPES)))
    shape = draw(arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=3))
    return datatype, draw(arrays.arrays(DTYPES[datatype], shape))


@given(any_arrays(), st.booleans())
def test_arrays_come_as_they_were_sent(case: tuple[str, NDArray[Any]], nested: bool) -> None:
    datatype, array = case
    if not np.isfinite(array).all():  # JSON has no such numbers
        return
    data = array.tolist() if nested and array.ndim else array.ravel().tolist()
    found = decode(request(tensor(data, list(array.shape), datatype))).inputs["x"]
    assert found.shape == array.shape
    assert isinstance(found.data, np.ndarray)
    assert found.data.dtype == array.dtype
    np.testing.assert_array_equal(found.data, array)


@given(any_arrays(), st.lists(st.text(max_size=5), max_size=3))
def test_a_client_reads_back_what_was_sent(
    case: tuple[str, NDArray[Any]], texts: list[str]
) -> None:
    datatype, array = case
    outputs = (
        Tensor("array", datatype, array.shape, array),
        Tensor("texts", "BYTES", (len(texts),), texts),
    )
    response = InferResponse("m", "1", "7", outputs)
    choices = [BinaryOutputs(True, {}), BinaryOutputs(True, {"texts": False})]
    if np.isfinite(array).all():
        choices += [NO_BINARY, BinaryOutputs(False, {"texts": True})]
    for binary in choices:
        body, json_length = encode_infer_response(response, binary)
        result = triton.InferResult.from_response_body(body, header_length=json_length)
        assert result.get_response()["id"] == "7"
        found = result.as_numpy("array")
        if array.size:
            assert found.dtype == array.dtype
        np.testing.assert_array_equal(found, array)
        found_texts = result.as_numpy("texts").tolist()
        assert [t.decode() if isinstance(t, bytes) else t for t in found_texts] == texts


def test_numbers_are_short() -> None:
    numbers = np.array([0.5, 1 / 3], np.float32)
    response = InferResponse("m", "1", "", (Tensor("x", "FP32", (2,), numbers),))
    body, _ = encode_infer_response(response, NO_BINARY)
    assert b"[0.5,0.333333343]" in body
    assert b'"id"' not in body


@given(
    st.lists(st.text(max_size=5), min_size=1, max_size=4),
    arrays.arrays(np.int64, arrays.array_shapes(max_dims=2, max_side=3)),
)
def test_binary_inputs_are_what_a_client_sends(texts: list[str], ids: NDArray[np.int64]) -> None:
    text = triton.InferInput("text", [len(texts)], "BYTES")
    text.set_data_from_numpy(np.array([value.encode() for value in texts], dtype=object))
    tokens = triton.InferInput("ids", list(ids.shape), "INT64")
    tokens.set_data_from_numpy(ids)
    outputs = [
        triton.InferRequestedOutput("label", binary_data=False),
        triton.InferRequestedOutput("logits", binary_data=True),
    ]
    body, json_length = triton.InferenceServerClient.generate_request_body(
        [text, tokens], outputs=outputs, request_id="9"
    )
    found, binary = decode_infer_request("m", "", body, str(json_length).encode())
    assert found.id == "9"
    assert found.outputs == ("label", "logits")
    assert binary == BinaryOutputs(False, {"label": False, "logits": True})
    assert found.inputs["text"].data == texts
    np.testing.assert_array_equal(found.inputs["ids"].data, ids)


def test_who_names_no_outputs_says_for_all_whether_they_are_binary() -> None:
    body = request(tensor([1], [1]), parameters={"binary_data_output": True})
    assert decode_infer_request("m", "", body, None)[1] == BinaryOutputs(True, {})
    named = request(
        tensor([1], [1]),
        parameters={"binary_data_output": True},
        outputs=[{"name": "a"}, {"name": "b", "parameters": {"binary_data": False}}],
    )
    binary = decode_infer_request("m", "", named, None)[1]
    assert binary == BinaryOutputs(True, {"a": True, "b": False})


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "the body: Input data was truncated"),
        (b"\xff", "the body: JSON is malformed"),
        (b'{"id": "\xff", "inputs": []}', "the body is not UTF-8"),
        (b"[" * 100_000, "Expected `object`, got `array`"),
        (b'{"extra": ' + b"[" * 100_000, "nested too deeply"),
        (b"{}", "missing required field `inputs`"),
        (b'{"inputs": []}', "Expected `array` of length >= 1"),
        (request(*[tensor([1], [1])] * 17), r"Expected `array` of length <= 16 - at `\$.inputs`"),
        (
            request(tensor([1], [1]), outputs=[{"name": "a"}] * 17),
            r"length <= 16 - at `\$.outputs`",
        ),
        (request(tensor([1], [1])) + b"x", "trailing characters"),
        (request(tensor([1], [1]), id=1), r"Expected `str`, got `int` - at `\$.id`"),
        (request(tensor([1], [-1])), r"Expected `int` >= 0 - at `\$.inputs\[0\].shape\[0\]`"),
        (request(tensor([1], [2**64])), r"shape\[0\]"),
        (request(tensor([1], [1] * 33)), "shape"),
        (request(tensor([1], [2**62] * 32)), "has 1 elements"),
        (request(tensor([], [0, 2**62, 2**62])), "cannot be INT64 of the shape"),
        (request(tensor([1, 2], [1])), r"x has 2 elements; its shape \[1\] takes 1"),
        (request(tensor([[1, 2], [3]], [2, 2])), "not nested as its shape"),
        (request(tensor([[1, 2]], [2])), r"data of input x: Expected `int`, got `array`"),
        (request(tensor([[[1]]], [1, 1])), r"data of input x: Expected `int`, got `array`"),
        (request(tensor("good", [1], "BYTES")), "data of input x: Expected `array`, got `str`"),
        (request(tensor([1], [1], "BYTES")), "data of input x: Expected `str`, got `int`"),
        (request(tensor([1.5], [1])), "data of input x: Expected `int`, got `float`"),
        (request(tensor([True], [1])), "data of input x: Expected `int`, got `bool`"),
        (request(tensor([float("nan")], [1], "FP32")), "malformed"),
        (request(tensor([2**63], [1])), "data of input x: Expected `int` <="),
        (request(tensor([-1], [1], "UINT64")), "data of input x: Expected `int` >= 0"),
        (request(tensor([2**64], [1], "UINT64")), "cannot be UINT64"),
        (request(tensor([256], [1], "UINT8")), "data of input x: Expected `int` <= 255"),
        (request(tensor([1e39], [1], "FP32")), "too large for FP32"),
        (request(tensor([1], [1], "FP32")).replace(b"[1]}", b"[1e999]}"), "out of range"),
        (request(tensor([1], [1], "TEXT")), "unknown datatype 'TEXT'; known are BYTES, BOOL"),
        (request({"name": "x", "datatype": "INT64", "shape": [1]}), "input x has no data"),
        (request(tensor([1], [1]), tensor([1], [1])), "input x is given twice"),
        (request(tensor([1], [1]), outputs=[{"name": "a"}] * 2), "output a is asked for twice"),
        (
            request(tensor(["a"], [1], "BYTES")).replace(b'"a"', b'"\xed\xa0\x80"'),
            "data of input x is not UTF-8",
        ),
        (request(tensor(["a"], [1], "BYTES")).replace(b'"a"', b'"\\ud800 film"'), "malformed"),
        (request(tensor([1], [1], parameters={"binary_data_size": 8})), "give one of them"),
        (
            request(tensor([1], [1], parameters={"shared_memory_region": "r"})),
            "does not read; send it",
        ),
        (
            request(tensor([1], [1]), outputs=[{"name": "a", "parameters": {"classification": 3}}]),
            "classification is not supported",
        ),
        (
            request(
                tensor([1], [1]),
                outputs=[{"name": "a", "parameters": {"shared_memory_region": "r"}}],
            ),
            "leave shared_memory_region out",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_is_refused_in_one_line(body: bytes, message: str) -> None:
    assert re.search(message, refusal(body))


def binary_request(datatype: str, shape: list[int], data: bytes, size: int | None = None) -> bytes:
    parameters = {"binary_data_size": len(data) if size is None else size}
    entry = {"name": "x", "datatype": datatype, "shape": shape, "parameters": parameters}
    return request(entry) + data


@pytest.mark.parametrize(
    ("datatype", "shape", "data", "size", "message"),
    [
        ("INT64", [1], bytes(8), 9, "binary_data_size 9, of which 8 bytes follow"),
        ("INT64", [1], bytes(16), 8, "16 bytes of binary data follow the JSON"),
        ("INT64", [1], bytes(8), -1, "Expected `int` >= 0"),
        ("INT64", [2], bytes(8), None, "takes 16"),
        ("INT64", [2**62] * 3, bytes(8), None, "takes "),
        ("BYTES", [1], struct.pack("<I", 2**32 - 1), None, "has a length of 4294967295 bytes"),
        ("BYTES", [1], struct.pack("<I", 1) + b"\xff", None, "is not UTF-8"),
        ("BYTES", [2**40], struct.pack("<I", 0), None, "too few for"),
    ],
)
def test_binary_data_that_does_not_fit_is_refused(
    datatype: str, shape: list[int], data: bytes, size: int | None, message: str
) -> None:
    body = binary_request(datatype, shape, data, size)
    assert message in refusal(body, str(len(body) - len(data)).encode())


def test_too_many_binary_texts_are_refused_before_they_are_read() -> None:
    body = binary_request("BYTES", [3], b"\x01\0\0\0\xff" * 3)
    json_length = str(len(body) - 15).encode()
    with pytest.raises(TooLarge, match="3 texts; this server takes 2"):
        decode_infer_request("m", "", body, json_length, max_texts=2)


@pytest.mark.parametrize("header", [b"", b"-1", b"+1", b"1_0", b" 5", b"x", b"9" * 5000, b"10000"])
def test_a_json_length_that_cannot_be_is_refused(header: bytes) -> None:
    message = refusal(request(tensor([1], [1])), header)
    assert "Inference-Header-Content-Length must be the number of bytes" in message


@given(st.binary(max_size=60), st.integers(0, 60), st.booleans())
def test_no_body_is_worse_than_refused(noise: bytes, position: int, has_header: bool) -> None:
    body = request(tensor(["good", "film"], [2], "BYTES"), id="1")
    broken = body[:position] + noise + body[position:]
    try:
        decode(broken, len(body) if has_header else None)
    except InvalidRequest as error:
        assert str(error)


@pytest.mark.parametrize(
    "data",
    [
        b"[]," * 350_000 + b"[]",
        b'"ab",' * 200_000 + b'"ab"',
        b"1.5," * 250_000 + b"1",
        b"[" * 10**6,
    ],
    ids=["lists", "texts", "numbers", "depth"],
)
def test_a_hostile_body_takes_little_memory(data: bytes) -> None:
    frame = request(tensor([7], [1, 1], "BYTES"))
    body = frame.replace(b"[7]", b"[" + data + b"]")
    tracemalloc.start()
    try:
        refusal(body)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 32 * len(body)
