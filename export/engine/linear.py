"""Linear layers with constant weights, in the forms that exporters and optimisers write."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from export.engine.analysis import Analysis

__all__ = ["Linear", "find_linears"]

Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Linear:
    """``output = source @ weight.T + bias``.

    Optimisers put a Reshape to one row a token before a product and one back after it.

    Attributes:
        name: of the weight.
        node: the product.
        source: the input, float32 [..., in_features].
        weight: float32 [out_features, in_features].
        bias: float32 [out_features], None for none.
        output: float32 [..., out_features].
        states_in: the input before a Reshape of its tokens; ``source`` if there is none.
        states_out: the output after a Reshape of its tokens; ``output`` if there is none.
    """

    name: str
    node: ir.Node
    source: ir.Value
    weight: Floats
    bias: Floats | None
    output: ir.Value
    states_in: ir.Value
    states_out: ir.Value

    @property
    def density(self) -> float:
        """Share of the weights that are not zero."""
        return float(np.count_nonzero(self.weight) / max(1, self.weight.size))

    @property
    def in_features(self) -> int:
        """Features of the input."""
        return int(self.weight.shape[1])

    @property
    def out_features(self) -> int:
        """Features of the output."""
        return int(self.weight.shape[0])


def find_linears(analysis: Analysis) -> Iterator[Linear]:
    """All MatMul (with or without Add) and Gemm nodes with a constant float32 matrix."""
    for node in analysis.graph:
        if node.domain not in ("", "ai.onnx") or node.op_type not in ("MatMul", "Gemm"):
            continue
        source, weight = node.inputs[0], node.inputs[1]
        if source is None or weight is None or analysis.constants.is_constant(source):
            continue
        if not analysis.constants.is_constant(weight) or not analysis.shapes(node.outputs[0]):
            continue
        array = analysis.constants.array(weight)
        if array.ndim != 2 or array.dtype != np.float32 or not array.size:
            continue
        matrix: Floats = array.astype(np.float32, copy=False)
        name = analysis.constants.weight_name(weight)
        if node.op_type == "MatMul":
            bias, output = _added_bias(analysis, node.outputs[0], matrix.shape[1])
            matrix = matrix.T
        else:
            parts = _from_gemm(analysis, node, matrix)
            if parts is None:
                continue
            matrix, bias, output = parts
        yield Linear(
            *(name, node, source, matrix, bias, output),
            states_in=_before_reshape(analysis, source),
            states_out=_after_reshape(analysis, output),
        )


def _from_gemm(
    analysis: Analysis, node: ir.Node, matrix: Floats
) -> tuple[Floats, Floats | None, ir.Value] | None:
    """Weight [out_features, in_features], bias and output of a Gemm; None if it is no layer."""
    if node.attributes.get_int("transA", 0):
        return None
    weight = matrix if node.attributes.get_int("transB", 0) else matrix.T
    alpha = np.float32(node.attributes.get_float("alpha", 1.0))
    if alpha != 1:
        weight = alpha * weight
    given = node.inputs[2] if len(node.inputs) > 2 else None
    if given is None:
        return (weight, *_added_bias(analysis, node.outputs[0], len(weight)))
    if not analysis.constants.is_constant(given):
        return None
    bias = _as_bias(analysis.constants.array(given), len(weight), ndim=2)
    if bias is None:
        return None
    beta = np.float32(node.attributes.get_float("beta", 1.0))
    return weight, beta * bias, node.outputs[0]


def _added_bias(
    analysis: Analysis, output: ir.Value, features: int
) -> tuple[Floats | None, ir.Value]:
    """The bias that an Add gives to a product, and the sum; else None and the product."""
    consumers = output.consumers()
    if len(consumers) == 1 and not output.is_graph_output() and consumers[0].op_type == "Add":
        for given in consumers[0].inputs:
            if given is not output and given is not None and analysis.constants.is_constant(given):
                bias = _as_bias(analysis.constants.array(given), features, ndim=1)
                if bias is not None:
                    return bias, consumers[0].outputs[0]
    return None, output


def _as_bias(array: NDArray[np.generic], features: int, *, ndim: int) -> Floats | None:
    """An array that is broadcast over tokens as a bias [features]; None if it is no such thing."""
    if array.ndim > ndim or array.dtype != np.float32 or array.size not in (1, features):
        return None
    if array.ndim == 2 and array.shape[0] != 1:
        return None
    return np.array(np.broadcast_to(array.reshape(-1), features))


def _before_reshape(analysis: Analysis, rows: ir.Value) -> ir.Value:
    producer = rows.producer()
    if producer is None or producer.op_type != "Reshape" or producer.inputs[0] is None:
        return rows
    states = producer.inputs[0]
    return states if _same_tokens(analysis, states, rows) else rows


def _after_reshape(analysis: Analysis, rows: ir.Value) -> ir.Value:
    consumers = rows.consumers()
    if len(consumers) != 1 or consumers[0].op_type != "Reshape" or rows.is_graph_output():
        return rows
    states = consumers[0].outputs[0]
    return states if _same_tokens(analysis, states, rows) else rows


def _same_tokens(analysis: Analysis, states: ir.Value, rows: ir.Value) -> bool:
    """Whether ``rows`` are the tokens of ``states``, one after another."""
    pairs = list(zip(analysis.shapes(states), analysis.shapes(rows), strict=False))
    return bool(pairs) and all(
        len(shape) > 2 and flat == (int(np.prod(shape[:-1], dtype=np.int64)), shape[-1])
        for shape, flat in pairs
    )
