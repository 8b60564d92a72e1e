"""Whether all that is made of states reads nothing but each text's first token."""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from export.engine.analysis import Analysis
from pipeline.errors import ModelError

__all__ = ["reads_first_token_only"]

# A slice of the whole batch and the like may stand before what takes the token.
_DEPTH = 3
_SEED = 24


def reads_first_token_only(analysis: Analysis, states: ir.Value) -> bool:
    """Try with other states behind the first token, and with none there at all.

    Args:
        analysis: of the graph that the states come from.
        states: float32 [batch, sequence, features].
    """
    shapes = [shape for shape in analysis.shapes(states) if len(shape) == 3 and shape[1] > 1]
    if not shapes or states.is_graph_output():
        return False
    return all(
        _ignores_the_rest(analysis, states, [node], shapes[0]) for node in states.consumers()
    )


def _ignores_the_rest(
    analysis: Analysis, states: ir.Value, nodes: Sequence[ir.Node], shape: tuple[int, ...]
) -> bool:
    made = {output for node in nodes for output in node.outputs}
    read = {value for node in nodes for value in node.inputs if value is not None} - made
    if any(value is not states and not analysis.constants.is_constant(value) for value in read):
        return False
    last = nodes[-1]
    outputs = list(last.outputs)
    run = analysis.open(list(nodes), [states], outputs)
    if run is None:
        return False
    x = np.random.default_rng(_SEED).standard_normal(shape).astype(np.float32)
    other = np.concatenate([x[:, :1], -x[:, 1:]], axis=1)
    try:
        results = [run({str(states.name): array}) for array in (x, other, x[:, :1])]
    except ModelError:
        results = []
    if results and all(
        np.array_equal(first, again)
        for later in results[1:]
        for first, again in zip(results[0], later, strict=True)
    ):
        return True
    consumers = [node for output in outputs for node in output.consumers()]
    if len(nodes) == _DEPTH or not consumers or any(value.is_graph_output() for value in outputs):
        return False
    return all(_ignores_the_rest(analysis, states, [*nodes, node], shape) for node in consumers)
