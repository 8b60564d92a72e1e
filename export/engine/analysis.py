"""What is known of a graph while its layers are being found."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import onnx_ir as ir

from export.engine.constants import Constants
from export.engine.probe import Probe, make_probes
from export.engine.regions import Run, downstream, has_subgraphs, open_region
from pipeline.errors import ModelError

__all__ = ["Analysis", "Slice"]

# Larger parts than these are no activation, normalisation or attention.
_LARGEST_SLICE = 2000
_LONGEST_TAIL = 16


@dataclass(frozen=True)
class Slice:
    """All that a value is made of, back to some other values.

    Attributes:
        nodes: in topological order.
        inputs: what is read and comes from outside, constants apart.
        shape_only: those inputs of which nothing but the shape is read.
    """

    nodes: list[ir.Node]
    inputs: list[ir.Value]
    shape_only: frozenset[ir.Value]


class Analysis:
    """A graph with its constants, its shapes on made-up inputs, and ways to run parts of it.

    Args:
        model: the model; it must not change while this is used.

    Attributes:
        graph: its graph.
        constants: what depends on no input.
        probes: runs of the graph on made-up inputs.
        barriers: nodes that no tail goes beyond; the caller adds the linear layers'.

    Raises:
        ModelError: the graph does not run on made-up inputs.
    """

    def __init__(self, model: ir.Model) -> None:
        self.graph = model.graph
        self.constants = Constants(model)
        self.probes: list[Probe] = make_probes(model, self.constants)
        self.barriers: frozenset[ir.Node] = frozenset()
        self._order = {node: position for position, node in enumerate(model.graph)}
        self._opsets = dict(model.graph.opset_imports)

    def shapes(self, value: ir.Value) -> list[tuple[int, ...]]:
        """The shape of a value in every probe; empty if it is not known."""
        name = str(value.name)
        if any(name not in probe.shapes for probe in self.probes):
            return []
        return [probe.shapes[name] for probe in self.probes]

    def position(self, node: ir.Node) -> int:
        """Where a node stands in the graph."""
        return self._order[node]

    def tails(self, start: ir.Value) -> Iterator[tuple[list[ir.Node], ir.Value, list[ir.Value]]]:
        """Values that everything made of ``start`` passes through, from the nearest on.

        Yields:
            The nodes in between, the value, and what else the nodes read, constants apart.
        """
        for nodes, end in downstream(start, self._order, self.barriers, _LONGEST_TAIL):
            yield nodes, end, self._read_from_outside(nodes, start)

    def _read_from_outside(self, nodes: Collection[ir.Node], start: ir.Value) -> list[ir.Value]:
        made = {output for node in nodes for output in node.outputs} | {start}
        read = {value: None for node in nodes for value in node.inputs if value is not None}
        return [
            value for value in read if value not in made and not self.constants.is_constant(value)
        ]

    def slice(self, end: ir.Value, stops: Collection[ir.Value]) -> Slice | None:
        """Cut out what a value is made of, back to ``stops`` and the graph's inputs.

        A value of which only the shape is read is an input of the slice too: reshapes to the
        shape of some earlier state would otherwise draw in everything before it.

        Returns:
            None if that is too large, or has graphs inside.
        """
        shape_readers: list[ir.Node] = []
        inputs: dict[ir.Value, None] = {}
        nodes: set[ir.Node] = set()
        pending = [end]
        while pending:
            value = pending.pop()
            producer = value.producer()
            if self.constants.is_constant(value):
                continue
            if value in stops or producer is None:
                inputs[value] = None
            elif producer not in nodes:
                if has_subgraphs(producer) or len(nodes) == _LARGEST_SLICE:
                    return None
                nodes.add(producer)
                if producer.op_type == "Shape":
                    shape_readers.append(producer)
                else:
                    pending += [given for given in producer.inputs if given is not None]
        made = {output for node in nodes for output in node.outputs}
        read = {node.inputs[0]: None for node in shape_readers}
        measured = [value for value in read if value is not None and value not in made]
        return Slice(
            sorted(nodes, key=self._order.__getitem__),
            list(inputs) + [value for value in measured if value not in inputs],
            frozenset(measured) - set(inputs),
        )

    def open(
        self, nodes: list[ir.Node], inputs: list[ir.Value], outputs: list[ir.Value]
    ) -> Run | None:
        """Make nodes of the graph runnable on ``inputs``; None if ONNX Runtime refuses them."""
        read = {value: None for node in nodes for value in node.inputs if value is not None}
        constants = [value for value in read if self.constants.is_constant(value)]
        made = {output for node in nodes for output in node.outputs}
        try:
            return open_region(
                nodes,
                inputs,
                [self.constants.tensor(value) for value in constants if value not in made],
                outputs,
                self._opsets,
            )
        except ModelError:
            return None
