"""Decoding the engine's weights, through the C API."""

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.serve.c_api import pointer
from tests.serve.matrices import DENSITIES, MASKS, SEEDS, SIZES, VALUES, make_matrix, stored

Array = NDArray[Any]
WriteBlob = Callable[..., bytes]


def decode(engine: Any, blob: bytes, rows: int, columns: int) -> Array | str:
    out = np.full((rows, columns), 7, np.float32)
    error = ctypes.create_string_buffer(300)
    if engine.smp_engine_decode(blob, len(blob), pointer(out), out.size, error, len(error)):
        assert error.value
        assert b"\n" not in error.value
        return error.value.decode()
    return out


@settings(max_examples=200, deadline=None)
@given(
    rows=SIZES,
    columns=SIZES,
    density=DENSITIES,
    values=st.sampled_from(VALUES),
    mask=st.sampled_from(MASKS),
    seed=SEEDS,
)
def test_decoding_gives_what_was_encoded(
    engine: Any,
    write_blob: WriteBlob,
    rows: int,
    columns: int,
    density: float,
    values: str,
    mask: str,
    seed: int,
) -> None:
    matrix = make_matrix(rows, columns, density, seed)
    out = decode(engine, write_blob(matrix, values, mask), rows, columns)
    np.testing.assert_array_equal(out, stored(matrix, values).astype(np.float32))


def test_every_half_decodes(engine: Any, write_blob: WriteBlob) -> None:
    every = np.arange(2**16, dtype=np.uint16).view(np.float16)
    halves = every[np.isfinite(every)].reshape(1, -1)
    blob = write_blob(halves.astype(np.float32), "fp16", "dense")
    out = decode(engine, blob, 1, halves.size)
    np.testing.assert_array_equal(out, halves.astype(np.float32))
    assert isinstance(out, np.ndarray)
    np.testing.assert_array_equal(np.signbit(out), np.signbit(halves))


@settings(max_examples=150, deadline=None)
@given(
    values=st.sampled_from(VALUES),
    mask=st.sampled_from(MASKS),
    cut=st.floats(0, 1, exclude_max=True),
    seed=st.integers(0, 20),
)
def test_weights_cut_short_or_too_long_are_refused(
    engine: Any, write_blob: WriteBlob, values: str, mask: str, cut: float, seed: int
) -> None:
    blob = write_blob(make_matrix(30, 40, 0.2, seed), values, mask)
    assert isinstance(decode(engine, blob[: int(cut * len(blob))], 30, 40), str)
    assert "too many" in str(decode(engine, blob + b"\0", 30, 40))


@settings(max_examples=300, deadline=None)
@given(
    values=st.sampled_from(VALUES),
    mask=st.sampled_from(MASKS),
    changes=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=4),
)
def test_no_change_of_bytes_does_harm(
    engine: Any, write_blob: WriteBlob, values: str, mask: str, changes: list[tuple[int, int]]
) -> None:
    blob = bytearray(write_blob(make_matrix(9, 11, 0.3, 2), values, mask))
    for position, byte in changes:
        blob[position % min(len(blob), 200)] = byte
    out = decode(engine, bytes(blob), 9, 11)
    assert isinstance(out, str) or np.isfinite(out).all()
