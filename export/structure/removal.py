"""The graph pass that takes out what masks leave empty."""

import re
from collections import Counter
from collections.abc import Collection

import onnx_ir as ir

from export.structure.heads import Attention, as_attention
from export.structure.linears import Indices, find_linears
from export.structure.neurons import FeedForward, as_feed_forward
from export.structure.region import find_region
from pipeline.artifacts.exported import StructureReport

__all__ = ["RemoveEmptyStructure"]

_LAYER = re.compile(r"(?<=\.)\d+(?=\.)")


class RemoveEmptyStructure(ir.passes.InPlacePass):
    """Take out neurons and attention heads whose weights are all zero, exactly.

    What they still add, a constant, goes into the bias of the linear layer that read them. Features
    of the hidden states stay, and so do query, key and value features of a head that is kept:
    heads are of one size. What is no plain feed-forward network or multi-head attention between
    linear layers with weights and biases of their own is left as it is.

    Args:
        names: the pruned matrices, initializers float32 [in_features, out_features].

    Attributes:
        report: after the pass: what went.
        kept: after the pass: matrix that got smaller -> the output features and the input features
            that it still has; None for all of them.
    """

    def __init__(self, names: Collection[str]) -> None:
        super().__init__()
        self._names = tuple(names)
        self.report = StructureReport({}, 0, {}, 0, 0)
        self.kept: dict[str, tuple[Indices | None, Indices | None]] = {}

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Change the model in place; no node comes or goes."""
        graph = model.graph
        before = self._weights(graph)
        neurons, neurons_before, heads, heads_before = Counter[str](), 0, Counter[str](), 0
        order = {node: position for position, node in enumerate(graph)}
        by_output = {linear.output: linear for linear in find_linears(graph, self._names)}
        for reader in list(by_output.values()):
            region = find_region(reader, by_output, order, graph.opset_imports)
            if region is None:
                continue
            attention = as_attention(region)
            feed_forward = as_feed_forward(region)
            if attention is not None:
                heads_before += attention.heads
                heads[_layer(reader.name)] += self._remove_heads(attention)
            elif feed_forward is not None:
                neurons_before += feed_forward.neurons
                neurons[_layer(reader.name)] += self._remove_neurons(feed_forward)
        # A Counter without what counts 0.
        self.report = StructureReport(
            dict(+neurons),
            neurons_before,
            dict(+heads),
            heads_before,
            before - self._weights(graph),
        )
        return ir.passes.PassResult(model, modified=bool(self.kept))

    def _remove_heads(self, attention: Attention) -> int:
        before = attention.heads
        kept = attention.remove_empty()
        if kept is None:
            return 0
        for linear in (*attention.others, attention.value):
            self.kept[linear.name] = (kept, None)
        self.kept[attention.out.name] = (None, kept)
        return before - attention.heads

    def _remove_neurons(self, feed_forward: FeedForward) -> int:
        before = feed_forward.neurons
        kept = feed_forward.remove_empty()
        if kept is None:
            return 0
        self.kept[feed_forward.up.name] = (kept, None)
        self.kept[feed_forward.down.name] = (None, kept)
        return before - feed_forward.neurons

    def _weights(self, graph: ir.Graph) -> int:
        tensors = [graph.initializers[name].const_value for name in self._names]
        return sum(int(tensor.size) for tensor in tensors if tensor is not None)


def _layer(name: str) -> str:
    """The number of the encoder layer, if the parameter's name has one, else the name."""
    found = _LAYER.search(name)
    return found.group() if found else name
