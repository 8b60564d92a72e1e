"""Linear layers as the exporter writes them, which can lose features."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

__all__ = ["Floats", "Indices", "Linear", "find_linears"]

Floats = NDArray[np.float32]
Indices = NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Linear:
    """``output = source @ matrix + bias``, by a MatMul and an Add.

    Attributes:
        name: of the matrix.
        product: the MatMul; nothing else reads the matrix.
        sum: the Add; nothing else reads the product.
        bias_index: which input of the Add is the bias.
    """

    name: str
    product: ir.Node
    sum: ir.Node
    bias_index: int

    @property
    def source(self) -> ir.Value:
        """The input, [..., in_features]."""
        return _given(self.product, 0)

    @property
    def output(self) -> ir.Value:
        """The output, [..., out_features]."""
        return self.sum.outputs[0]

    @property
    def matrix(self) -> Floats:
        """The weights, float32 [in_features, out_features]."""
        return _array(_given(self.product, 1))

    @property
    def bias(self) -> Floats:
        """The bias, float32 [out_features]."""
        return _array(_given(self.sum, self.bias_index))

    def keep_outputs(self, kept: Indices) -> None:
        """Drop all other output features."""
        self._set_matrix(self.matrix[:, kept])
        self._set_bias(self.bias[kept])

    def keep_inputs(self, kept: Indices, constant: NDArray[np.float64]) -> None:
        """Drop all other input features; what they always added goes into the bias.

        Args:
            kept: the input features that stay.
            constant: [out_features].
        """
        self._set_matrix(self.matrix[kept])
        self._set_bias((self.bias + constant).astype(np.float32))

    def _set_matrix(self, array: Floats) -> None:
        _set_array(_given(self.product, 1), array)

    def _set_bias(self, array: Floats) -> None:
        bias = _given(self.sum, self.bias_index)
        if len(bias.uses()) == 1:
            _set_array(bias, array)
            return
        # The exporter stores equal vectors once; the others keep theirs.
        own = ir.Value(name=f"{self.name}/bias", type=ir.TensorType(ir.DataType.FLOAT))
        _set_array(own, array)
        assert self.sum.graph is not None
        self.sum.graph.register_initializer(own)
        self.sum.replace_input_with(self.bias_index, own)


def find_linears(graph: ir.Graph, names: Collection[str]) -> Iterator[Linear]:
    """The linear layers of some matrices, but for those that are not as :class:`Linear` says.

    Args:
        graph: the graph.
        names: initializers, float32 [in_features, out_features].
    """
    for name in names:
        weight = graph.initializers[name]
        linear = _linear(name, weight)
        if linear is not None:
            yield linear


def _linear(name: str, weight: ir.Value) -> Linear | None:
    product = _only_reader(weight, "MatMul")
    if product is None or product.inputs[1] is not weight or _array(weight).ndim != 2:
        return None
    total = _only_reader(product.outputs[0], "Add")
    if total is None:
        return None
    for index, bias in enumerate(total.inputs):
        if bias is not None and bias.is_initializer():
            fits = _array(bias).shape == _array(weight).shape[1:]
            return Linear(name, product, total, index) if fits else None
    return None


def _only_reader(value: ir.Value, operator: str) -> ir.Node | None:
    """The one node that reads a value, once, if it is this operator."""
    uses = value.uses()
    if len(uses) != 1 or value.is_graph_output():
        return None
    ((node, _),) = uses
    return node if node.domain == "" and node.op_type == operator else None


def _given(node: ir.Node, index: int) -> ir.Value:
    value = node.inputs[index]
    assert value is not None
    return value


def _array(value: ir.Value) -> Floats:
    assert value.const_value is not None
    return np.asarray(value.const_value.numpy(), np.float32)


def _set_array(value: ir.Value, array: Floats) -> None:
    value.const_value = ir.tensor(np.ascontiguousarray(array), name=value.name)
    value.shape = ir.Shape(array.shape)
