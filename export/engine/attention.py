"""Multi-head attention between three linear layers and a fourth, told by what it computes."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations, product

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from export.engine.analysis import Analysis, Slice
from export.engine.linear import Linear
from export.engine.regions import Array, Run
from pipeline.errors import ModelError

__all__ = ["Attention", "find_attention", "reference_attention"]

Doubles = NDArray[np.float64]

_SEED = 23
_TOLERANCE = 1e-4
# So many queries of a long sequence tell as much as all of them.
_QUERIES = 8
_MASK_TYPES = (ir.DataType.INT64, ir.DataType.INT32, ir.DataType.BOOL, ir.DataType.FLOAT)


@dataclass(frozen=True, eq=False)
class Attention:
    """``softmax(scale * query @ key.T where the mask is not 0) @ value``, by head.

    Attributes:
        query: the query's linear layer.
        key: the key's linear layer.
        value: the value's linear layer.
        heads: number of heads.
        scale: of the scores.
        mask: [batch, sequence], 0 where a token is left out; None if there is no mask.
    """

    query: Linear
    key: Linear
    value: Linear
    heads: int
    scale: float
    mask: ir.Value | None


def find_attention(
    analysis: Analysis,
    out: Linear,
    linears: Mapping[ir.Value, Linear],
    likely: Sequence[tuple[int, float]] = (),
) -> Attention | None:
    """Find the attention whose result goes into a linear layer.

    Args:
        analysis: of the graph.
        out: the linear layer.
        linears: all linear layers, by ``output`` and ``states_out``.
        likely: heads and scales to try first: other layers'.
    """
    if out.in_features != out.out_features:
        return None
    cut = analysis.slice(out.source, linears.keys())
    if cut is None:
        return None
    stops = [value for value in cut.inputs if value in linears]
    parts = [linears[value] for value in stops]
    if len(parts) != 3 or not _are_alike(analysis, parts, [*stops, out.source], out.in_features):
        return None
    region = _Region(analysis, out.source, cut, stops, parts[0].states_in)
    layout = region.find_layout(likely)
    if layout is None:
        return None
    order, heads, scale = layout
    for mask in region.masks():
        if region.explains(order, heads, scale, mask):
            query, key, value = (parts[index] for index in order)
            return Attention(query, key, value, heads, scale, mask)
    return None


def reference_attention(
    query: Doubles, key: Doubles, value: Doubles, mask: Array, heads: int, scale: float
) -> Doubles:
    """Attention in float64.

    Args:
        query: [batch, queries, features].
        key: [batch, sequence, features].
        value: [batch, sequence, features].
        mask: [batch, sequence], 0 where a token is left out.
        heads: number of heads.
        scale: of the scores.

    Returns:
        [batch, queries, features].
    """
    split = [array.reshape(*array.shape[:2], heads, -1) for array in (query, key, value)]
    scores = scale * np.einsum("bqhd,bkhd->bhqk", split[0], split[1])
    scores = np.where(np.asarray(mask)[:, None, None, :] != 0, scores, -np.inf)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    result: Doubles = np.einsum("bhqk,bkhd->bqhd", weights, split[2]).reshape(query.shape)
    return result


def _are_alike(
    analysis: Analysis, parts: Sequence[Linear], ends: Sequence[ir.Value], features: int
) -> bool:
    """Whether all read the same states, and all ends are states too, or one row a token."""
    states = parts[0].states_in
    shapes = analysis.shapes(states)
    rows = [(int(np.prod(shape[:-1], dtype=np.int64)), features) for shape in shapes]
    return (
        all(part.states_in is states for part in parts)
        and all(len(shape) == 3 and shape[2] == features for shape in shapes)
        and all(part.out_features == features for part in parts)
        and all(analysis.shapes(end) in (shapes, rows) for end in ends)
    )


class _Region:
    """What lies between the three linear layers and the fourth, ready to run."""

    def __init__(
        self,
        analysis: Analysis,
        end: ir.Value,
        cut: Slice,
        stops: Sequence[ir.Value],
        states: ir.Value,
    ) -> None:
        self._analysis = analysis
        self._end = end
        self._cut = cut
        self._stops = stops
        self._shapes = analysis.shapes(states)
        self._size = self._shapes[0][2]
        self._generator = np.random.default_rng(_SEED)

    def find_layout(
        self, likely: Sequence[tuple[int, float]]
    ) -> tuple[tuple[int, ...], int, float] | None:
        """Which linear layer is query, key and value, with heads and scale; no mask yet."""
        index = max(range(len(self._shapes)), key=lambda probe: self._shapes[probe][1])
        run = self._open(self._cut)
        measured = self._measure(run, self._cut, index, None)
        if measured is None:
            return None
        states, _, found = measured
        everything = np.ones(found.shape[:2])
        for heads, scale in (*likely, *self._candidates()):
            for order in permutations(range(3)):
                if self._agrees(states, order, everything, heads, scale, found):
                    return order, heads, scale
        return None

    def masks(self) -> Iterator[ir.Value | None]:
        """What may be the mask: inputs of the graph first, then values made of them."""
        shapes = [shape[:2] for shape in self._shapes]
        candidates = [value for value in self._cut.inputs if value.is_graph_input()]
        candidates += [output for node in self._cut.nodes for output in node.outputs]
        for value in candidates:
            if value.dtype in _MASK_TYPES and self._analysis.shapes(value) == shapes:
                yield value
        yield None

    def explains(
        self, order: Sequence[int], heads: int, scale: float, mask: ir.Value | None
    ) -> bool:
        """Whether the region is this attention, for every probe and kind of mask."""
        cut: Slice | None = self._cut
        if mask is not None and mask not in self._cut.inputs:
            cut = self._analysis.slice(self._end, [*self._stops, mask])
        if cut is None or (mask is not None and mask not in cut.inputs):
            return False
        run = self._open(cut)
        for index, shape in enumerate(self._shapes):
            for kept in _masks_to_try(self._generator, *shape[:2]):
                measured = self._measure(run, cut, index, kept, mask)
                if measured is None:
                    return False
                states, used, found = measured
                if not self._agrees(states, order, used, heads, scale, found):
                    return False
        return True

    def _candidates(self) -> Iterator[tuple[int, float]]:
        heads = [count for count in range(1, self._size + 1) if self._size % count == 0]
        usual = [(count, (self._size / count) ** -0.5) for count in heads]
        yield from usual
        # Scaled beforehand (in the query's weights), or by the size of all heads together.
        yield from product(heads, (1.0, self._size**-0.5))

    def _open(self, cut: Slice) -> Run | None:
        return self._analysis.open(cut.nodes, cut.inputs, [self._end])

    def _measure(
        self,
        run: Run | None,
        cut: Slice,
        index: int,
        kept: Array | None,
        mask: ir.Value | None = None,
    ) -> tuple[list[Doubles], Array, Doubles] | None:
        """Run the region on random states.

        Args:
            run: the region.
            cut: its inputs.
            index: which probe.
            kept: 0 and 1, [batch, sequence]; for ``mask``, or for all that may be a mask.
            mask: the mask that is tried, None for no mask.

        Returns:
            The states (in the order of the parts), the mask that counts, and the result.
        """
        if run is None:
            return None
        probe = self._analysis.probes[index]
        shape = self._shapes[index]
        feeds: dict[str, Array] = {}
        for value in cut.inputs:
            name = str(value.name)
            dtype = np.float32 if value.dtype is None else value.dtype.numpy()
            if name not in probe.shapes:
                return None
            if value in cut.shape_only:
                feeds[name] = np.zeros(probe.shapes[name], dtype)
            elif kept is not None and (
                value is mask or (mask is None and self._may_be_mask(value, probe.feeds))
            ):
                feeds[name] = kept.astype(dtype)
            elif value.is_graph_input():
                feeds[name] = probe.feeds[name]
            else:
                random = self._generator.standard_normal(probe.shapes[name])
                feeds[name] = random.astype(dtype)
        try:
            (found,) = run(feeds)
        except ModelError:
            return None
        if found.size != np.prod(shape):
            return None
        states = [feeds[str(stop.name)].astype(np.float64).reshape(shape) for stop in self._stops]
        counts = kept if mask is not None and kept is not None else np.ones(shape[:2])
        return states, counts, found.astype(np.float64).reshape(shape)

    def _may_be_mask(self, value: ir.Value, feeds: Mapping[str, Array]) -> bool:
        shapes = [shape[:2] for shape in self._shapes]
        return str(value.name) in feeds and self._analysis.shapes(value) == shapes

    @staticmethod
    def _agrees(
        states: Sequence[Doubles],
        order: Sequence[int],
        kept: Array,
        heads: int,
        scale: float,
        found: Doubles,
    ) -> bool:
        query, key, value = (states[index] for index in order)
        expected = reference_attention(query[:, :_QUERIES], key, value, kept, heads, scale)
        wanted = np.asarray(kept)[:, :_QUERIES] != 0  # what masked tokens attend to is free
        difference = np.abs(found[:, :_QUERIES] - expected)[wanted]
        return bool(np.all(difference <= _TOLERANCE * max(1.0, np.abs(expected).max())))


def _masks_to_try(
    generator: np.random.Generator, batch: int, sequence: int
) -> list[NDArray[np.float64]]:
    """All tokens; padding on the right, on the left; holes. Every text keeps a token."""
    lengths = generator.integers(1, sequence + 1, (batch, 1))
    positions = np.arange(sequence)
    holes = generator.integers(0, 2, (batch, sequence))
    holes[np.arange(batch), generator.integers(0, sequence, batch)] = 1
    kept = [positions >= 0, positions < lengths, positions >= sequence - lengths, holes]
    return [np.broadcast_to(mask, (batch, sequence)).astype(np.float64) for mask in kept]
