"""Embedding tables in fewer bytes, on disk and in memory, by ONNX's own operators.

    fp16    Gather(float16 table) -> Cast
    int8    Gather(int8 table) -> Cast -> Mul by Gather(float32 scales [rows, 1])

Rows are decoded after they are looked up. The indices come from the graph's inputs, so no
optimiser can fold any of it back into a float32 table: what runs holds the small one.
"""

from typing import Literal

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from export.engine.constants import Constants
from export.quantise import round_weights
from pipeline.errors import ModelError

__all__ = ["EncodeEmbeddings"]

# A table of fewer rows, such as that of token types, costs the extra operators and saves nothing.
_FEWEST_ROWS = 16


class EncodeEmbeddings(ir.passes.InPlacePass):
    """Store the float32 tables that rows are looked up in as float16, or as int8 by row.

    A table is a matrix of 16 rows or more of which nothing is read but rows (Gather along axis 0)
    whose numbers depend on the graph's inputs.

    Args:
        values: how tables are stored; int8 has one scale a row, the largest weight over 127.

    Attributes:
        encoded: after the pass: table -> how it is stored; the scales of ``NAME`` are
            ``NAME.scales``.
    """

    def __init__(self, values: Literal["fp16", "int8"]) -> None:
        super().__init__()
        self._values = values
        self.encoded: dict[str, str] = {}

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Encode the tables in place.

        Raises:
            ModelError: a weight is not finite, or too large for float16.
        """
        constants = Constants(model)
        for name, table in list(model.graph.initializers.items()):
            if not _is_table(table, constants):
                continue
            assert table.const_value is not None
            stored = _encode(name, table.const_value.numpy(), self._values)
            lookups = [node for node, _ in table.uses()]
            del model.graph.initializers[name]
            table.name = None  # what is stored now takes the name over
            values = [_initializer(model.graph, *each) for each in stored.items()]
            for lookup in lookups:
                _decode_rows(lookup, values)
            self.encoded[name] = self._values
        return ir.passes.PassResult(model, bool(self.encoded))


def _is_table(value: ir.Value, constants: Constants) -> bool:
    if (
        value.const_value is None
        or value.is_graph_input()
        or value.is_graph_output()
        or value.dtype != ir.DataType.FLOAT
        or len(value.const_value.shape) != 2
        or value.const_value.shape.numpy()[0] < _FEWEST_ROWS
    ):
        return False
    uses = value.uses()
    return bool(uses) and all(
        index == 0
        and node.op_type == "Gather"
        and not node.domain
        and node.attributes.get_int("axis", 0) in (0, -2)
        and node.inputs[1] is not None
        and not constants.is_constant(node.inputs[1])
        for node, index in uses
    )


def _encode(
    name: str, table: NDArray[np.float32], values: Literal["fp16", "int8"]
) -> dict[str, NDArray[np.generic]]:
    """What is stored of a table: initializer -> array."""
    try:
        rows, scales = round_weights(table, values)
    except ModelError as error:
        reason = str(error).replace("--values", "--embeddings")
        raise ModelError(f"{name} cannot be stored: {reason}") from error
    return {name: rows} if scales is None else {name: rows, f"{name}.scales": scales[:, None]}


def _initializer(graph: ir.Graph, name: str, array: NDArray[np.generic]) -> ir.Value:
    tensor = ir.tensor(array, name=name)
    value = ir.Value(
        name=name,
        shape=ir.Shape(array.shape),
        type=ir.TensorType(tensor.dtype),
        const_value=tensor,
    )
    graph.register_initializer(value)
    return value


def _decode_rows(lookup: ir.Node, stored: list[ir.Value]) -> None:
    """Let a Gather look up encoded rows, and decode them for all that read its output."""
    (output,) = lookup.outputs
    nodes = []
    for table in stored:
        rows = ir.node("Gather", [table, lookup.inputs[1]], attributes={"axis": 0})
        rows.outputs[0].name = f"{output.name}.{table.name}"
        nodes.append(rows)
    decoded = ir.node("Cast", [nodes[0].outputs[0]], attributes={"to": ir.DataType.FLOAT.value})
    decoded.outputs[0].name = f"{output.name}.float"
    nodes.append(decoded)
    if len(stored) == 2:
        scaled = ir.node("Mul", [decoded.outputs[0], nodes[1].outputs[0]])
        nodes.append(scaled)
    graph = lookup.graph
    assert isinstance(graph, ir.Graph)
    result = nodes[-1].outputs[0]
    ir.convenience.replace_nodes_and_values(graph, lookup, [lookup], nodes, [output], [result])
