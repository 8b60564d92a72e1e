"""Every kernel of every instruction set against a dense float64 reference, through the C API."""

import ctypes
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.serve.c_api import pointer
from tests.serve.matrices import (
    DENSITIES,
    MASKS,
    SEEDS,
    SIZES,
    VALUES,
    int8_values,
    make_matrix,
    stored,
)
from tests.serve.op_models import ACTIVATIONS

Array = NDArray[Any]
WriteBlob = Callable[..., bytes]

ISAS = ("scalar", "avx2", "avx512", "avx512_vnni", "neon", "neon_dot", "neon_i8mm")
PLANS = ("sparse", "dense")
# Beside int8 products, activations are only as good as those resolve.
ACTIVATION_ERROR = {"fp32": 1e-6, "int8": 1.5e-4}


@pytest.fixture(autouse=True)
def _leave_as_found(engine: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    active = engine.smp_engine_isa()
    yield
    assert engine.smp_engine_force_isa(active) == 0


def supported(engine: Any) -> list[str]:
    return [isa for isa in ISAS if engine.smp_engine_supported(isa.encode())]


def make_tokens(tokens: int, columns: int, seed: int) -> Array:
    """Tokens of other sizes and offsets, one of zeros, some of one sign."""
    generator = np.random.default_rng(seed + 1)
    x = generator.standard_normal((tokens, columns)) + generator.normal(0, 2, (tokens, 1))
    x *= 10.0 ** generator.uniform(-3, 3, (tokens, 1))
    x[generator.integers(tokens)] = 0
    return x.astype(np.float32)


@dataclass(frozen=True)
class Case:
    """A matrix, and tokens to multiply with it."""

    rows: int
    columns: int
    tokens: int
    density: float
    seed: int

    @property
    def matrix(self) -> Array:
        return make_matrix(self.rows, self.columns, self.density, self.seed)

    @property
    def x(self) -> Array:
        return make_tokens(self.tokens, self.columns, self.seed)


def cases(fewest_tokens: int = 1, most_tokens: int = 150) -> st.SearchStrategy[Case]:
    tokens = st.integers(fewest_tokens, most_tokens)
    return st.builds(Case, SIZES, SIZES, tokens, DENSITIES, SEEDS)


@contextmanager
def forced_plan(plan: str) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("SMP_ENGINE_PLAN", plan)
        yield


@dataclass
class Layer:
    blob: bytes
    rows: int
    compute: str
    activation: str = "none"
    vectors: dict[str, Array] = field(default_factory=dict)  # bias, gamma, beta
    epsilon: float = 1e-5


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
    return int8_product(weights if values == "int8" else int8_values(weights), x)


def assert_near(y: Array, expected: Expected, note: object) -> None:
    worst = np.max(np.abs(y - expected.y) / expected.tolerance, initial=0)
    assert worst <= 1, f"{worst:.3g} times the tolerance, {note}"


@settings(max_examples=60, deadline=None)
@given(case=cases(), values=st.sampled_from(VALUES), mask=st.sampled_from(MASKS))
@example(case=Case(1, 1, 1, 1.0, 0), values="fp32", mask="bitmap")
@example(case=Case(200, 200, 150, 0.0, 0), values="int8", mask="gaps")
@example(case=Case(7, 129, 65, 1.0, 0), values="int8", mask="dense")
@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("compute", ["fp32", "int8"])
def test_products_match_the_reference_on_every_instruction_set(
    engine: Any, write_blob: WriteBlob, compute: str, plan: str, case: Case, values: str, mask: str
) -> None:
    matrix = case.matrix
    if values == "fp16":
        matrix = matrix.clip(-60000, 60000)
    x = case.x
    layer = Layer(write_blob(matrix, values, mask), case.rows, compute)
    expected = expected_product(matrix, values, compute, x)
    with forced_plan(plan):
        for isa in supported(engine):
            assert_near(run(engine, isa, layer, x), expected, (isa, case))


@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(1, 80),
    columns=st.integers(1, 80),
    tokens=st.integers(1, 70),
    with_bias=st.booleans(),
    with_residual=st.booleans(),
    with_norm=st.booleans(),
    activation=st.sampled_from(list(ACTIVATIONS)),
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
    y = ACTIVATIONS[activation](before)
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
    with forced_plan("sparse"):
        for isa in supported(engine):
            assert_near(run(engine, isa, layer, x, residual), Expected(y, tolerance), (isa, seed))


@settings(max_examples=25, deadline=None)
@given(case=cases(fewest_tokens=2))
@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("compute", ["fp32", "int8"])
def test_nan_and_infinity_stay_in_their_token(
    engine: Any, write_blob: WriteBlob, compute: str, plan: str, case: Case
) -> None:
    generator = np.random.default_rng(case.seed)
    matrix, x = case.matrix, case.x
    layer = Layer(write_blob(matrix), case.rows, compute)
    token, column = generator.integers(case.tokens), generator.integers(case.columns)
    bad = x.copy()
    bad[token, column] = generator.choice([np.nan, np.inf, -np.inf])
    with forced_plan(plan):
        for isa in supported(engine):
            clean, y = run(engine, isa, layer, x), run(engine, isa, layer, bad)
            others = np.arange(case.tokens) != token
            np.testing.assert_array_equal(y[others], clean[others])
            if compute == "int8":
                assert np.isnan(y[token]).all(), (isa, case)
            assert not np.isfinite(y[token, matrix[:, column] != 0]).any(), (isa, case)


@settings(max_examples=15, deadline=None)
@given(case=cases(most_tokens=300))
@pytest.mark.parametrize("compute", ["fp32", "int8"])
def test_the_number_of_threads_does_not_change_a_bit(
    engine: Any, write_blob: WriteBlob, compute: str, case: Case
) -> None:
    matrix, x = case.matrix, case.x
    layer = Layer(write_blob(matrix), case.rows, compute)
    with forced_plan("sparse"):
        for isa in supported(engine):
            one = run(engine, isa, layer, x)
            for threads in (2, 3):
                np.testing.assert_array_equal(run(engine, isa, layer, x, threads=threads), one)


@settings(max_examples=30, deadline=None)
@given(case=cases())
def test_sparse_and_dense_int8_agree_bit_for_bit(
    engine: Any, write_blob: WriteBlob, case: Case
) -> None:
    layer = Layer(write_blob(case.matrix, "int8"), case.rows, "int8")
    x = case.x
    for isa in supported(engine):
        results = []
        for plan in PLANS:
            with forced_plan(plan):
                results.append(run(engine, isa, layer, x))
        np.testing.assert_array_equal(results[0], results[1], err_msg=f"{isa}, {case}")


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
    matrix = np.repeat(np.array([[127], [-127]], np.float32), columns, axis=1)
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
