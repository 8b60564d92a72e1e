"""LayerNorm over the last axis, told by what a function of (x, residual) computes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from export.engine.regions import Array

__all__ = ["Norm", "fit_norm", "layer_norm"]

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

_SEED = 22
# Inputs of these sizes; the one whose variance is nearest to epsilon tells epsilon best.
_SMALL = (1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2)
_TOLERANCE = 1e-4


@dataclass(frozen=True, eq=False)
class Norm:
    """A LayerNorm.

    Attributes:
        gamma: float32 [features].
        beta: float32 [features].
        epsilon: what is added to the variance.
    """

    gamma: Floats
    beta: Floats
    epsilon: float


def layer_norm(x: Doubles, norm: Norm) -> Doubles:
    """Normalise float64 [..., features]."""
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = np.mean(centred**2, axis=-1, keepdims=True)
    result: Doubles = centred / np.sqrt(variance + norm.epsilon) * norm.gamma + norm.beta
    return result


def fit_norm(
    compute: Callable[[Array, Array], Array], shape: tuple[int, ...], vectors: Sequence[Array]
) -> Norm | None:
    """Find gamma, beta and epsilon for which ``compute(x, r)`` is ``LayerNorm(x + r)``.

    Args:
        compute: takes and gives float32 of ``shape``.
        shape: [..., features].
        vectors: constants; where one is close to what was measured, it is taken for it, so that
            weights stay exact.

    Returns:
        None if there are none.
    """
    features = shape[-1]
    zeros = np.zeros(shape, np.float32)
    found = compute(zeros, zeros)
    if found.shape != shape or features < 2 or not np.isfinite(found).all():
        return None
    beta = found.reshape(-1, features)[0].astype(np.float64)
    # Half of the features up, half down: far from zero in all of them, so that gamma shows.
    generator = np.random.default_rng(_SEED)
    signs = np.where(np.arange(features) % 2, 1.0, -1.0)
    signs = generator.permuted(np.broadcast_to(signs, shape), axis=-1).astype(np.float32)
    normal = layer_norm(signs.astype(np.float64), _plain(features))
    moved = compute(1e3 * signs, zeros).astype(np.float64) - beta
    gamma = (moved / normal).reshape(-1, features)[0]
    epsilon = _fit_epsilon(compute, signs, gamma, beta)
    if epsilon is None:
        return None
    norm = Norm(
        _snapped(gamma, vectors),
        _snapped(beta, vectors),
        _round_epsilon(epsilon, vectors),
    )
    for scale in (1e-3, 1.0, 30.0):
        x, r = (scale * generator.standard_normal((2, *shape))).astype(np.float32)
        x += np.float32(scale)  # a mean that is not zero
        expected = layer_norm(x.astype(np.float64) + r, norm)
        limit = _TOLERANCE * max(1.0, float(np.abs(expected).max()))
        if not np.allclose(compute(x, r), expected, rtol=0, atol=limit):
            return None
    return norm


def _plain(features: int) -> Norm:
    return Norm(np.ones(features, np.float32), np.zeros(features, np.float32), 0.0)


def _fit_epsilon(
    compute: Callable[[Array, Array], Array], signs: Floats, gamma: Doubles, beta: Doubles
) -> float | None:
    """Solve ``size / sqrt(size^2 + epsilon) = shrink`` for the input size that shrinks to half."""
    unit = layer_norm(signs.astype(np.float64), _plain(signs.shape[-1])) * gamma
    weight = float(np.sum(unit**2))
    if not np.isfinite(weight) or weight == 0:
        return None
    variance = float(signs.astype(np.float64).var(axis=-1).mean())
    best: tuple[float, float] | None = None
    for size in _SMALL:
        out = compute(np.float32(size) * signs, np.zeros_like(signs)).astype(np.float64) - beta
        shrink = float(np.sum(out * unit) / weight)
        if 0 < shrink < 1:
            epsilon = variance * size**2 * (1 / shrink**2 - 1)
            if best is None or abs(shrink - 0.5) < best[0]:
                best = (abs(shrink - 0.5), epsilon)
    return None if best is None else best[1]


def _round_epsilon(epsilon: float, vectors: Sequence[Array]) -> float:
    """The constant, or the number of one digit, that is meant by what was measured."""
    scalars = [float(v.reshape(-1)[0]) for v in vectors if v.size == 1 and v.dtype.kind == "f"]
    for candidate in (*scalars, float(f"{epsilon:.0e}")):
        if candidate > 0 and abs(candidate - epsilon) <= 0.02 * candidate:
            return candidate
    return epsilon


def _snapped(measured: Doubles, vectors: Sequence[Array]) -> Floats:
    """The constant that was measured, or else what was measured."""
    limit = 1e-4 * max(1e-3, float(np.abs(measured).max()))
    for vector in vectors:
        if vector.size == measured.size and vector.dtype == np.float32:
            flat = vector.reshape(-1).astype(np.float32)
            if np.allclose(flat, measured, rtol=0, atol=limit):
                return flat
    return measured.astype(np.float32)
