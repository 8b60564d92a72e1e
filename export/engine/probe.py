"""Made-up inputs for any model, and the shapes that its values then have."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import RemoveInitializersFromInputsPass

from export.engine.constants import Constants
from export.engine.regions import Array, open_session
from pipeline.errors import ModelError, first_line

__all__ = ["Batch", "Probe", "make_batches", "make_probes"]

# Batch and sequence of the probes, where the graph leaves them open: one text, one token, neither.
_SIZES = ((2, 7), (1, 1), (3, 4), (1, 7))
_SEED = 20
# The same for a comparison of whole graphs: few positions, since nobody knows how many there are.
_CHECKED_SIZES = ((1, 1), (3, 16), (8, 12))
# Operators between an input of token ids and the table that it indexes.
_PASSING = ("Cast", "Expand", "Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze")


@dataclasses.dataclass(frozen=True)
class Probe:
    """One run of a model on made-up inputs.

    Attributes:
        feeds: graph input -> array; token ids are valid, masks are all ones.
        shapes: value -> its shape in this run, for everything that depends on an input.
    """

    feeds: dict[str, Array]
    shapes: dict[str, tuple[int, ...]]


@dataclasses.dataclass(frozen=True)
class Batch:
    """Inputs for a graph.

    Attributes:
        feeds: graph input -> array.
        kept: bool [batch, sequence], the tokens that count.
    """

    feeds: dict[str, Array]
    kept: NDArray[np.bool_]


def make_batches(proto: onnx.ModelProto) -> list[Batch]:
    """Made-up inputs of some sizes: random token ids, padding on the right in the masks."""
    model = ir.from_proto(proto)
    RemoveInitializersFromInputsPass()(model)
    limits = _index_limits(model.graph, Constants(model))
    batches = []
    for number, size in enumerate(_CHECKED_SIZES):
        feeds = _make_feeds(model.graph.inputs, limits, *size, _SEED + number)
        masks = [name for name, array in feeds.items() if name not in limits and array.ndim == 2]
        extents = feeds[masks[0]].shape if masks else size
        kept: NDArray[np.bool_] = np.ones(extents, np.bool_)
        lengths = np.random.default_rng(number).integers(1, extents[1] + 1, extents[0])
        if masks:
            kept &= np.arange(extents[1]) < lengths[:, None]
        for name in masks:
            if feeds[name].shape == kept.shape:
                feeds[name] = (feeds[name] * kept).astype(feeds[name].dtype)
        batches.append(Batch(feeds, kept))
    return batches


def make_probes(model: ir.Model, constants: Constants) -> list[Probe]:
    """Run a model on made-up inputs of a few sizes.

    Raises:
        ModelError: it does not run on them.
    """
    limits = _index_limits(model.graph, constants)
    batches: list[dict[str, Array]] = []
    for batch, sequence in _SIZES:
        feeds = _make_feeds(model.graph.inputs, limits, batch, sequence, _SEED)
        if _shapes(feeds) not in [_shapes(other) for other in batches]:
            batches.append(feeds)
    proto = ir.to_proto(model)
    del proto.graph.output[:]
    watched = {}
    for index, value in enumerate(_dependent_values(model.graph, constants)):
        watched[f"smp.probe.{index}"] = str(value.name)
        proto.graph.node.append(
            onnx.helper.make_node("Shape", [str(value.name)], [f"smp.probe.{index}"])
        )
        proto.graph.output.append(
            onnx.helper.make_tensor_value_info(f"smp.probe.{index}", onnx.TensorProto.INT64, None)
        )
    session = open_session(proto)
    probes = []
    reason = ""
    for feeds in batches:
        try:
            outputs = session.run(list(watched), feeds)
        except Exception as error:  # ONNX Runtime's exceptions share no other base
            # Some graphs say that an axis is open and hold its extent in a constant.
            reason = reason or first_line(error)
            continue
        shapes = {
            name: tuple(int(extent) for extent in shape)
            for name, shape in zip(watched.values(), outputs, strict=True)
        }
        probes.append(Probe(feeds, {**shapes, **_shapes(feeds)}))
    if not probes:
        raise ModelError(
            f"the graph does not run on made-up inputs [batch, sequence] of {_SIZES[0]} ({reason})"
        )
    return probes


def _make_feeds(
    inputs: Sequence[ir.Value], limits: dict[str, int], batch: int, sequence: int, seed: int
) -> dict[str, Array]:
    """Inputs for a graph: random token ids below their table's length, ones for masks.

    Args:
        inputs: the graph's inputs. Their open axes are the batch, then the sequence.
        limits: input -> number of rows of the table that it indexes; none for masks.
        batch: extent of the first axis.
        sequence: extent of the second axis.
        seed: of the random numbers.
    """
    generator = np.random.default_rng(seed)
    feeds: dict[str, Array] = {}
    for value in inputs:
        open_axes = (batch, *[sequence] * 8)
        axes: Sequence[object] = [None, None] if value.shape is None else list(value.shape)
        shape = tuple(
            axis if isinstance(axis, int) else open_axes[index] for index, axis in enumerate(axes)
        )
        dtype = np.dtype((value.dtype or ir.DataType.INT64).numpy())
        array: Array
        if value.name in limits:
            array = generator.integers(0, limits[value.name], shape)
        elif dtype.kind == "f" and len(shape) > 2:
            array = generator.standard_normal(shape)
        else:
            array = np.ones(shape)
        feeds[str(value.name)] = array.astype(dtype)
    return feeds


def _index_limits(graph: ir.Graph, constants: Constants) -> dict[str, int]:
    """Input -> rows of the smallest constant table that it is an index into."""
    limits: dict[str, int] = {}
    for value in graph.inputs:
        pending, seen = [value], {value}
        while pending:
            for node, index in pending.pop().uses():
                if node.op_type in _PASSING and index == 0:
                    fresh = [output for output in node.outputs if output not in seen]
                    pending += fresh
                    seen.update(fresh)
                table = node.inputs[0]
                indexes = node.op_type == "Gather" and index == 1 and table is not None
                if indexes and table is not None and constants.is_constant(table):
                    rows = _rows(table, constants)
                    limits[str(value.name)] = min(rows, limits.get(str(value.name), rows))
    return limits


def _shapes(feeds: dict[str, Array]) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in feeds.items()}


def _rows(table: ir.Value, constants: Constants) -> int:
    if table.shape is not None and isinstance(table.shape[0], int):
        return table.shape[0]
    return int(constants.array(table).shape[0])


def _dependent_values(graph: ir.Graph, constants: Constants) -> list[ir.Value]:
    """All values made of the inputs, but for sequences and other types without a shape."""
    return [
        output
        for node in graph
        for output in node.outputs
        if output.name
        and not constants.is_constant(output)
        and (output.type is None or isinstance(output.type, ir.TensorType))
    ]
