"""ONNX Runtime's own operators in the place of several standard ones, one module a fusion.

The operators are those of the domain ``com.microsoft``: no other runtime knows them. Weights stay
the initializers that they were, so they can still be encoded afterwards.
"""

from collections.abc import Callable, Sequence

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from export.fusion.attention import fuse_attention
from export.fusion.embed_layer_norm import fuse_embed_layer_norm
from export.fusion.gelu import fuse_gelu
from export.fusion.shapes import shapes_known
from export.fusion.skip_layer_norm import fuse_skip_layer_norm

__all__ = ["DOMAIN", "OPERATORS", "fuse"]

DOMAIN = "com.microsoft"

# In the order in which they run: the sum of embeddings looks like a residual as well.
_FUSIONS: dict[str, Callable[[ir.Model], int]] = {
    "embed-layer-norm": fuse_embed_layer_norm,
    "attention": fuse_attention,
    "gelu": fuse_gelu,
    "skip-layer-norm": fuse_skip_layer_norm,
}

# The operators that each of them puts in.
OPERATORS: dict[str, tuple[str, ...]] = {
    "embed-layer-norm": ("EmbedLayerNormalization",),
    "attention": ("MultiHeadAttention",),
    "gelu": ("BiasGelu", "FastGelu", "Gelu"),
    "skip-layer-norm": ("SkipLayerNormalization",),
}


def fuse(model: ir.Model, names: Sequence[str]) -> dict[str, int]:
    """Put fused operators into a graph, in place.

    What does not have the form of a fusion keeps its operators.

    Args:
        model: a model as :func:`export.graph.export_graph` makes it.
        names: which fusions: ``attention``, ``skip-layer-norm``, ``gelu``, ``embed-layer-norm``.

    Returns:
        fusion -> how many operators of it were put in, in the order of ``names``.

    Raises:
        KeyError: there is no fusion of that name.
    """
    unknown = sorted(set(names) - set(_FUSIONS))
    if unknown:
        raise KeyError(unknown[0])
    counts = {}
    with shapes_known(model):
        for name, apply in _FUSIONS.items():
            if name in names:
                counts[name] = apply(model)
                RemoveUnusedNodesPass()(model)
    if any(counts.values()):
        model.opset_imports[DOMAIN] = 1
    return {name: counts[name] for name in names}
