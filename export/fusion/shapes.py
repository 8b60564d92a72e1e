"""Shapes in terms of batch and sequence, which plain shape inference cannot relate.

ONNX's inference gives every dynamic dimension that it computes a symbol of its own, so that no two
values are known to be alike. It is exact for given sizes: so it runs for two batches of different
sizes, and a dimension is named after the input dimension that changed as it did.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass
from onnxscript import optimizer

from export.graph import silence

__all__ = ["BATCH", "SEQUENCE", "dimensions", "shapes_known"]

BATCH, SEQUENCE = "batch", "sequence"
# Batch and sequence of both runs: short, since a model may have few positions.
_FIRST, _SECOND = (2, 3), (5, 7)
_NAMES: dict[tuple[int | None, int | None], str] = {
    (_FIRST[0], _SECOND[0]): BATCH,
    (_FIRST[1], _SECOND[1]): SEQUENCE,
}

_Sizes = tuple[int | None, ...]


def dimensions(value: ir.Value | None) -> tuple[int | str | None, ...] | None:
    """The shape of a value as integers and names; None for what is not known."""
    if value is None or value.shape is None:
        return None
    return tuple(size if isinstance(size, int) else size.value for size in value.shape)


@contextmanager
def shapes_known(model: ir.Model) -> Iterator[None]:
    """State shapes and types in a model whose inputs are all [batch, sequence].

    They are taken out at the end: what is encoded or removed afterwards would make them untrue.
    """
    first, second = (_inferred(model, sizes) for sizes in (_FIRST, _SECOND))
    for output in _inner_values(model):
        if output.name in first and output.name in second:
            output.type = first[output.name].type
            output.shape = _merged(_sizes(first[output.name]), _sizes(second[output.name]))
    try:
        yield
    finally:
        for output in _inner_values(model):
            output.shape = None
            output.type = None


def _inner_values(model: ir.Model) -> Iterator[ir.Value]:
    for node in model.graph:
        for output in node.outputs:
            if not output.is_graph_output():
                yield output


def _inferred(model: ir.Model, sizes: tuple[int, int]) -> dict[str, ir.Value]:
    """Name -> a value whose type and shape are those for the given batch and sequence."""
    found: dict[str, ir.Value] = {}
    for folded in (False, True):  # unfolded, lengths of ranges stay unknown; folded, values vanish
        copy = model.clone()
        for value in copy.graph.inputs:
            value.shape = ir.Shape(sizes)
        for value in copy.graph.outputs:
            value.shape = None
        with silence():  # on what cannot be folded or inferred
            if folded:
                optimizer.fold_constants(copy)
            ShapeInferencePass()(copy)
        found |= ir.convenience.create_value_mapping(copy.graph)
    return found


def _sizes(value: ir.Value) -> _Sizes | None:
    if value.shape is None:
        return None
    return tuple(size if isinstance(size, int) else None for size in value.shape)


def _merged(first: _Sizes | None, second: _Sizes | None) -> ir.Shape | None:
    if first is None or second is None or len(first) != len(second):
        return None
    return ir.Shape(
        [a if a == b else _NAMES.get((a, b)) for a, b in zip(first, second, strict=True)]
    )
