"""Parts of a graph, cut out and run in ONNX Runtime on their own."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from numpy.typing import NDArray

from pipeline.errors import ModelError, first_line

__all__ = ["Array", "Run", "downstream", "has_subgraphs", "open_region", "open_session"]

Array = NDArray[np.generic]
# Input name -> array to the outputs in order.
Run = Callable[[Mapping[str, Array]], list[Array]]

# The newest that every ONNX Runtime since 1.22 reads.
_IR_VERSION = 10


def has_subgraphs(node: ir.Node) -> bool:
    """Whether a node has graphs inside (If, Loop, Scan), which may read any value from outside."""
    kinds = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
    return any(attribute.type in kinds for attribute in node.attributes.values())


def open_session(model: onnx.ModelProto) -> ort.InferenceSession:
    """Open a model for a few small runs.

    Raises:
        ModelError: ONNX Runtime cannot run it.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    # A few runs do not pay for more.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    try:
        return ort.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # ONNX Runtime's exceptions share no other base
        raise ModelError(first_line(error)) from error


def open_region(
    nodes: Sequence[ir.Node],
    inputs: Sequence[ir.Value],
    initializers: Sequence[onnx.TensorProto],
    outputs: Sequence[ir.Value],
    opsets: Mapping[str, int],
) -> Run:
    """Make nodes of a graph runnable.

    Args:
        nodes: the nodes, in topological order.
        inputs: what is fed; a value whose type is not known is float32.
        initializers: what the nodes read and is not fed.
        outputs: what is wanted.
        opsets: domain -> version.

    Raises:
        ModelError: ONNX Runtime cannot run them (at once or later).
    """
    graph = onnx.helper.make_graph(
        [ir.to_proto(node) for node in nodes],
        "region",
        [
            onnx.helper.make_tensor_value_info(
                str(value.name), (value.dtype or ir.DataType.FLOAT).value, None
            )
            for value in inputs
        ],
        [onnx.ValueInfoProto(name=str(value.name)) for value in outputs],
        list(initializers),
    )
    model = onnx.helper.make_model(
        graph,
        opset_imports=[onnx.helper.make_opsetid(*entry) for entry in opsets.items()],
        ir_version=_IR_VERSION,
    )
    session = open_session(model)
    names = [str(value.name) for value in outputs]

    def run(feeds: Mapping[str, Array]) -> list[Array]:
        try:
            return [np.asarray(array) for array in session.run(names, dict(feeds))]
        except Exception as error:  # ONNX Runtime's exceptions share no other base
            raise ModelError(first_line(error)) from error

    return run


def downstream(
    start: ir.Value, order: Mapping[ir.Node, int], barriers: frozenset[ir.Node], limit: int
) -> Iterator[tuple[list[ir.Node], ir.Value]]:
    """Values through which everything made of a value passes, from the nearest on.

    Args:
        start: the value.
        order: the position of every node of the graph.
        barriers: nodes to stop before.
        limit: how many nodes to take in at most.

    Yields:
        The nodes between ``start`` and such a value, and the value. Nothing outside of the nodes
        reads what they make, but for that value.
    """
    inside: list[ir.Node] = []
    visible = [start]  # read by nodes that are not inside, or by whoever runs the graph
    while len(inside) < limit and not any(value.is_graph_output() for value in visible):
        consumers = {node for value in visible for node in value.consumers()} - set(inside)
        if not consumers or not all(node in order for node in consumers):
            return
        node = min(consumers, key=order.__getitem__)
        if node in barriers or has_subgraphs(node):
            return
        inside.append(node)
        visible = [
            value
            for value in (*visible, *node.outputs)
            if value.is_graph_output() or set(value.consumers()) - set(inside)
        ]
        if len(visible) == 1 and visible[0] is not start:
            yield list(inside), visible[0]
