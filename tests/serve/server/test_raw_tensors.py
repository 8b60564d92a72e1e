import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import tritonclient.utils
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from serve.server.errors import InvalidRequest
from serve.server.protocol import DTYPES, Tensor
from serve.server.raw_tensors import decode_raw, encode_raw

SHAPES = arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)
DATATYPES = st.sampled_from([*DTYPES, "BYTES"])


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    datatype, shape = draw(DATATYPES), draw(SHAPES)
    data: Any
    if datatype == "BYTES":
        text = st.text(max_size=8)
        data = draw(st.lists(text, min_size=math.prod(shape), max_size=math.prod(shape)))
    else:
        data = draw(arrays.arrays(DTYPES[datatype], shape))
    return Tensor("x", datatype, shape, data)


def assert_same(left: Tensor, right: Tensor) -> None:
    assert (left.name, left.datatype, left.shape) == (right.name, right.datatype, right.shape)
    if isinstance(left.data, list):
        assert left.data == right.data
    else:
        assert isinstance(right.data, np.ndarray)
        assert left.data.dtype == right.data.dtype
        np.testing.assert_array_equal(left.data, right.data)


@given(tensors())
def test_what_is_written_reads_back(tensor: Tensor) -> None:
    raw = encode_raw(tensor)
    assert_same(decode_raw("x", tensor.datatype, tensor.shape, raw), tensor)
    assert_same(decode_raw("x", tensor.datatype, tensor.shape, memoryview(raw)), tensor)


@given(tensors())
def test_triton_reads_and_writes_the_same_bytes(tensor: Tensor) -> None:
    raw = encode_raw(tensor)
    if isinstance(tensor.data, list):
        texts = np.array(tensor.data, dtype=np.object_)
        packed = tritonclient.utils.serialize_byte_tensor(texts)
        assert raw == (packed.item() if packed.size else b"")
        elements = tritonclient.utils.deserialize_bytes_tensor(raw)
        assert [element.decode() for element in elements] == tensor.data
    else:
        assert raw == tensor.data.tobytes()  # all machines it runs on are little-endian


@given(DATATYPES | st.text(max_size=4), st.lists(st.integers(), max_size=40), st.binary())
def test_any_bytes_are_a_tensor_or_an_invalid_request(
    datatype: str, shape: list[int], data: bytes
) -> None:
    try:
        tensor = decode_raw("x", datatype, shape, data)
    except InvalidRequest:
        return
    assert encode_raw(tensor) == data


@given(tensors(), st.data())
def test_a_tensor_cut_short_or_with_more_after_it_is_refused(
    tensor: Tensor, data: st.DataObject
) -> None:
    raw = encode_raw(tensor)
    longer = raw + data.draw(st.binary(min_size=1))
    with pytest.raises(InvalidRequest, match=r"^(x|element \d+ of x) "):
        decode_raw("x", tensor.datatype, tensor.shape, longer)
    if raw:
        shorter = raw[: data.draw(st.integers(0, len(raw) - 1))]
        with pytest.raises(InvalidRequest, match=r"^(x|element \d+ of x) "):
            decode_raw("x", tensor.datatype, tensor.shape, shorter)


@pytest.mark.parametrize(
    ("datatype", "shape", "data", "message"),
    [
        ("INT65", [1], b"", "unknown datatype 'INT65'; known are BYTES, BOOL"),
        ("INT64", [-1], b"", "no dimension of a request may be negative"),
        ("INT64", [1] * 33, bytes(8), "33 dimensions; a tensor has at most 32"),
        ("INT64", [2, 3], bytes(40), r"40 bytes; the shape \[2, 3\] of INT64 takes 48"),
        ("INT64", [2**40, 2**40], bytes(8), "8 bytes; the shape"),
        ("INT64", [0, 2**62, 2**62], b"", "which no tensor can have"),
        ("BOOL", [2], b"\x01\x02", "a BOOL that is neither 0 nor 1"),
        ("BYTES", [2**62], b"abcd", "too few for 4611686018427387904 elements"),
        ("BYTES", [1], b"\x05\0\0\0film", "length of 5 bytes, of which 4 are there"),
        ("BYTES", [1], b"\xff\xff\xff\xfffilm", "length of 4294967295 bytes"),
        ("BYTES", [2], b"\x04\0\0\0film", "ends before the length of its element 1"),
        ("BYTES", [1], b"\x01\0\0\0abc", "2 bytes after its 1 elements"),
        ("BYTES", [1], b"\x02\0\0\0a\xff", r"element 0 of x is not UTF-8 \(byte 1\)"),
    ],
)
def test_the_message_says_what_is_wrong(
    datatype: str, shape: Sequence[int], data: bytes, message: str
) -> None:
    with pytest.raises(InvalidRequest, match=message):
        decode_raw("x", datatype, shape, data)
