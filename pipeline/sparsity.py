"""What masks leave empty, and how small they could be: from a run's masks and densities."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts.mask_codec import entropy_bound_bits
from pipeline.artifacts.run import MatrixDensity

__all__ = ["empty_heads", "empty_neurons", "entropy_bound"]

Mask = NDArray[np.bool_]


def entropy_bound(matrices: Mapping[str, MatrixDensity]) -> dict[str, Any]:
    """The fewest bytes that masks take of which only each matrix's density is known (Shannon).

    Args:
        matrices: parameter name -> how much is kept of it.

    Returns:
        ``bound_bytes`` and ``bound_bits_per_weight``.
    """
    sizes = [matrix.size for matrix in matrices.values()]
    bits = entropy_bound_bits(sizes, [matrix.kept for matrix in matrices.values()])
    return {"bound_bytes": bits / 8, "bound_bits_per_weight": bits / max(1, sum(sizes))}


def empty_heads(
    masks: Mapping[str, Mask], matrices: Mapping[str, MatrixDensity], heads: int | None
) -> dict[int, list[int]] | None:
    """The attention heads that add nothing but a constant, whatever the text.

    Such a head has, for each of its features, no weight into the value or none in the attention
    output. These are the heads that ``export --remove-structure`` takes out.

    Args:
        masks: parameter name -> mask [out_features, in_features].
        matrices: parameter name -> type and layer of that matrix.
        heads: of a layer; None where that is not known.

    Returns:
        layer -> numbers of its empty heads, from 0; None where heads cannot be told.
    """
    if not heads:
        return None
    found = {}
    for layer, by_type in _by_layer(masks, matrices).items():
        value, output = by_type.get("value"), by_type.get("attention_output")
        if value is None or output is None or value.shape[0] != output.shape[1]:
            continue
        if value.shape[0] % heads:
            return None
        unused = ~value.any(axis=1) | ~output.any(axis=0)
        empty = unused.reshape(heads, -1).all(axis=1)
        found[layer] = [int(head) for head in np.flatnonzero(empty)]
    return found


def empty_neurons(
    masks: Mapping[str, Mask], matrices: Mapping[str, MatrixDensity]
) -> dict[int, tuple[int, int]]:
    """The neurons of feed-forward parts that no weight leads into, or none out of.

    Args:
        masks: parameter name -> mask [out_features, in_features].
        matrices: parameter name -> type and layer of that matrix.

    Returns:
        layer -> (empty neurons, all neurons).
    """
    found = {}
    for layer, by_type in _by_layer(masks, matrices).items():
        up, down = by_type.get("intermediate"), by_type.get("output")
        if up is None or down is None or up.shape[0] != down.shape[1]:
            continue
        empty = ~up.any(axis=1) | ~down.any(axis=0)
        found[layer] = (int(np.count_nonzero(empty)), int(empty.size))
    return found


def _by_layer(
    masks: Mapping[str, Mask], matrices: Mapping[str, MatrixDensity]
) -> dict[int, dict[str, Mask]]:
    """Layer -> matrix type -> mask, in the order of layers."""
    found: dict[int, dict[str, Mask]] = {}
    for name, matrix in sorted(matrices.items(), key=lambda item: item[1].layer):
        if name in masks:
            found.setdefault(matrix.layer, {})[matrix.matrix_type] = masks[name]
    return found
