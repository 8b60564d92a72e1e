"""Values of a graph that depend on no input, computed when somebody asks for them."""

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from export.engine.regions import has_subgraphs, open_region

__all__ = ["Constants"]

# Operators through which a weight keeps its name in reports and in the rewritten file.
_WRAPPERS = ("Cast", "DequantizeLinear", "Identity", "Transpose")
_RANDOM = ("Bernoulli", "Multinomial", "RandomNormal", "RandomUniform")


class Constants:
    """Evaluates subgraphs of initializers: transposed, cast, dequantised or packed weights.

    Args:
        model: the model.
    """

    def __init__(self, model: ir.Model) -> None:
        self._opsets = dict(model.graph.opset_imports)
        self._order = {node: position for position, node in enumerate(model.graph)}
        self._known: dict[ir.Value, bool] = {}
        self._arrays: dict[ir.Value, NDArray[np.generic]] = {}
        for node in model.graph:  # in topological order, so that no deep recursion is needed
            constant = (
                not has_subgraphs(node)
                and not node.op_type.startswith(_RANDOM)
                and all(self.is_constant(value) for value in node.inputs if value is not None)
            )
            self._known.update(dict.fromkeys(node.outputs, constant))

    def is_constant(self, value: ir.Value) -> bool:
        """Whether a value of the graph depends on no input."""
        return value.is_initializer() or self._known.get(value, False)

    def array(self, value: ir.Value) -> NDArray[np.generic]:
        """A constant value of the graph."""
        if value.is_initializer():
            assert value.const_value is not None
            return value.const_value.numpy()
        if value not in self._arrays:
            self._arrays[value] = self._evaluate(value)
        return self._arrays[value]

    def tensor(self, value: ir.Value) -> onnx.TensorProto:
        """A constant value as a tensor of its name."""
        return onnx.numpy_helper.from_array(np.asarray(self.array(value)), value.name)

    def weight_name(self, value: ir.Value) -> str:
        """The name that people know a weight by: the initializer below casts and transposes."""
        while not value.is_initializer():
            producer = value.producer()
            if producer is None or producer.op_type not in _WRAPPERS or producer.inputs[0] is None:
                break
            value = producer.inputs[0]
        assert value.name is not None
        return value.name

    def _evaluate(self, value: ir.Value) -> NDArray[np.generic]:
        nodes: dict[ir.Node, None] = {}
        leaves: dict[ir.Value, None] = {}
        pending = [value]
        while pending:
            current = pending.pop()
            producer = current.producer()
            if producer is None:
                leaves[current] = None
            elif producer not in nodes:
                nodes[producer] = None
                pending += [given for given in producer.inputs if given is not None]
        ordered = sorted(nodes, key=self._order.__getitem__)
        initializers = [self.tensor(leaf) for leaf in leaves]
        (array,) = open_region(ordered, [], initializers, [value], self._opsets)({})
        return array
