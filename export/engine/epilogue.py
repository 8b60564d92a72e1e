"""What follows a linear layer: activation, residual, LayerNorm, told by what they compute."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from export.engine.analysis import Analysis
from export.engine.linear import Linear
from export.engine.normalisation import Norm, fit_norm
from export.engine.regions import Array, Run
from pipeline.errors import ModelError

__all__ = ["Epilogue", "find_epilogue"]

Doubles = NDArray[np.float64]

_SEED = 21
# Single precision over arguments up to _RANGE; the two GELUs differ by fifty times as much.
_TOLERANCE = 1e-5
_RANGE = 6.0
_POINTS = 997  # a prime: no axis of a tensor sees the same points again and again


def _gelu(x: Doubles) -> Doubles:
    return np.array([0.5 * v * (1.0 + math.erf(v / math.sqrt(2.0))) for v in x.tolist()])


ACTIVATIONS: Mapping[str, Callable[[Doubles], Doubles]] = {
    "none": lambda x: x,
    "gelu": _gelu,
    "gelu_tanh": lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "relu": lambda x: np.maximum(x, 0.0),
    "tanh": np.tanh,
    "silu": lambda x: x / (1 + np.exp(-x)),
}


@dataclass(frozen=True, eq=False)
class Epilogue:
    """``output = norm(activation(linear) + residual)``.

    Attributes:
        activation: a name of the engine's operators; ``none`` for none.
        residual: None for none.
        norm: None for none.
        output: the result; the linear layer's own output where nothing follows.
    """

    activation: str
    residual: ir.Value | None
    norm: Norm | None
    output: ir.Value


def find_epilogue(analysis: Analysis, linear: Linear) -> Epilogue:
    """Find how far beyond a linear layer (its ``states_out``) an engine operator can go.

    Only what nothing else reads is taken in.
    """
    activation, activated = _find_activation(analysis, linear.states_out)
    found = _find_residual(analysis, activated)
    if found is None:
        return Epilogue(activation, None, None, activated)
    return Epilogue(activation, *found)


def _find_activation(analysis: Analysis, start: ir.Value) -> tuple[str, ir.Value]:
    tails = [(nodes, end) for nodes, end, others in analysis.tails(start) if not others]
    best = ("none", start)
    shapes = analysis.shapes(start)
    if not tails or not shapes:
        return best
    ends = [end for _, end in tails]
    run = analysis.open(tails[-1][0], [start], ends)
    grid = np.random.default_rng(_SEED).uniform(-_RANGE, _RANGE, _POINTS).astype(np.float32)
    x = np.resize(grid, shapes[0])
    for end, found in zip(ends, _outputs(run, {str(start.name): x}), strict=False):
        for name, function in ACTIVATIONS.items():
            expected = np.resize(function(grid.astype(np.float64)), shapes[0])
            if found.shape == x.shape and np.allclose(found, expected, rtol=0, atol=_TOLERANCE):
                best = (name, end)
    return best


def _find_residual(
    analysis: Analysis, start: ir.Value
) -> tuple[ir.Value, Norm | None, ir.Value] | None:
    shapes = analysis.shapes(start)
    residual: ir.Value | None = None
    tails: list[tuple[list[ir.Node], ir.Value]] = []
    for nodes, end, others in analysis.tails(start):
        if len(others) != 1 or residual not in (None, others[0]):
            break
        residual = others[0]
        tails.append((nodes, end))
    if residual is None or not shapes or analysis.shapes(residual) != shapes:
        return None
    nodes, ends = tails[-1][0], [end for _, end in tails]
    run = analysis.open(nodes, [start, residual], ends)
    if run is None:
        return None
    names = (str(start.name), str(residual.name))
    read = [value for node in nodes for value in node.inputs if value is not None]
    vectors = [
        analysis.constants.array(value) for value in read if analysis.constants.is_constant(value)
    ]
    best: tuple[ir.Value, Norm | None, ir.Value] | None = None
    for index, end in enumerate(ends):

        def compute(x: Array, r: Array, index: int = index) -> Array:
            assert run is not None
            return run(dict(zip(names, (x, r), strict=True)))[index]

        try:
            if _is_sum(compute, shapes[0]):
                best = (residual, None, end)
            norm = fit_norm(compute, shapes[0], vectors)
        except ModelError:
            break
        if norm is not None:
            best = (residual, norm, end)
    return best


def _is_sum(compute: Callable[[Array, Array], Array], shape: tuple[int, ...]) -> bool:
    generator = np.random.default_rng(_SEED)
    x, r = generator.standard_normal((2, *shape)).astype(np.float32)
    found = compute(x, r)
    return found.shape == x.shape and np.allclose(found, x + r, rtol=0, atol=_TOLERANCE)


def _outputs(run: Run | None, feeds: Mapping[str, Array]) -> list[Array]:
    try:
        return [] if run is None else run(feeds)
    except ModelError:
        return []
