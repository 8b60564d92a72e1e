"""What lies between linear layers, cut out to see what it does with fewer features."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from export.engine.regions import Run, has_subgraphs, open_region
from export.structure.linears import Linear
from pipeline.errors import ModelError

__all__ = ["SIZES", "Region", "find_region", "is_close"]

Array = NDArray[np.generic]

# Batch and sequence that a region is tried with: several texts, one token, one text.
SIZES = ((2, 5), (1, 1), (3, 4), (1, 7))

# More nodes than this are no activation and no attention with its mask.
_LARGEST = 200
_TOLERANCE = 1e-5


@dataclass(frozen=True, eq=False)
class Region:
    """All that the input of a linear layer is made of, back to other linear layers.

    Attributes:
        reader: the linear layer that reads the result, and that alone does.
        sources: the linear layers whose outputs go in, and nowhere else; in the graph's order.
        inputs: the graph's inputs that go in.
        nodes: in topological order.
        opsets: domain -> version.
    """

    reader: Linear
    sources: list[Linear]
    inputs: list[ir.Value]
    nodes: list[ir.Node]
    opsets: Mapping[str, int]

    def open(self) -> Run | None:
        """Make it runnable on outputs of ``sources`` and on ``inputs``; None if it is not."""
        read = {value: None for node in self.nodes for value in node.inputs if value is not None}
        constants = [
            onnx.numpy_helper.from_array(value.const_value.numpy(), value.name)
            for value in read
            if value.is_initializer() and value.const_value is not None
        ]
        given = [*(source.output for source in self.sources), *self.inputs]
        try:
            return open_region(self.nodes, given, constants, [self.reader.source], self.opsets)
        except ModelError:
            return None


def find_region(
    reader: Linear,
    by_output: Mapping[ir.Value, Linear],
    order: Mapping[ir.Node, int],
    opsets: Mapping[str, int],
) -> Region | None:
    """Cut out what the input of a linear layer is made of.

    Args:
        reader: the linear layer.
        by_output: all linear layers.
        order: the position of every node of the graph.
        opsets: of the graph.

    Returns:
        None if something else reads what is inside, or if it is no small part.
    """
    sources: dict[Linear, None] = {}
    inputs: dict[ir.Value, None] = {}
    nodes: set[ir.Node] = set()
    pending = [reader.source]
    while pending:
        value = pending.pop()
        producer = value.producer()
        if value in by_output:
            sources[by_output[value]] = None
        elif value.is_graph_input():
            inputs[value] = None
        elif producer is not None and producer not in nodes:
            if len(nodes) == _LARGEST or has_subgraphs(producer):
                return None
            nodes.add(producer)
            pending += [given for given in producer.inputs if given is not None]
    ordered = sorted(nodes, key=order.__getitem__)
    starts = sorted(sources, key=lambda linear: order[linear.product])
    if not starts or not _is_closed(reader, starts, ordered):
        return None
    return Region(reader, starts, list(inputs), ordered, opsets)


def _is_closed(reader: Linear, sources: Sequence[Linear], nodes: Sequence[ir.Node]) -> bool:
    """Whether nothing else reads what is made of the sources' outputs."""
    made = {source.output for source in sources}
    allowed = {*nodes, reader.product}
    for node in nodes:
        if made.intersection(node.inputs):
            made.update(node.outputs)
    return reader.source in made and all(
        not value.is_graph_output() and allowed.issuperset(value.consumers()) for value in made
    )


def is_close(found: Array, expected: Array) -> bool:
    """Whether two results are equal but for rounding, shapes included; NaN equals nothing."""
    return found.shape == expected.shape and np.allclose(
        np.asarray(found, np.float64),
        np.asarray(expected, np.float64),
        rtol=_TOLERANCE,
        atol=_TOLERANCE,
    )
