"""Feed-forward networks: neurons that no weight leads into, or none out of."""

import numpy as np

from export.structure.linears import Floats, Indices, Linear
from export.structure.region import SIZES, Region, is_close
from pipeline.errors import ModelError

__all__ = ["FeedForward", "as_feed_forward"]

_SEED = 31


class FeedForward:
    """``down(activation(up(x)))``.

    A neuron without incoming weights always is ``activation(bias)``: what it adds to the result
    goes into ``down``'s bias. A neuron without outgoing weights adds nothing.

    Args:
        region: from ``up`` to ``down``.

    Attributes:
        up: the linear layer before the activation.
        down: the linear layer after it.
    """

    def __init__(self, region: Region) -> None:
        self._region = region
        self.up: Linear = region.sources[0]
        self.down: Linear = region.reader

    @property
    def neurons(self) -> int:
        """How many there are now."""
        return int(self.up.matrix.shape[1])

    def remove_empty(self) -> Indices | None:
        """Take out the empty neurons; one stays where all are empty.

        Returns:
            The neurons that stay; None, with nothing changed, if none is empty or if what lies
            between the two layers is no activation by neuron.
        """
        empty = np.asarray(~self.up.matrix.any(axis=0) | ~self.down.matrix.any(axis=1))
        if empty.all():
            empty[0] = False
        if not empty.any():
            return None
        kept = np.flatnonzero(~empty)
        try:
            activated = self._activated_bias(kept)
        except ModelError:
            return None
        if activated is None:
            return None
        # Neurons that are not constant have no weights here, so nothing is added for them.
        added = activated[empty].astype(np.float64) @ self.down.matrix[empty]
        self.up.keep_outputs(kept)
        self.down.keep_inputs(kept, added)
        return kept

    def _activated_bias(self, kept: Indices) -> Floats | None:
        """``activation(bias)``, if what is between the layers does the same with fewer neurons."""
        run = self._region.open()
        if run is None:
            return None
        name = str(self.up.output.name)
        (activated,) = run({name: self.up.bias[None, None]})
        generator = np.random.default_rng(_SEED)
        for size in SIZES:
            x = generator.standard_normal((*size, self.neurons)).astype(np.float32)
            (expected,) = run({name: x})
            (found,) = run({name: np.ascontiguousarray(x[..., kept])})
            (constant,) = run({name: np.broadcast_to(self.up.bias, x.shape).copy()})
            if expected.shape != x.shape or not is_close(found, expected[..., kept]):
                return None
            if not is_close(constant, np.broadcast_to(activated, x.shape)):
                return None
        return np.asarray(activated[0, 0], np.float32)


def as_feed_forward(region: Region) -> FeedForward | None:
    """The feed-forward network that a region is the middle of, if it looks like one."""
    if len(region.sources) != 1 or region.inputs:
        return None
    if region.sources[0].matrix.shape[1] != region.reader.matrix.shape[0]:
        return None
    return FeedForward(region)
