"""Every kernel of every instruction set against a dense float64 reference, through the C API."""

import ctypes
import itertools
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

Array = NDArray[Any]
WriteBlob = Callable[..., bytes]

ISAS = ("scalar", "avx2", "avx512", "avx512_vnni", "neon", "neon_dot", "neon_i8mm")
VALUES = ("fp32", "fp16", "int8")
MASKS = ("dense", "bitmap", "gaps")
PLANS = ("sparse", "dense")
# Beside int8 products, activations are only as good as those resolve.
ACTIVATION_ERROR = {"fp32": 1e-6, "int8": 1.5e-4}

SIZES = st.integers(1, 200)
TOKENS = st.integers(1, 150)
DENSITIES = st.sampled_from([0.0, 0.02, 0.1, 0.5, 0.97, 1.0])
SEEDS = st.integers(0, 2**32 - 1)


@pytest.fixture(autouse=True)
def _leave_as_found(engine: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    active = engine.smp_engine_isa()
    yield
    assert engine.smp_engine_force_isa(active) == 0


def supported(engine: Any) -> list[str]:
    return [isa for isa in ISAS if engine.smp_engine_supported(isa.encode())]


def make_matrix(rows: int, columns: int, density: float, seed: int) -> Array:
    """Random, with rows of other sizes and (mostly) an empty one."""
    generator = np.random.default_rng(seed)
    matrix = generator.standard_normal((rows, columns))
    matrix *= 10.0 ** generator.uniform(-2, 2, (rows, 1))
    matrix[generator.random((rows, columns)) >= density] = 0
    if density < 1 and rows > 1:
        matrix[generator.integers(rows)] = 0
    return matrix.astype(np.float32)


def make_tokens(tokens: int, columns: int, seed: int) -> Array:
    """Tokens of other sizes and offsets, one of zeros, some of one sign."""
    generator = np.random.default_rng(seed + 1)
    x = generator.standard_normal((tokens, columns)) + generator.normal(0, 2, (tokens, 1))
    x *= 10.0 ** generator.uniform(-3, 3, (tokens, 1))
    x[generator.integers(tokens)] = 0
    return x.astype(np.float32)


def stored(matrix: Array, values: str) -> Array:
    """What is left of a matrix in the file, float64."""
    if values == "fp16":
        return matrix.astype(np.float16).astype(np.float64)
    return quantised(matrix) if values == "int8" else matrix.astype(np.float64)


def quantised(matrix: Array) -> Array:
    """Symmetric int8 of every row, as float64."""
    scale = np.abs(matrix).astype(np.float32).max(axis=1, keepdims=True) / np.float32(127)
    safe = np.where(scale > 0, scale, 1)
    steps = np.rint(matrix.astype(np.float32) / safe).clip(-127, 127)
    return steps.astype(np.float64) * scale


@dataclass
class Layer:
    blob: bytes
    rows: int
    compute: str
    activation: str = "none"
    vectors: dict[str, Array] = field(default_factory=dict)  # bias, gamma, beta
    epsilon: float = 1e-5


def pointer(array: Array | None) -> Any:
    if array is None:
        return None
    assert array.dtype == np.float32
    assert array.flags.c_contiguous
    return array.ctypes.data_as(ctypes.POINTER(ctypes.c_float))


def run(
    engine: Any, isa: str, layer: Layer, x: Array, residual: Array | None = None, threads: int = 1
) -> Array:
    assert engine.smp_engine_force_isa(isa.encode()) == 0
    y = np.full((len(x), layer.rows), 7, np.float32)
    error = ctypes.create_string_buffer(500)
    status = engine.smp_engine_linear(
        *(layer.blob, len(layer.blob), pointer(layer.vectors.get("bias"))),
        *(layer.activation.encode(), layer.compute.encode(), pointer(x), len(x)),
        *(pointer(residual), pointer(layer.vectors.get("gamma"))),
        *(pointer(layer.vectors.get("beta")), layer.epsilon, pointer(y)),
        *(threads, error, len(error)),
    )
    assert status == 0, error.value
    return y


def activated(x: Array, activation: str) -> Array:
    functions: dict[str, Callable[[Array], Array]] = {
        "none": lambda x: x,
        "gelu": lambda x: 0.5 * x * (1 + np.vectorize(math.erf, otypes=[float])(x / math.sqrt(2))),
        "gelu_tanh": lambda x: (
            0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
        ),
        "relu": lambda x: np.maximum(x, 0),
        "tanh": np.tanh,
        "silu": lambda x: x / (1 + np.exp(np.minimum(-x, 700))),
    }
    return functions[activation](x)


@dataclass
class Expected:
    """What a product should be, and how far from it one may be, both [tokens, rows]."""

    y: Array
    tolerance: Array


def exact_product(weights: Array, x: Array) -> Expected:
    """The product in float64; float32 arithmetic may differ by 1e-5 of the sum of |w||x|."""
    y = x.astype(np.float64) @ weights.T
    return Expected(y, 1e-5 * (np.abs(x).astype(np.float64) @ np.abs(weights).T) + 1e-30)


def int8_product(weights: Array, x: Array) -> Expected:
    """Tokens as asymmetric uint8, 0 representable, times int8 weights.

    A value that lies (to 1e-3 of a step) in the middle of two steps may go either way, since
    instruction sets round the multiplication before it or not; so may the zero point, which moves
    the values at the ends of the range.
    """
    x64 = x.astype(np.float64)
    low = np.minimum(x64.min(axis=1, keepdims=True), 0)
    high = np.maximum(x64.max(axis=1, keepdims=True), 0)
    scale = (high - low) / 255
    steps = np.divide(x64, scale, out=np.zeros_like(x64), where=scale > 0)
    ends = np.divide(-low, scale, out=np.zeros_like(low), where=scale > 0)
    zero = np.rint(ends)
    rounded = (np.rint(steps) + zero).clip(0, 255)
    moved = np.abs(np.abs(steps - np.trunc(steps)) - 0.5) < 1e-3
    zero_moved = np.abs(np.abs(ends - np.trunc(ends)) - 0.5) < 1e-3
    moved |= zero_moved & ((rounded <= 1) | (rounded >= 254))
    values = (rounded - zero) * scale
    slack = np.where(moved, scale, 0)
    rounding = 2e-6 * ((rounded + zero) * scale)  # of the sums and of the zero point's share
    return Expected(values @ weights.T, (slack + rounding) @ np.abs(weights).T + 1e-30)


def expected_product(matrix: Array, values: str, compute: str, x: Array) -> Expected:
    if compute == "fp32":
        return exact_product(stored(matrix, values), x)
    weights = stored(matrix, values)
    return int8_product(weights if values == "int8" else quantised(weights), x)


def assert_near(y: Array, expected: Expected, note: object) -> None:
    worst = np.max(np.abs(y - expected.y) / expected.tolerance, initial=0)
    assert worst <= 1, f"{worst:.3g} times the tolerance, {note}"


# ---------------------------------------------------------------- products


@settings(max_examples=60, deadline=None)
@given(
    rows=SIZES,
    columns=SIZES,
    tokens=TOKENS,
    density=DENSITIES,
    values=st.sampled_from(VALUES),
    mask=st.sampled_from(MASKS),
    seed=SEEDS,
)
@example(rows=1, columns=1, tokens=1, density=1.0, values="fp32", mask="bitmap", seed=0)
@example(rows=200, columns=200, tokens=150, density=0.0, values="int8", mask="gaps", seed=0)
@example(rows=7, columns=129, tokens=65, density=1.0, values="int8", mask="dense", seed=0)
@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("compute", ["fp32", "int8"])
def test_products_match_the_reference_on_every_instruction_set(
    engine: Any,
    write_blob: WriteBlob,
    compute: str,
    plan: str,
    rows: int,
    columns: int,
    tokens: int,
    density: float,
    values: str,
    mask: str,
    seed: int,
) -> None:
    matrix = make_matrix(rows, columns, density, seed)
    if values == "fp16":
        matrix = matrix.clip(-60000, 60000)
    x = make_tokens(tokens, columns, seed)
    layer = Layer(write_blob(matrix, values, mask), rows, compute)
    expected = expected_product(matrix, values, compute, x)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("SMP_ENGINE_PLAN", plan)
        for isa in supported(engine):
            assert_near(run(engine, isa, layer, x), expected, (isa, seed))


@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(1, 80),
    columns=st.integers(1, 80),
    tokens=st.integers(1, 70),
    with_bias=st.booleans(),
    with_residual=st.booleans(),
    with_norm=st.booleans(),
    activation=st.sampled_from(["none", "gelu", "gelu_tanh", "relu", "tanh", "silu"]),
    seed=SEEDS,
)
@pytest.mark.parametrize("compute", ["fp32", "int8"])
def test_what_follows_the_product(
    engine: Any,
    write_blob: WriteBlob,
    compute: str,
    rows: int,
    columns: int,
    tokens: int,
    with_bias: bool,
    with_residual: bool,
    with_norm: bool,
    activation: str,
    seed: int,
) -> None:
    generator = np.random.default_rng(seed)
    matrix = make_matrix(rows, columns, 0.3, seed) / 30
    x = generator.standard_normal((tokens, columns), np.float32)
    vectors = {"bias": generator.standard_normal(rows, np.float32)} if with_bias else {}
    if with_norm:
        vectors["gamma"] = generator.standard_normal(rows, np.float32)
        vectors["beta"] = generator.standard_normal(rows, np.float32)
    residual = generator.standard_normal((tokens, rows), np.float32) if with_residual else None

    product = expected_product(matrix, "fp32", compute, x)
    before = product.y + vectors.get("bias", 0)
    y = activated(before, activation)
    # No activation is steeper than 1.2.
    tolerance = 1.2 * product.tolerance + 1e-6
    if activation != "none":
        tolerance += ACTIVATION_ERROR[compute] * np.maximum(1, np.abs(before))
    if residual is not None:
        y = y + residual
    if with_norm:
        deviation = np.sqrt(y.var(axis=1, keepdims=True) + 1e-5)
        y = (y - y.mean(axis=1, keepdims=True)) / deviation
        tolerance = 4 * tolerance.max(axis=1, keepdims=True) / deviation * (1 + np.abs(y))
        tolerance = tolerance * np.abs(vectors["gamma"]) + 1e-5
        y = y * vectors["gamma"] + vectors["beta"]
    layer = Layer(write_blob(matrix), rows, compute, activation, vectors)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("SMP_ENGINE_PLAN", "sparse")
        for isa in supported(engine):
            assert_near(run(engine, isa, layer, x, residual), Expected(y, tolerance), (isa, seed))


@settings(max_examples=25, deadline=None)
@given(rows=SIZES, columns=SIZES, tokens=st.integers(2, 150), density=DENSITIES, seed=SEEDS)
@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("compute", ["fp32", "int8"])
def test_nan_and_infinity_stay_in_their_token(
    engine: Any,
    write_blob: WriteBlob,
    compute: str,
    plan: str,
    rows: int,
    columns: int,
    tokens: int,
    density: float,
    seed: int,
) -> None:
    generator = np.random.default_rng(seed)
    matrix = make_matrix(rows, columns, density, seed)
    x = make_tokens(tokens, columns, seed)
    layer = Layer(write_blob(matrix), rows, compute)
    token, column = generator.integers(tokens), generator.integers(columns)
    bad = x.copy()
    bad[token, column] = generator.choice([np.nan, np.inf, -np.inf])
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("SMP_ENGINE_PLAN", plan)
        for isa in supported(engine):
            clean, y = run(engine, isa, layer, x), run(engine, isa, layer, bad)
            others = np.arange(tokens) != token
            np.testing.assert_array_equal(y[others], clean[others])
            if compute == "int8":
                assert np.isnan(y[token]).all(), (isa, seed)
            assert not np.isfinite(y[token, matrix[:, column] != 0]).any(), (isa, seed)


@settings(max_examples=15, deadline=None)
@given(rows=SIZES, columns=SIZES, tokens=st.integers(1, 300), density=DENSITIES, seed=SEEDS)
@pytest.mark.parametrize("compute", ["fp32", "int8"])
def test_the_number_of_threads_does_not_change_a_bit(
    engine: Any,
    write_blob: WriteBlob,
    compute: str,
    rows: int,
    columns: int,
    tokens: int,
    density: float,
    seed: int,
) -> None:
    matrix = make_matrix(rows, columns, density, seed)
    x = make_tokens(tokens, columns, seed)
    layer = Layer(write_blob(matrix), rows, compute)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("SMP_ENGINE_PLAN", "sparse")
        for isa in supported(engine):
            one = run(engine, isa, layer, x)
            for threads in (2, 3):
                np.testing.assert_array_equal(run(engine, isa, layer, x, threads=threads), one)


@settings(max_examples=30, deadline=None)
@given(rows=SIZES, columns=SIZES, tokens=TOKENS, density=DENSITIES, seed=SEEDS)
def test_sparse_and_dense_int8_agree_bit_for_bit(
    engine: Any,
    write_blob: WriteBlob,
    rows: int,
    columns: int,
    tokens: int,
    density: float,
    seed: int,
) -> None:
    layer = Layer(write_blob(make_matrix(rows, columns, density, seed), "int8"), rows, "int8")
    x = make_tokens(tokens, columns, seed)
    for isa in supported(engine):
        results = []
        for plan in PLANS:
            with pytest.MonkeyPatch.context() as environment:
                environment.setenv("SMP_ENGINE_PLAN", plan)
                results.append(run(engine, isa, layer, x))
        np.testing.assert_array_equal(results[0], results[1], err_msg=f"{isa}, {seed}")


@pytest.mark.parametrize("compute", ["fp32", "int8"])
@pytest.mark.parametrize("plan", PLANS)
def test_one_long_row_and_one_long_column(
    engine: Any, write_blob: WriteBlob, monkeypatch: pytest.MonkeyPatch, plan: str, compute: str
) -> None:
    monkeypatch.setenv("SMP_ENGINE_PLAN", plan)
    generator = np.random.default_rng(1)
    for rows, columns in ((1, 65536), (5000, 1)):
        matrix = generator.standard_normal((rows, columns), np.float32)
        x = generator.standard_normal((3, columns), np.float32)
        layer = Layer(write_blob(matrix, "fp32", "gaps"), rows, compute)
        expected = expected_product(matrix, "fp32", compute, x)
        for isa in supported(engine):
            assert_near(run(engine, isa, layer, x), expected, isa)


def test_the_largest_sums_of_int8_do_not_overflow(
    engine: Any, write_blob: WriteBlob, monkeypatch: pytest.MonkeyPatch
) -> None:
    columns = 65536
    matrix = np.repeat(np.float32([[127], [-127]]), columns, axis=1)
    layer = Layer(write_blob(matrix, "int8", "dense"), 2, "int8")
    for plan, value in itertools.product(PLANS, (2.0, -2.0)):
        monkeypatch.setenv("SMP_ENGINE_PLAN", plan)
        x = np.full((17, columns), value, np.float32)
        for isa in supported(engine):
            y = run(engine, isa, layer, x)
            np.testing.assert_allclose(y[:, 0], 127 * value * columns, rtol=1e-5)
            np.testing.assert_allclose(y[:, 1], -127 * value * columns, rtol=1e-5)


def test_no_tokens_are_no_error(engine: Any, write_blob: WriteBlob) -> None:
    layer = Layer(write_blob(make_matrix(3, 4, 0.5, 0)), 3, "fp32")
    assert run(engine, "scalar", layer, np.empty((0, 4), np.float32)).shape == (0, 3)


# ---------------------------------------------------------------- decoding


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
    halves = np.arange(2**16, dtype=np.uint16).view(np.float16)
    halves = halves[np.isfinite(halves)].reshape(1, -1)
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


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"activation": "sigmoid"}, "activation is 'sigmoid'; expected none"),
        ({"compute": "int4"}, "compute is 'int4'; expected fp32 or int8"),
        ({"blob": b"SMPX" + bytes(60)}, "weights: they do not start with the mark SMPW"),
        ({"threads": 0}, "threads is 0; expected 1 to"),
        ({"threads": 10**6}, "threads is 1000000; expected 1 to"),
        ({"gamma": True}, "gamma and beta go together"),
    ],
)
def test_errors_of_the_c_interface_are_one_line(
    engine: Any, write_blob: WriteBlob, changes: dict[str, Any], message: str
) -> None:
    blob = changes.get("blob", write_blob(make_matrix(3, 4, 1, 0)))
    error = ctypes.create_string_buffer(500)
    x, y = np.ones((1, 4), np.float32), np.ones((1, 3), np.float32)
    status = engine.smp_engine_linear(
        *(blob, len(blob), None, changes.get("activation", "none").encode()),
        *(changes.get("compute", "fp32").encode(), pointer(x), 1, None),
        *(pointer(y) if "gamma" in changes else None, None, 1e-5, pointer(y)),
        *(changes.get("threads", 1), error, len(error)),
    )
    assert status != 0
    assert message in error.value.decode()
    assert b"\n" not in error.value


def test_instruction_sets_that_are_not_there_are_not_forced(engine: Any) -> None:
    assert engine.smp_engine_supported(b"scalar") == 1
    assert engine.smp_engine_supported(b"mmx") == 0
    assert engine.smp_engine_force_isa(b"mmx") != 0
    assert engine.smp_engine_force_isa(None) != 0


def test_a_report_that_does_not_fit_says_what_it_needs(engine: Any) -> None:
    needed = engine.smp_engine_report(None, 0)
    text = ctypes.create_string_buffer(b"x" * needed)
    assert engine.smp_engine_report(text, needed - 1) == needed
    assert text.value == b"x" * needed
    assert engine.smp_engine_report(text, needed) == needed
    assert set(json.loads(text.value)) == {"isa", "nodes"}
