import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.encodings import (
    Bitmap,
    Dense,
    Gaps,
    decode,
    encode,
    encode_bitmap,
    encode_dense,
    encode_gaps,
)
from pipeline.errors import ArtifactError

DTYPES = st.sampled_from([np.float16, np.float32])


@st.composite
def sparse_matrices(draw: st.DrawFn) -> np.ndarray:
    """float32 matrices of any density, all zero and all full among them."""
    shape = draw(arrays.array_shapes(min_dims=2, max_dims=2, max_side=40))
    density = draw(st.sampled_from([0.0, 0.02, 0.3, 1.0]))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    matrix = generator.standard_normal(shape).astype(np.float32)
    return matrix * (generator.random(shape) < density)


@given(
    sparse_matrices(), DTYPES, st.sampled_from([encode, encode_bitmap, encode_dense, encode_gaps])
)
def test_decoding_gives_the_rounded_matrix(matrix, dtype, encoder):
    decoded = decode(encoder(matrix, dtype))
    assert decoded.dtype == dtype
    np.testing.assert_array_equal(decoded, matrix.astype(dtype))


@given(st.lists(st.sampled_from([1, 2, 7, 254, 255, 256, 509, 510, 511, 765, 766]), max_size=6))
def test_gaps_of_any_width_round_trip(steps):
    positions = np.cumsum([0, *steps])
    for first in (0, 1, 254, 255, 256, 510, 511):
        matrix = np.zeros((1, first + positions[-1] + 1), np.float32)
        matrix[0, first + positions] = np.arange(1, positions.size + 1)
        np.testing.assert_array_equal(decode(encode_gaps(matrix, np.float32)), matrix)


@pytest.mark.parametrize(
    ("gap", "stored"),
    [(254, [254]), (255, [255]), (256, [255, 1]), (510, [255, 255]), (511, [255, 255, 1])],
)
def test_a_gap_over_255_becomes_255_and_a_zero_value(gap, stored):
    matrix = np.zeros((1, 600), np.float32)
    matrix[0, [0, gap]] = 2.0, 3.0
    encoding = encode_gaps(matrix, np.float32)
    assert encoding.gaps.tolist() == [0, *stored]
    assert encoding.values.tolist() == [2.0, *[0.0] * (len(stored) - 1), 3.0]


def test_bits_are_in_the_order_of_numpy_packbits():
    matrix = np.array([[1, 0, 0], [0, 0, 0], [0, 0, 5]], np.float32)
    encoding = encode_bitmap(matrix, np.float32)
    assert encoding.bits.tolist() == [0b10000000, 0b10000000]
    assert encoding.values.tolist() == [1.0, 5.0]


@given(sparse_matrices(), DTYPES)
def test_the_smallest_encoding_is_taken(matrix, dtype):
    sizes = [f(matrix, dtype).size_bytes for f in (encode_dense, encode_bitmap, encode_gaps)]
    chosen = encode(matrix, dtype)
    if np.any(matrix.astype(dtype)):
        assert chosen.size_bytes == min(sizes)
    assert chosen.values.size > 0


@pytest.mark.parametrize(
    ("density", "expected"), [(1.0, Dense), (0.5, Bitmap), (0.2, Bitmap), (0.03, Gaps), (0.0, Gaps)]
)
def test_the_choice_follows_the_density(density, expected):
    generator = np.random.default_rng(0)
    matrix = generator.standard_normal((64, 96)).astype(np.float32)
    assert isinstance(
        encode(matrix * (generator.random(matrix.shape) < density), np.float16), expected
    )


def test_kept_weights_that_are_or_become_zero_come_back_as_zero():
    matrix = np.array([[0.0, 1e-12, -1e-12, 1.5]], np.float32)
    for encoder in (encode, encode_bitmap, encode_gaps):
        np.testing.assert_array_equal(decode(encoder(matrix, np.float16)), [[0, 0, 0, 1.5]])


@pytest.mark.parametrize(
    "encoding",
    [
        Gaps((2, 2), np.array([3, 1], np.uint8), np.ones(2, np.float32)),
        Gaps((2, 2), np.array([3], np.uint8), np.ones(2, np.float32)),
        Bitmap((2, 2), np.array([255], np.uint8), np.ones(8, np.float32)),
        Bitmap((2, 2), np.array([128], np.uint8), np.ones(3, np.float32)),
        Dense((2, 2), np.ones(5, np.float32)),
    ],
)
def test_positions_that_do_not_fit_are_refused(encoding):
    with pytest.raises(ArtifactError, match="corrupt"):
        decode(encoding)
