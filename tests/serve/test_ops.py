"""The operators inside ONNX Runtime: results, shapes, errors, threads, and what sessions share."""

import ctypes
import gc
import itertools
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Array = NDArray[Any]
WriteBlob = Callable[..., bytes]
Shape = list[int | str | None] | None

COLUMNS, ROWS = 20, 9
HIDDEN, INTERMEDIATE, HEADS = 16, 24, 2
EPSILON = 1e-5
LINEAR_INPUTS = ("X", "W", "bias", "residual", "gamma", "beta")
LAYER_INPUTS = (
    *("q_w", "q_b", "k_w", "k_b", "v_w", "v_b", "o_w", "o_b", "ln1_gamma", "ln1_beta"),
    *("f1_w", "f1_b", "f2_w", "f2_b", "ln2_gamma", "ln2_beta"),
)
ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "none": lambda x: x,
    "gelu": lambda x: 0.5 * x * (1 + np.vectorize(math.erf, otypes=[float])(x / math.sqrt(2))),
    "gelu_tanh": lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "relu": lambda x: np.maximum(x, 0),
    "tanh": np.tanh,
    "silu": lambda x: x / (1 + np.exp(-x)),
}

pytestmark = pytest.mark.usefixtures("native_library")

infers_shapes = pytest.mark.skipif(
    tuple(int(part) for part in onnxruntime.__version__.split(".")[:2]) < (1, 24),
    reason="before 1.24, ONNX Runtime crashes when it infers shapes without an optional input",
)


# ---------------------------------------------------------------- models of one node


def sparse(rows: int, columns: int, seed: int, density: float = 0.3) -> Array:
    generator = np.random.default_rng(seed)
    matrix = generator.standard_normal((rows, columns)) / math.sqrt(columns * density)
    matrix[generator.random((rows, columns)) >= density] = 0
    matrix[rows // 2] = 0
    return matrix.astype(np.float32)


def as_blob(data: bytes) -> Array:
    return np.frombuffer(data, np.uint8)


def one_node(
    op: str,
    inputs: list[str],
    constants: Mapping[str, Array],
    shapes: Mapping[str, Shape],
    attributes: Mapping[str, object],
    output: Shape = None,
) -> bytes:
    types = {"mask": TensorProto.INT64, "W": TensorProto.UINT8}
    graph = helper.make_graph(
        [helper.make_node(op, inputs, ["Y"], "the_node", domain="smp", **attributes)],
        "graph",
        [
            helper.make_tensor_value_info(name, types.get(name, TensorProto.FLOAT), shapes[name])
            for name in inputs
            if name and name not in constants
        ],
        [helper.make_tensor_value_info("Y", TensorProto.FLOAT, output)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("smp", 1)]
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    return model.SerializeToString()


@pytest.fixture
def open_model(native_library: Path) -> Callable[..., onnxruntime.InferenceSession]:
    def open_it(model: bytes, threads: int = 1) -> onnxruntime.InferenceSession:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 4
        options.register_custom_ops_library(str(native_library))
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    return open_it


class LinearModel:
    """A model of one SmpLinear; every part of it can be replaced."""

    def __init__(self, blob: bytes) -> None:
        generator = np.random.default_rng(3)
        self.constants: dict[str, Array] = {
            "W": as_blob(blob),
            **{name: generator.standard_normal(ROWS, np.float32) for name in LINEAR_INPUTS[2:]},
        }
        del self.constants["residual"]
        self.inputs = ["X", "W"]
        self.shapes: dict[str, Shape] = dict.fromkeys(LINEAR_INPUTS)
        self.attributes: dict[str, object] = {
            "in_features": COLUMNS,
            "out_features": ROWS,
            "activation": "none",
            "epsilon": EPSILON,
            "compute": "fp32",
        }

    def use(self, *optional: str) -> "LinearModel":
        wanted = {"X", "W", *optional}
        self.inputs = [name if name in wanted else "" for name in LINEAR_INPUTS]
        while not self.inputs[-1]:
            self.inputs.pop()
        return self

    def serialised(self) -> bytes:
        constants = {name: self.constants[name] for name in self.inputs if name in self.constants}
        return one_node("SmpLinear", self.inputs, constants, self.shapes, self.attributes)

    def expected(self, matrix: Array, x: Array, residual: Array | None = None) -> Array:
        used = set(self.inputs)
        y = x.astype(np.float64) @ matrix.astype(np.float64).T
        if "bias" in used:
            y = y + self.constants["bias"]
        y = ACTIVATIONS[str(self.attributes["activation"])](y)
        if residual is not None:
            y = y + residual
        if "gamma" in used:
            y = norm(y, self.constants["gamma"], self.constants["beta"])
        return y


def norm(x: Array, gamma: Array, beta: Array) -> Array:
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = (centred**2).mean(axis=-1, keepdims=True)
    normed: Array = centred / np.sqrt(variance + EPSILON) * gamma + beta
    return normed


@pytest.fixture
def matrix() -> Array:
    return sparse(ROWS, COLUMNS, seed=1)


@pytest.fixture
def linear(matrix: Array, write_blob: WriteBlob) -> LinearModel:
    return LinearModel(write_blob(matrix))


def values(*shape: int, seed: int = 5) -> Array:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


class EncoderModel:
    """A model of one SmpEncoder; every part of it can be replaced."""

    def __init__(self, write_blob: WriteBlob, layers: int = 2) -> None:
        generator = np.random.default_rng(11)
        self.weights: dict[str, Array] = {}
        self.constants: dict[str, Array] = {}
        for layer, name in itertools.product(range(layers), LAYER_INPUTS):
            rows = INTERMEDIATE if name.startswith("f1") else HIDDEN
            columns = INTERMEDIATE if name.startswith("f2") else HIDDEN
            full = f"{name}.{layer}"
            if name.endswith("_w"):
                self.weights[full] = sparse(rows, columns, seed=len(self.weights))
                self.constants[full] = as_blob(write_blob(self.weights[full]))
            else:
                self.constants[full] = 0.5 * generator.standard_normal(rows, np.float32)
        self.layers = layers
        self.inputs = ["X", "mask", *self.constants]
        self.shapes: dict[str, Shape] = {"X": None, "mask": None}
        self.attributes: dict[str, object] = {
            "layers": layers,
            "heads": HEADS,
            "hidden": HIDDEN,
            "intermediate": INTERMEDIATE,
            "activation": "gelu",
            "epsilon": EPSILON,
            "scale": 1 / math.sqrt(HIDDEN / HEADS),
            "compute": "fp32",
            "tokens": "all",
        }

    def without_mask(self) -> "EncoderModel":
        self.inputs[1] = ""
        return self

    def with_input_norm(self) -> "EncoderModel":
        generator = np.random.default_rng(5)
        for name in ("input_gamma", "input_beta"):
            self.constants[name] = generator.standard_normal(HIDDEN, np.float32)
            self.inputs.append(name)
        return self

    def serialised(self) -> bytes:
        used = {name: array for name, array in self.constants.items() if name in self.inputs}
        return one_node("SmpEncoder", self.inputs, used, self.shapes, self.attributes)

    def expected(self, x: Array, mask: Array | None = None) -> Array:
        y = np.zeros(x.shape)
        for index in range(x.shape[0]):
            there = slice(None) if mask is None else mask[index] != 0
            if x[index, there].size:
                y[index, there] = self._sequence(x[index, there].astype(np.float64))
        return y[:, :1] if self.attributes["tokens"] == "first" else y

    def _sequence(self, x: Array) -> Array:
        if "input_gamma" in self.constants:
            x = norm(x, self.constants["input_gamma"], self.constants["input_beta"])
        for layer in range(self.layers):
            query, key, value = (self._product(name, layer, x) for name in ("q", "k", "v"))
            context = np.concatenate(
                [
                    self._attention(*parts)
                    for parts in zip(
                        *(np.split(part, HEADS, axis=1) for part in (query, key, value)),
                        strict=True,
                    )
                ],
                axis=1,
            )
            x = self._norm("ln1", layer, x + self._product("o", layer, context))
            inner = ACTIVATIONS[str(self.attributes["activation"])](self._product("f1", layer, x))
            x = self._norm("ln2", layer, x + self._product("f2", layer, inner))
        return x

    def _attention(self, query: Array, key: Array, value: Array) -> Array:
        scores = query @ key.T * self.attributes["scale"]
        weights = np.exp(scores - scores.max(axis=1, keepdims=True))
        attended: Array = weights / weights.sum(axis=1, keepdims=True) @ value
        return attended

    def _product(self, name: str, layer: int, x: Array) -> Array:
        bias = self.constants[f"{name}_b.{layer}"]
        product: Array = x @ self.weights[f"{name}_w.{layer}"].astype(np.float64).T + bias
        return product

    def _norm(self, name: str, layer: int, x: Array) -> Array:
        gamma, beta = (self.constants[f"{name}_{part}.{layer}"] for part in ("gamma", "beta"))
        return norm(x, gamma, beta)


@pytest.fixture
def encoder(write_blob: WriteBlob) -> EncoderModel:
    return EncoderModel(write_blob)


# ---------------------------------------------------------------- SmpLinear: results and shapes


@pytest.mark.parametrize("shape", [(), (1,), (7,), (2, 3), (1, 2, 65), (2, 1, 3, 2)])
def test_linear_takes_any_rank(
    open_model: Any, linear: LinearModel, matrix: Array, shape: tuple[int, ...]
) -> None:
    x = values(*shape, COLUMNS)
    (y,) = open_model(linear.serialised()).run(None, {"X": x})
    assert y.shape == (*shape, ROWS)
    np.testing.assert_allclose(y, linear.expected(matrix, x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("compute", ["fp32", "int8"])
@pytest.mark.parametrize(
    "optional",
    [
        *[(), ("bias",), ("residual",), ("gamma", "beta"), ("bias", "residual")],
        *[("bias", "gamma", "beta"), ("residual", "gamma", "beta"), LINEAR_INPUTS[2:]],
    ],
    ids=lambda names: "+".join(names) or "none",
)
def test_linear_optional_inputs(
    open_model: Any, linear: LinearModel, matrix: Array, optional: tuple[str, ...], compute: str
) -> None:
    linear.use(*optional).attributes.update(activation="gelu", compute=compute)
    feeds = {"X": values(33, COLUMNS)}
    if "residual" in optional:
        feeds["residual"] = values(33, ROWS, seed=6)
    (y,) = open_model(linear.serialised()).run(None, feeds)
    expected = linear.expected(matrix, feeds["X"], feeds.get("residual"))
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5 if compute == "fp32" else 0.1)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_linear_activations(
    open_model: Any, linear: LinearModel, matrix: Array, activation: str
) -> None:
    linear.use("bias").attributes["activation"] = activation
    x = 4 * values(40, COLUMNS)
    (y,) = open_model(linear.serialised()).run(None, {"X": x})
    np.testing.assert_allclose(y, linear.expected(matrix, x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(0,), (0, 4), (2, 0), (2, 0, 3)])
def test_linear_of_nothing_is_empty(
    open_model: Any, linear: LinearModel, shape: tuple[int, ...]
) -> None:
    session = open_model(linear.use("residual").serialised())
    feeds = {"X": values(*shape, COLUMNS), "residual": values(*shape, ROWS)}
    assert session.run(None, feeds)[0].shape == (*shape, ROWS)


def test_linear_nan_and_infinity_stay_in_their_token(open_model: Any, linear: LinearModel) -> None:
    for compute in ("fp32", "int8"):
        linear.use("bias", "gamma", "beta").attributes["compute"] = compute
        session = open_model(linear.serialised())
        x = values(20, COLUMNS)
        (clean,) = session.run(None, {"X": x})
        x[3, 4], x[10, 0], x[17, 19] = np.nan, np.inf, -np.inf
        (y,) = session.run(None, {"X": x})
        bad = [3, 10, 17]
        assert np.isnan(y[bad]).all()
        np.testing.assert_array_equal(np.delete(y, bad, 0), np.delete(clean, bad, 0))


@infers_shapes
def test_linear_infers_shapes_with_their_names(open_model: Any, linear: LinearModel) -> None:
    linear.shapes["X"] = ["batch", 5, COLUMNS]
    assert open_model(linear.serialised()).get_outputs()[0].shape == ["batch", 5, ROWS]
    linear.shapes["X"] = ["batch", "sequence", "features"]
    assert open_model(linear.serialised()).get_outputs()[0].shape == ["batch", "sequence", ROWS]


@infers_shapes
def test_linear_shape_inference_stands_optional_inputs_left_out(
    open_model: Any, linear: LinearModel, matrix: Array
) -> None:
    linear.use("gamma", "beta").shapes["X"] = ["batch", COLUMNS]
    session = open_model(linear.serialised())
    assert session.get_outputs()[0].shape == ["batch", ROWS]
    x = values(3, COLUMNS)
    (y,) = session.run(None, {"X": x})
    np.testing.assert_allclose(y, linear.expected(matrix, x), rtol=1e-5, atol=1e-5)


def test_a_graph_of_constants_alone_works(
    open_model: Any, linear: LinearModel, matrix: Array
) -> None:
    x = values(4, COLUMNS)
    linear.constants["X"] = x
    (y,) = open_model(linear.serialised()).run(None, {})
    np.testing.assert_allclose(y, linear.expected(matrix, x), rtol=1e-5, atol=1e-5)


# ---------------------------------------------------------------- SmpLinear: errors


def break_linear(name: str, linear: LinearModel, write_blob: WriteBlob) -> None:
    constants, attributes = linear.constants, linear.attributes
    blob = constants["W"].tobytes()
    if name == "truncated":
        constants["W"] = as_blob(blob[:-1])
    elif name == "not weights":
        constants["W"] = np.zeros(100, np.uint8)
    elif name == "no bytes":
        constants["W"] = np.zeros(0, np.uint8)
    elif name == "W of two dimensions":
        constants["W"] = as_blob(blob)[None]
    elif name == "W fed":
        del constants["W"]
    elif name == "bias fed":
        del constants["bias"]
    elif name == "bias too short":
        constants["bias"] = constants["bias"][1:]
    elif name == "bias of two dimensions":
        constants["bias"] = constants["bias"][None]
    elif name == "gamma too long":
        constants["gamma"] = np.ones(ROWS + 1, np.float32)
    elif name == "gamma alone":
        linear.use("bias", "gamma")
    elif name == "other attributes":
        attributes.update(in_features=ROWS, out_features=COLUMNS)
    elif name == "huge":
        attributes["out_features"] = 2**62
    elif name == "negative":
        attributes["in_features"] = -COLUMNS
    elif name == "no out_features":
        del attributes["out_features"]
    elif name == "in_features a text":
        attributes["in_features"] = "20"
    elif name == "activation":
        attributes["activation"] = "sigmoid"
    elif name == "compute":
        attributes["compute"] = "int4"
    elif name == "epsilon":
        attributes["epsilon"] = math.nan


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("truncated", "input W: truncated: the values need"),
        ("not weights", "input W: they do not start with the mark SMPW"),
        ("no bytes", "input W: 0 bytes are fewer than the header's 32"),
        ("W of two dimensions", r"input W must be a uint8 tensor with 1 dimension\(s\)"),
        ("W fed", "input W must be a constant initializer"),
        ("bias fed", "input bias must be a constant initializer"),
        ("bias too short", "input bias has 8 elements; expected 9"),
        ("bias of two dimensions", r"input bias must be a float tensor .* its shape is \[1, 9\]"),
        ("gamma too long", "input gamma has 10 elements; expected 9"),
        ("gamma alone", "gamma and beta go together"),
        ("other attributes", r"input W is 9 x 20 .* attributes say 20 x 9"),
        ("huge", "out_features is 4611686018427387904; expected 1 to"),
        ("negative", "in_features is -20; expected 1 to"),
        ("no out_features", r"needs the attribute out_features \(int\)"),
        ("in_features a text", r"needs the attribute in_features \(int\)"),
        ("activation", "activation is 'sigmoid'; expected none, gelu"),
        ("compute", "compute is 'int4'; expected fp32 or int8"),
        ("epsilon", "epsilon is not finite"),
    ],
)
def test_a_broken_linear_is_refused_when_the_session_is_opened(
    open_model: Any, linear: LinearModel, write_blob: WriteBlob, name: str, message: str
) -> None:
    linear.use("bias", "gamma", "beta")
    break_linear(name, linear, write_blob)
    with pytest.raises(Exception, match=f"SmpLinear node 'the_node': {message}"):
        open_model(linear.serialised())


def test_a_known_wrong_number_of_features_is_refused(open_model: Any, linear: LinearModel) -> None:
    linear.shapes["X"] = ["batch", COLUMNS + 1]
    # Not earlier: ONNX Runtime drops the errors of shape inference.
    with pytest.raises(Exception, match=r"X has the shape \[4, 21\]; expected \[..., 20\]"):
        open_model(linear.serialised()).run(None, {"X": values(4, COLUMNS + 1)})


@pytest.mark.parametrize(
    ("x_shape", "residual_shape", "message"),
    [
        ((), (ROWS,), r"X has the shape \[\]; expected \[..., 20\]"),
        ((4, 19), (4, ROWS), r"X has the shape \[4, 19\]; expected \[..., 20\]"),
        ((COLUMNS, 4), (COLUMNS, ROWS), r"X has the shape \[20, 4\]; expected \[..., 20\]"),
        ((4, 0), (4, ROWS), r"X has the shape \[4, 0\]; expected \[..., 20\]"),
        ((4, COLUMNS), (3, ROWS), r"residual has the shape \[3, 9\]; expected \[4, 9\]"),
        ((4, COLUMNS), (1, 4, ROWS), r"residual has the shape \[1, 4, 9\]; expected \[4, 9\]"),
        ((4, COLUMNS), (ROWS,), r"residual has the shape \[9\]; expected \[4, 9\]"),
    ],
)
def test_wrong_shapes_end_that_run_alone(
    open_model: Any,
    linear: LinearModel,
    matrix: Array,
    x_shape: tuple[int, ...],
    residual_shape: tuple[int, ...],
    message: str,
) -> None:
    session = open_model(linear.use("residual").serialised())
    wrong = {"X": values(*x_shape), "residual": values(*residual_shape)}
    with pytest.raises(Exception, match=f"the_node.*{message}"):
        session.run(None, wrong)
    right = {"X": values(4, COLUMNS), "residual": values(4, ROWS)}
    (y,) = session.run(None, right)
    expected = linear.expected(matrix, right["X"], right["residual"])
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)


# ---------------------------------------------------------------- SmpEncoder


def a_mask(batch: int, sequence: int) -> Array:
    """Padding behind, a hole in the middle, nothing at all, padding in front."""
    mask = np.ones((batch, sequence), np.int64)
    mask[0, sequence // 2 :] = 0
    mask[1 % batch, 1] = 0
    mask[2:3] = 0
    mask[3:4, 0] = 0
    return mask


@pytest.mark.parametrize("tokens", ["all", "first"])
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize(("batch", "sequence"), [(1, 1), (1, 7), (4, 5), (3, 70)])
def test_encoder_matches_the_reference(
    open_model: Any, encoder: EncoderModel, batch: int, sequence: int, masked: bool, tokens: str
) -> None:
    encoder.attributes["tokens"] = tokens
    feeds = {"X": values(batch, sequence, HIDDEN)}
    mask = None
    if masked:
        feeds["mask"] = mask = a_mask(batch, max(sequence, 2))[:, :sequence]
    else:
        encoder.without_mask()
    (y,) = open_model(encoder.serialised(), threads=2).run(None, feeds)
    assert y.shape == (batch, 1 if tokens == "first" else sequence, HIDDEN)
    np.testing.assert_allclose(y, encoder.expected(feeds["X"], mask), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("tokens", ["all", "first"])
def test_encoder_normalises_its_input_where_asked(
    open_model: Any, encoder: EncoderModel, tokens: str
) -> None:
    encoder.attributes["tokens"] = tokens
    encoder.with_input_norm()
    x, mask = 3 * values(3, 9, HIDDEN) + 1, a_mask(3, 9)
    (y,) = open_model(encoder.serialised()).run(None, {"X": x, "mask": mask})
    np.testing.assert_allclose(y, encoder.expected(x, mask), rtol=1e-4, atol=1e-4)


def test_encoder_in_int8_is_near(open_model: Any, encoder: EncoderModel) -> None:
    encoder.without_mask().attributes["compute"] = "int8"
    x = values(2, 40, HIDDEN)
    (y,) = open_model(encoder.serialised()).run(None, {"X": x})
    assert np.abs(y - encoder.expected(x)).mean() < 0.03


@pytest.mark.parametrize("compute", ["fp32", "int8"])
def test_what_is_masked_away_does_not_matter(
    open_model: Any, encoder: EncoderModel, compute: str
) -> None:
    encoder.attributes["compute"] = compute
    session = open_model(encoder.serialised())
    mask = a_mask(4, 9)
    x = values(4, 9, HIDDEN)
    (clean,) = session.run(None, {"X": x, "mask": mask})
    x[mask == 0] = np.nan
    (y,) = session.run(None, {"X": x, "mask": 7 * mask})  # any number but 0 is there
    np.testing.assert_array_equal(y, clean)
    assert not y[mask == 0].any()


def test_encoder_nan_stays_in_its_sequence(open_model: Any, encoder: EncoderModel) -> None:
    for compute in ("fp32", "int8"):
        encoder.without_mask().attributes["compute"] = compute
        session = open_model(encoder.serialised())
        x = values(3, 21, HIDDEN)
        (clean,) = session.run(None, {"X": x})
        x[1, 4, 2] = np.inf
        (y,) = session.run(None, {"X": x})
        np.testing.assert_array_equal(y[[0, 2]], clean[[0, 2]])
        assert np.isnan(y[1]).all()


@pytest.mark.parametrize("tokens", ["all", "first"])
@pytest.mark.parametrize("shape", [(0, 3), (2, 0), (0, 0)])
def test_an_encoder_of_nothing_is_empty(
    open_model: Any, encoder: EncoderModel, shape: tuple[int, int], tokens: str
) -> None:
    encoder.attributes["tokens"] = tokens
    session = open_model(encoder.serialised())
    (y,) = session.run(None, {"X": values(*shape, HIDDEN), "mask": np.ones(shape, np.int64)})
    assert y.size == 0
    assert y.shape[0] == shape[0]
    assert y.shape[2] == HIDDEN


@infers_shapes
def test_encoder_infers_shapes(open_model: Any, encoder: EncoderModel) -> None:
    encoder.shapes.update(X=["batch", "sequence", HIDDEN], mask=["batch", "sequence"])
    session = open_model(encoder.serialised())
    assert session.get_outputs()[0].shape == ["batch", "sequence", HIDDEN]
    encoder.attributes["tokens"] = "first"
    session = open_model(encoder.without_mask().serialised())
    assert session.get_outputs()[0].shape == ["batch", 1, HIDDEN]


def break_encoder(name: str, encoder: EncoderModel, write_blob: WriteBlob) -> None:
    constants, attributes = encoder.constants, encoder.attributes
    if name == "an input missing":
        encoder.inputs.pop()
    elif name == "a layer too many":
        attributes["layers"] = 3
    elif name == "no layers":
        attributes["layers"] = 0
    elif name == "heads":
        attributes["heads"] = 3
    elif name == "tokens":
        attributes["tokens"] = "last"
    elif name == "swapped":
        constants["f1_w.1"], constants["f2_w.1"] = constants["f2_w.1"], constants["f1_w.1"]
    elif name == "floats for weights":
        constants["q_w.0"] = np.ones(9, np.float32)
    elif name == "bytes for a bias":
        constants["o_b.1"] = np.ones(HIDDEN, np.uint8)
    elif name == "corrupt":
        constants["v_w.1"] = constants["v_w.1"][:-3]
    elif name == "short norm":
        constants["ln2_beta.0"] = np.ones(2, np.float32)
    elif name == "scale":
        attributes["scale"] = math.inf


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("an input missing", r"has 33 inputs; 2 layer\(s\) need 34"),
        ("a layer too many", r"has 34 inputs; 3 layer\(s\) need 50"),
        ("no layers", "layers is 0; expected 1 to"),
        ("heads", "heads is 3, which does not divide hidden 16"),
        ("tokens", "tokens is 'last'; expected all or first"),
        ("swapped", "input f1_w of layer 1 is 16 x 24 .* say 24 x 16"),
        ("floats for weights", "input q_w of layer 0 must be a uint8 tensor"),
        ("bytes for a bias", "input o_b of layer 1 must be a float tensor"),
        ("corrupt", "input v_w of layer 1: truncated"),
        ("short norm", "input ln2_beta of layer 0 has 2 elements; expected 16"),
        ("scale", "scale is not finite"),
    ],
)
def test_a_broken_encoder_is_refused_when_the_session_is_opened(
    open_model: Any, encoder: EncoderModel, write_blob: WriteBlob, name: str, message: str
) -> None:
    break_encoder(name, encoder, write_blob)
    with pytest.raises(Exception, match=f"SmpEncoder node 'the_node': {message}"):
        open_model(encoder.serialised())


def test_a_weight_left_out_is_refused(open_model: Any, encoder: EncoderModel) -> None:
    encoder.inputs[2] = ""
    with pytest.raises(Exception, match="Input2 is absent, but not optional"):
        open_model(encoder.serialised())


@pytest.mark.parametrize(
    ("x_shape", "mask_shape", "message"),
    [
        ((3, HIDDEN), (3, 1), r"X has the shape \[3, 16\]; expected \[batch, sequence, 16\]"),
        ((1, 3, 15), (1, 3), r"X has the shape \[1, 3, 15\]"),
        ((2, 3, HIDDEN), (2, 4), r"mask has the shape \[2, 4\]; expected \[2, 3\]"),
        ((2, 3, HIDDEN), (2, 1, 1, 3), r"mask has the shape \[2, 1, 1, 3\]; expected \[2, 3\]"),
        ((2, 3, HIDDEN), (6,), r"mask has the shape \[6\]; expected \[2, 3\]"),
    ],
)
def test_wrong_shapes_of_an_encoder_end_that_run_alone(
    open_model: Any,
    encoder: EncoderModel,
    x_shape: tuple[int, ...],
    mask_shape: tuple[int, ...],
    message: str,
) -> None:
    session = open_model(encoder.serialised())
    with pytest.raises(Exception, match=f"the_node.*{message}"):
        session.run(None, {"X": values(*x_shape), "mask": np.ones(mask_shape, np.int64)})
    x = values(2, 3, HIDDEN)
    (y,) = session.run(None, {"X": x, "mask": np.ones((2, 3), np.int64)})
    np.testing.assert_allclose(y, encoder.expected(x), rtol=1e-4, atol=1e-4)


# ---------------------------------------------------------------- threads and sessions


@pytest.mark.parametrize("compute", ["fp32", "int8"])
@pytest.mark.parametrize("op", ["linear", "encoder"])
def test_the_number_of_threads_does_not_change_a_bit(
    open_model: Any, linear: LinearModel, encoder: EncoderModel, op: str, compute: str
) -> None:
    model: LinearModel | EncoderModel = linear.use("bias", "gamma", "beta")
    feeds = {"X": values(300, COLUMNS)}
    if op == "encoder":
        model = encoder
        feeds = {"X": values(4, 90, HIDDEN), "mask": a_mask(4, 90)}
    model.attributes["compute"] = compute
    outputs = [open_model(model.serialised(), threads).run(None, feeds)[0] for threads in (1, 2, 3)]
    np.testing.assert_array_equal(outputs[1], outputs[0])
    np.testing.assert_array_equal(outputs[2], outputs[0])


@pytest.mark.parametrize("op", ["linear", "encoder"])
def test_runs_of_one_session_may_overlap(
    open_model: Any, linear: LinearModel, encoder: EncoderModel, op: str
) -> None:
    batches: list[dict[str, Array]]
    if op == "linear":
        batches = [{"X": values(7 * i, COLUMNS, seed=i)} for i in range(12)]
        model = linear.use("bias", "gamma", "beta").serialised()
    else:
        sizes = [(1 + i % 4, 3 + 7 * i) for i in range(12)]
        batches = [{"X": values(*size, HIDDEN), "mask": a_mask(*size)} for size in sizes]
        model = encoder.serialised()
    session = open_model(model, threads=2)
    serial = [session.run(None, feeds)[0] for feeds in batches]
    with ThreadPoolExecutor(6) as pool:
        for _ in range(5):
            together = pool.map(lambda feeds: session.run(None, feeds)[0], batches)
            for expected, y in zip(serial, together, strict=True):
                np.testing.assert_array_equal(y, expected)


def test_sessions_may_be_opened_and_closed_side_by_side(
    open_model: Any, encoder: EncoderModel, engine: Any
) -> None:
    model = encoder.serialised()
    feeds = {"X": values(2, 9, HIDDEN), "mask": a_mask(2, 9)}
    expected = open_model(model).run(None, feeds)[0]

    def open_and_run(_: int) -> Array:
        report(engine)
        y: Array = open_model(model).run(None, feeds)[0]
        return y

    with ThreadPoolExecutor(4) as pool:
        for y in pool.map(open_and_run, range(16)):
            np.testing.assert_array_equal(y, expected)


def report(engine: Any) -> dict[str, Any]:
    text = ctypes.create_string_buffer(2 * engine.smp_engine_report(None, 0) + 4096)
    assert engine.smp_engine_report(text, len(text)) <= len(text)
    content: dict[str, Any] = json.loads(text.value)
    return content


@pytest.fixture
def nothing_open(engine: Any) -> Iterator[None]:
    gc.collect()
    assert report(engine)["nodes"] == []
    yield
    gc.collect()


@pytest.mark.usefixtures("nothing_open")
def test_sessions_share_equal_weights(open_model: Any, encoder: EncoderModel, engine: Any) -> None:
    assert engine.smp_engine_products_held() == 0
    first = open_model(encoder.serialised())
    assert engine.smp_engine_products_held() == len(encoder.weights)
    second = open_model(encoder.serialised())
    assert engine.smp_engine_products_held() == len(encoder.weights)
    del first
    gc.collect()
    feeds = {"X": values(2, 9, HIDDEN), "mask": a_mask(2, 9)}
    expected = encoder.expected(feeds["X"], feeds["mask"])
    np.testing.assert_allclose(second.run(None, feeds)[0], expected, rtol=1e-4, atol=1e-4)
    del second
    gc.collect()
    assert engine.smp_engine_products_held() == 0


@pytest.mark.usefixtures("nothing_open")
def test_the_report_lists_live_nodes_and_times_them(
    open_model: Any, linear: LinearModel, encoder: EncoderModel, engine: Any
) -> None:
    sessions = [open_model(linear.serialised()), open_model(encoder.without_mask().serialised())]
    for _ in range(3):
        sessions[0].run(None, {"X": values(200, COLUMNS)})
        sessions[1].run(None, {"X": values(2, 50, HIDDEN)})
    content = report(engine)
    assert content["isa"] == engine.smp_engine_isa().decode()
    assert [(node["node"], node["op"]) for node in content["nodes"]] == [
        ("the_node", "SmpLinear"),
        ("the_node", "SmpEncoder"),
    ]
    assert len(content["nodes"][0]["plan"]) == 1
    for node in content["nodes"]:
        assert all({"name", "kernel", "density"} <= set(entry) for entry in node["plan"])
        assert sum(node["profile"].values()) > 0
    engine.smp_engine_reset_profile()
    assert all(sum(node["profile"].values()) == 0 for node in report(engine)["nodes"])
    sessions.clear()
    gc.collect()
    assert report(engine)["nodes"] == []


def test_the_instruction_set_is_logged_once(
    native_library: Path, linear: LinearModel, engine: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 1
    options.register_custom_ops_library(str(native_library))
    session = onnxruntime.InferenceSession(
        linear.serialised(), options, providers=["CPUExecutionProvider"]
    )
    capfd.readouterr()
    for _ in range(2):
        session.run(None, {"X": values(2, COLUMNS)})
    logged = capfd.readouterr().err
    isa = engine.smp_engine_isa().decode()
    assert logged.count(f"SmpLinear node 'the_node' uses the instruction set {isa}") == 1


def test_the_report_escapes_names(open_model: Any, linear: LinearModel, engine: Any) -> None:
    model = onnx.load_from_string(linear.serialised())
    model.graph.node[0].name = name = 'a "quoted"\\\n name é'
    session = open_model(model.SerializeToString())
    nodes = report(engine)["nodes"]
    assert [node["node"] for node in nodes] == [name]
    assert session is not None


# ---------------------------------------------------------------- registration


def test_an_old_runtime_is_told_so(native_library: Path) -> None:
    create_status = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p)
    get_api = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_uint32)
    get_version = ctypes.CFUNCTYPE(ctypes.c_void_p)
    messages: list[bytes] = []

    @create_status
    def create(code: int, message: bytes) -> int:
        messages.append(message)
        return 4711

    table = (ctypes.c_void_p * 1)(ctypes.cast(create, ctypes.c_void_p))
    version = ctypes.create_string_buffer(b"1.9.0")
    functions = (
        get_api(lambda wanted: ctypes.addressof(table) if wanted <= 9 else None),
        get_version(lambda: ctypes.addressof(version)),
    )
    base = (ctypes.c_void_p * 2)(*(ctypes.cast(entry, ctypes.c_void_p) for entry in functions))
    register = ctypes.CDLL(str(native_library)).RegisterCustomOps
    register.restype = ctypes.c_void_p
    assert register(None, base) == 4711
    assert messages == [b"libsmp_engine needs ONNX Runtime 1.18 or newer; this is 1.9.0"]


def test_an_instruction_set_that_is_not_there_is_refused_at_registration(
    native_library: Path,
) -> None:
    code = (
        "import onnxruntime, sys\n"
        "onnxruntime.SessionOptions().register_custom_ops_library(sys.argv[1])"
    )
    environment = {**os.environ, "SMP_ENGINE_ISA": "avx1024"}
    command = [sys.executable, "-c", code, str(native_library)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 1
    assert "SMP_ENGINE_ISA is avx1024: expected scalar, " in result.stderr
