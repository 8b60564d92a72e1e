"""Lookup and sum of word, position and token type embeddings, and their LayerNormalization.

The operator takes float32 tables only, so with it they cannot be encoded.
"""

import onnx_ir as ir

from export.fusion.shapes import BATCH, SEQUENCE, dimensions

__all__ = ["fuse_embed_layer_norm"]

_EACH_TEXT, _ALL_TEXTS = (BATCH, SEQUENCE), (1, SEQUENCE)


def fuse_embed_layer_norm(model: ir.Model) -> int:
    """Replace the embeddings by com.microsoft EmbedLayerNormalization.

    Args:
        model: a model whose shapes are known.

    Returns:
        How many were put in: one, or none.
    """
    count = 0
    for node in tuple(model.graph):
        if node.op_type != "LayerNormalization" or node.domain:
            continue
        lookups = _lookups(node)
        if lookups is not None:
            _replace(model.graph, node, lookups)
            count += 1
    return count


def _lookups(node: ir.Node) -> list[ir.Node] | None:
    """The lookups whose sum is normalised, positions first."""
    hidden = dimensions(node.outputs[0])
    scale = dimensions(node.inputs[1])
    axis = node.attributes.get_int("axis", -1)
    if len(node.inputs) != 3 or hidden is None or scale is None:
        return None
    if axis not in (-1, len(hidden) - 1) or hidden[:2] != _EACH_TEXT:
        return None
    summands = _summands(node.inputs[0])
    if not 2 <= len(summands) <= 3:
        return None
    lookups = []
    for summand in summands:
        gather = summand.producer()
        if gather is None or gather.op_type != "Gather":
            return None
        table = gather.inputs[0]
        assert table is not None
        if (
            gather.attributes.get_int("axis", 0) != 0
            or table.const_value is None
            or table.dtype != ir.DataType.FLOAT
        ):
            return None
        if len(table.const_value.shape) != 2 or table.const_value.shape[1] != scale[0]:
            return None
        if _looked_up(gather) not in (_EACH_TEXT, _ALL_TEXTS):
            return None
        lookups.append(gather)
    # The sum is the same whichever table is called what, but only positions may broadcast.
    lookups.sort(key=lambda gather: _looked_up(gather) == _EACH_TEXT)
    return lookups if all(_looked_up(gather) == _EACH_TEXT for gather in lookups[1:]) else None


def _looked_up(gather: ir.Node) -> tuple[int | str | None, ...] | None:
    """The shape of the indices: that of the result without the last axis."""
    sizes = dimensions(gather.outputs[0])
    return None if sizes is None else sizes[:-1]


def _summands(value: ir.Value | None) -> list[ir.Value]:
    """What is added up, in the order of the sum; the value itself if it is no sum."""
    assert value is not None
    node = value.producer()
    if node is None or node.op_type != "Add" or len(value.uses()) > 1:
        return [value]
    return [summand for part in node.inputs for summand in _summands(part)]


def _replace(graph: ir.Graph, node: ir.Node, lookups: list[ir.Node]) -> None:
    positions, words, *types = lookups
    nodes = []

    def index(gather: ir.Node) -> ir.Value:
        cast = ir.node("Cast", [gather.inputs[1]], attributes={"to": ir.DataType.INT32.value})
        nodes.append(cast)
        return cast.outputs[0]

    kind = types[0] if types else None
    fused = ir.node(
        "EmbedLayerNormalization",
        [
            index(words),
            index(kind) if kind else None,
            words.inputs[0],
            positions.inputs[0],
            kind.inputs[0] if kind else None,
            *node.inputs[1:],
            None,
            index(positions),
        ],
        attributes={"epsilon": node.attributes.get_float("epsilon", 1e-5)},
        domain="com.microsoft",
        num_outputs=2,
    )
    nodes.append(fused)
    fused.outputs[0].shape, fused.outputs[0].type = node.outputs[0].shape, node.outputs[0].type
    graph.insert_before(node, nodes)
    ir.convenience.replace_all_uses_with(node.outputs[0], fused.outputs[0])
    graph.remove(node, safe=True)
