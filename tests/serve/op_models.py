"""Models of one operator, and what they should compute in float64."""

import itertools
import math
from collections.abc import Callable, Mapping
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
    "silu": lambda x: x / (1 + np.exp(np.minimum(-x, 700))),
}

infers_shapes = pytest.mark.skipif(
    tuple(int(part) for part in onnxruntime.__version__.split(".")[:2]) < (1, 24),
    reason="before 1.24, ONNX Runtime crashes when it infers shapes without an optional input",
)


def sparse(rows: int, columns: int, seed: int, density: float = 0.3) -> Array:
    generator = np.random.default_rng(seed)
    matrix = generator.standard_normal((rows, columns)) / math.sqrt(columns * density)
    matrix[generator.random((rows, columns)) >= density] = 0
    matrix[rows // 2] = 0
    return matrix.astype(np.float32)


def values(*shape: int, seed: int = 5) -> Array:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def a_mask(batch: int, sequence: int) -> Array:
    """Padding behind, a hole in the middle, nothing at all, padding in front."""
    mask = np.ones((batch, sequence), np.int64)
    mask[0, sequence // 2 :] = 0
    mask[1 % batch, 1] = 0
    mask[2:3] = 0
    mask[3:4, 0] = 0
    return mask


def as_blob(data: bytes) -> Array:
    return np.frombuffer(data, np.uint8)


def one_node(
    op: str,
    inputs: list[str],
    constants: Mapping[str, Array],
    shapes: Mapping[str, Shape],
    attributes: Mapping[str, Any],
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
    serialised: bytes = model.SerializeToString()
    return serialised


def norm(x: Array, gamma: Array, beta: Array) -> Array:
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = (centred**2).mean(axis=-1, keepdims=True)
    normed: Array = centred / np.sqrt(variance + EPSILON) * gamma + beta
    return normed


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
