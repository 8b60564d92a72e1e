"""The sum with a residual and the LayerNormalization after it as one operator.

The bias of the linear layer before goes in as well.
"""

import onnx_ir as ir
from onnxscript.rewriter.ort_fusions.skip_normalization import fuse_skip_layer_normalization

__all__ = ["fuse_skip_layer_norm"]


def fuse_skip_layer_norm(model: ir.Model) -> int:
    """Replace Add and LayerNormalization by com.microsoft SkipLayerNormalization.

    Args:
        model: a model whose shapes are known.

    Returns:
        How many were put in.
    """
    count = int(fuse_skip_layer_normalization(model))
    for node in model.graph:
        if node.op_type == "SkipLayerNormalization":
            _drop_unused_outputs(node)
    return count


def _drop_unused_outputs(node: ir.Node) -> None:
    """Take away the trailing outputs nobody reads: the last is the sum, which costs writing it."""
    used = [bool(output.uses()) or output.is_graph_output() for output in node.outputs]
    node.resize_outputs(max(index for index, flag in enumerate(used) if flag) + 1)
