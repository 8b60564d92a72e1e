import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from export.engine.blob import decode, encode, mask_kind, quantise
from pipeline.errors import ArtifactError, ModelError

VALUES = ("fp32", "fp16", "int8")


def sparse(rows: int, columns: int, density: float, seed: int, scale: float = 1.0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    matrix = scale * generator.standard_normal((rows, columns))
    return (matrix * (generator.random((rows, columns)) < density)).astype(np.float32)


@pytest.fixture(scope="module")
def both(decode_blob):
    """Decodes with ours and byte by byte, and checks that they agree."""

    def run(blob: np.ndarray) -> np.ndarray:
        found = decode(blob)
        np.testing.assert_allclose(found, decode_blob(blob), rtol=1e-6, atol=0)
        return found

    return run


@settings(max_examples=150, deadline=None)
@given(
    rows=st.integers(1, 40),
    columns=st.integers(1, 700),
    density=st.sampled_from([0.0, 0.001, 0.01, 0.1, 0.5, 0.95, 1.0]),
    values=st.sampled_from(VALUES),
    scale=st.sampled_from([1e-30, 1e-3, 1.0, 1e3]),
    seed=st.integers(0, 1000),
)
def test_any_matrix_comes_back(both, rows, columns, density, values, scale, seed):
    matrix = sparse(rows, columns, density, seed, scale)
    found = both(encode(matrix, values))
    assert found.shape == matrix.shape
    assert not found[matrix == 0].any()
    if values == "fp32":
        np.testing.assert_array_equal(found, matrix)
    elif values == "fp16":
        np.testing.assert_array_equal(found, matrix.astype(np.float16).astype(np.float32))
    else:
        largest = np.abs(matrix).max(axis=1, keepdims=True)
        assert (np.abs(found - matrix) <= largest / 127 * 0.5001).all()


@pytest.mark.parametrize("values", VALUES)
@pytest.mark.parametrize(
    ("density", "kind"), [(0.0, "gaps"), (0.02, "gaps"), (0.5, "bitmap"), (1.0, "dense")]
)
def test_the_smallest_mask_is_taken(values, density, kind):
    blob = encode(sparse(64, 256, density, 0), values)
    assert mask_kind(blob) == kind


def test_the_bytes_are_those_of_the_format():
    matrix = np.zeros((2, 300), np.float32)
    matrix[0, 1], matrix[1, 299] = 1.0, -2.0
    blob = bytes(encode(matrix, "fp16"))
    assert blob[:8] == b"SMPW\x01\x00\x01\x02"  # version 1, fp16, gaps
    numbers = np.frombuffer(blob[8:32], "<u4")
    assert numbers.tolist() == [2, 300, 2, 0, 4, 0]  # rows, columns, values, mask bytes
    # One zero; then 597 zeros: two times 255 without a value, and 87.
    assert list(blob[64:68]) == [1, 255, 255, 87]
    assert np.frombuffer(blob[128:], "<f2").tolist() == [1.0, -2.0]
    assert not any(blob[32:64])
    assert not any(blob[68:128])


def test_an_empty_matrix_is_a_header_and_its_scales():
    assert encode(np.zeros((3, 4), np.float32), "fp32").size == 32
    assert encode(np.zeros((3, 4), np.float32), "int8").size == 64 + 3 * 4


def test_int8_rounds_to_the_nearest_step_of_its_row():
    matrix = np.array([[127.0, 1.4, -0.4], [0.0, 0.0, 0.0], [-2.54, 0.02, 0.0]], np.float32)
    stored, scales = quantise(matrix)
    assert stored.tolist() == [[127, 1, 0], [0, 0, 0], [-127, 1, 0]]
    np.testing.assert_allclose(scales, [1.0, 0.0, 0.02], rtol=1e-6)


def test_a_row_too_small_for_a_scale_is_empty():
    matrix = np.full((1, 8), 1e-45, np.float32)
    assert not decode(encode(matrix, "int8")).any()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_refused(value):
    with pytest.raises(ModelError, match="not finite"):
        encode(np.array([[1.0, value]], np.float32), "fp32")


def test_what_float16_cannot_hold_is_refused():
    with pytest.raises(ModelError, match="use --values fp32"):
        encode(np.array([[1.0, 1e5]], np.float32), "fp16")


def test_damaged_bytes_are_refused():
    blob = encode(sparse(8, 32, 0.3, 0), "int8")
    for part in (blob[:20], blob[:-1], np.zeros_like(blob)):
        with pytest.raises(ArtifactError, match=r"corrupt|truncated"):
            decode(part)
    newer = blob.copy()
    newer[4] = 2
    with pytest.raises(ArtifactError, match="upgrade"):
        decode(newer)
