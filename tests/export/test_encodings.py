import dataclasses
from collections.abc import Callable

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.encodings import (
    RICE_WIDTHS,
    Bitmap,
    Dense,
    Encoding,
    Gaps,
    Rice,
    decode,
    encode,
    encode_bitmap,
    encode_dense,
    encode_gaps,
    encode_rice,
)
from export.quantise import round_weights
from pipeline.errors import ArtifactError

VALUES = st.sampled_from(["fp32", "fp16", "int8"])
PARTS = ("values", "bits", "gaps", "quotients", "remainders")


def rice(width: int) -> Callable[[np.ndarray], Encoding]:
    """The Rice encoder of a width; a matrix of zeros has none and is left to the gaps."""
    return lambda matrix: encode_rice(matrix, width) if np.any(matrix) else encode_gaps(matrix)


ENCODERS = [encode, encode_bitmap, encode_dense, encode_gaps, *map(rice, RICE_WIDTHS)]


@st.composite
def sparse_matrices(draw: st.DrawFn, values: st.SearchStrategy[str] = VALUES) -> np.ndarray:
    """Stored matrices of any density, all zero and all full among them."""
    shape = draw(arrays.array_shapes(min_dims=2, max_dims=2, max_side=40))
    density = draw(st.sampled_from([0.0, 0.005, 0.02, 0.1, 0.3, 0.5, 0.9, 1.0]))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    matrix = generator.standard_normal(shape).astype(np.float32)
    matrix *= generator.random(shape) < density
    return round_weights(matrix, draw(values))[0]


def random_matrix(density: float, values: str, shape: tuple[int, int] = (384, 384)) -> np.ndarray:
    generator = np.random.default_rng(0)
    matrix = generator.standard_normal(shape).astype(np.float32)
    return round_weights(matrix * (generator.random(shape) < density), values)[0]


@given(sparse_matrices(), st.sampled_from(ENCODERS))
def test_decoding_gives_the_matrix(matrix, encoder):
    decoded = decode(encoder(matrix))
    assert decoded.dtype == matrix.dtype
    np.testing.assert_array_equal(decoded, matrix)


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("value", [0.0, 2.0])
def test_one_weight_round_trips(encoder, value):
    matrix = np.full((1, 1), value, np.float32)
    np.testing.assert_array_equal(decode(encoder(matrix)), matrix)


@given(
    st.lists(st.sampled_from([1, 2, 7, 16, 17, 254, 255, 256, 509, 510, 511, 766]), max_size=6),
    st.sampled_from([encode_gaps, *map(rice, RICE_WIDTHS)]),
)
def test_gaps_of_any_width_round_trip(steps, encoder):
    positions = np.cumsum([0, *steps])
    for first in (0, 1, 15, 16, 254, 255, 256, 510, 511):
        matrix = np.zeros((1, first + positions[-1] + 1), np.float32)
        matrix[0, first + positions] = np.arange(1, positions.size + 1)
        np.testing.assert_array_equal(decode(encoder(matrix)), matrix)


@pytest.mark.parametrize(
    ("gap", "stored"),
    [(254, [254]), (255, [255]), (256, [255, 1]), (510, [255, 255]), (511, [255, 255, 1])],
)
def test_a_gap_over_255_becomes_255_and_a_zero_value(gap, stored):
    matrix = np.zeros((1, 600), np.float32)
    matrix[0, [0, gap]] = 2.0, 3.0
    encoding = encode_gaps(matrix)
    assert encoding.gaps.tolist() == [0, *stored]
    assert encoding.values.tolist() == [2.0, *[0.0] * (len(stored) - 1), 3.0]


def test_bits_lie_in_planes():
    matrix = np.array([[1, 0, 0], [0, 0, 0], [0, 0, 5]], np.float32)
    encoding = encode_bitmap(matrix)  # of the even positions in the first byte, 0 and 8
    assert encoding.bits.tolist() == [0b00010001, 0b00000000]
    assert encoding.values.tolist() == [1.0, 5.0]


def test_a_rice_code_is_a_unary_quotient_and_a_remainder():
    matrix = np.zeros((1, 20), np.float32)
    matrix[0, [0, 6, 17]] = 1.0, 2.0, 3.0  # after 0, 5 and 10 zeros
    encoding = encode_rice(matrix, 2)
    # 1 | 0 1 | 0 0 1, of which bit j is in plane j of the one byte
    assert encoding.quotients.tolist() == [0b00100101]
    # 0, 1, 2, inverted, of which each has two bits of the one byte
    assert encoding.remainders.tolist() == [0b00011011]


@given(sparse_matrices())
def test_sizes_are_those_of_the_formulas(matrix):
    count, item = np.count_nonzero(matrix), matrix.itemsize
    assert encode_dense(matrix).size_bytes == matrix.size * item
    assert encode_bitmap(matrix).size_bytes == -(-matrix.size // 8) + count * item
    zeros = np.diff(np.flatnonzero(matrix), prepend=-1) - 1
    places = sum(max(1, -(-(gap + 1) // 255)) for gap in zeros[1:])
    if count:
        places += max(1, -(-int(zeros[0]) // 255))
        assert encode_gaps(matrix).size_bytes == places * (1 + item)
        for width in RICE_WIDTHS:
            unary_bits = count + int(np.sum(zeros // 2**width))
            expected = -(-unary_bits // 8) + -(-count * width // 8) + count * item
            assert encode_rice(matrix, width).size_bytes == expected
    else:
        assert encode_gaps(matrix).size_bytes == 1 + item


@given(sparse_matrices())
def test_the_smallest_encoding_is_taken(matrix):
    chosen = encode(matrix)
    assert chosen.size_bytes == min(encoder(matrix).size_bytes for encoder in ENCODERS[1:]) or (
        not np.any(matrix) and isinstance(chosen, Dense | Gaps)
    )
    assert chosen.values.size > 0


@pytest.mark.parametrize(
    ("density", "width", "most_bits"), [(0.3, 1, 0.895), (0.1, 2, 0.495), (0.03, 4, 0.201)]
)
def test_a_rice_code_is_near_the_entropy_of_a_random_mask(density, width, most_bits):
    matrix = random_matrix(density, "fp32")
    encoding = encode(matrix)
    assert isinstance(encoding, Rice)
    assert encoding.width == width
    entropy = -density * np.log2(density) - (1 - density) * np.log2(1 - density)
    bits = 8 * (encoding.size_bytes - encoding.values.nbytes) / matrix.size
    assert 0.97 * entropy < bits < most_bits


@pytest.mark.parametrize("values", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize(
    ("density", "expected"), [(1.0, Dense), (0.5, Bitmap), (0.1, Rice), (0.03, Rice), (0.0, Gaps)]
)
def test_the_choice_follows_the_density(density, expected, values):
    assert isinstance(encode(random_matrix(density, values)), expected)


def test_gaps_are_taken_where_nearly_nothing_is_left():
    matrix = np.zeros((16, 16), np.float32)
    matrix[0, 200 % 16] = 1.0
    assert isinstance(encode(matrix), Gaps)


def test_a_matrix_without_weights_is_dense():
    matrix = np.zeros((0, 4), np.float32)
    encoding = encode(matrix)
    assert isinstance(encoding, Dense)
    assert decode(encoding).shape == (0, 4)


def test_kept_weights_that_are_or_become_zero_come_back_as_zero():
    matrix = np.array([[0.0, 1e-12, -1e-12, 1.5]], np.float32).astype(np.float16)
    for encoder in ENCODERS:
        np.testing.assert_array_equal(decode(encoder(matrix)), [[0, 0, 0, 1.5]])


@given(sparse_matrices(), st.sampled_from(ENCODERS), st.data())
def test_a_damaged_encoding_is_refused_or_a_matrix_of_that_shape(matrix, encoder, data):
    encoding = encoder(matrix)
    streams = [name for name in PARTS if hasattr(encoding, name) and getattr(encoding, name).size]
    name = data.draw(st.sampled_from(streams))
    octets = bytearray(getattr(encoding, name).tobytes())
    damage = data.draw(st.sampled_from(["flip", "cut", "grow"]))
    itemsize = getattr(encoding, name).itemsize
    if damage == "flip":
        place = data.draw(st.integers(0, len(octets) - 1))
        octets[place] ^= data.draw(st.integers(1, 255))
    elif damage == "cut":
        del octets[itemsize * data.draw(st.integers(0, len(octets) // itemsize - 1)) :]
    else:
        octets += data.draw(st.binary(min_size=1, max_size=4)) * itemsize
    changed = np.frombuffer(bytes(octets), getattr(encoding, name).dtype)
    damaged = dataclasses.replace(encoding, **{name: changed})
    try:
        decoded = decode(damaged)
    except ArtifactError as error:
        assert "corrupt" in str(error)
        assert "\n" not in str(error)
    else:
        assert decoded.shape == matrix.shape
        assert damage == "flip"  # a stream of another length never fits the others


@pytest.mark.parametrize(
    "encoding",
    [
        Gaps((2, 2), np.array([3, 1], np.uint8), np.ones(2, np.float32)),
        Gaps((2, 2), np.array([3], np.uint8), np.ones(2, np.float32)),
        Gaps((2, 2), np.array([1, 0], np.uint8), np.ones(2, np.float32)),
        Bitmap((2, 2), np.array([255], np.uint8), np.ones(8, np.float32)),
        Bitmap((2, 2), np.array([1], np.uint8), np.ones(3, np.float32)),
        Bitmap((2, 2), np.array([1, 0], np.uint8), np.ones(1, np.float32)),
        Rice((2, 2), 3, np.array([1], np.uint8), np.zeros(1, np.uint8), np.ones(1, np.float32)),
        Rice((2, 2), 1, np.array([4], np.uint8), np.array([1], np.uint8), np.ones(1, np.float32)),
        Rice((2, 2), 1, np.array([1], np.uint8), np.array([8], np.uint8), np.ones(1, np.float32)),
        Rice((2, 2), 1, np.array([3], np.uint8), np.array([0], np.uint8), np.ones(1, np.float32)),
        Dense((2, 2), np.ones(5, np.float32)),
    ],
)
def test_parts_that_do_not_fit_are_refused(encoding):
    with pytest.raises(ArtifactError, match="corrupt"):
        decode(encoding)
