"""Attention: heads of which all that is read is constant."""

from collections.abc import Iterator, Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from export.engine.regions import Array, Run
from export.structure.linears import Floats, Indices, Linear
from export.structure.region import SIZES, Region, is_close
from pipeline.errors import ModelError

__all__ = ["Attention", "as_attention"]

_SEED = 32
_MASK = "attention_mask"
# By how much a result changes at least when something that it depends on does.
_CHANGE = 1e-4


class Attention:
    """``out(attention(query(x), key(x), value(x)))``.

    The attention weights of a token sum up to 1, so a feature without weights into the value always
    is the value's bias after attention: what it adds to the result goes into ``out``'s bias. (Texts
    without any token are the exception, since attention is zero for them.) A feature without
    weights in ``out`` adds nothing. A head is empty if all of its features are one or the other.

    Args:
        region: from the three linear layers to ``out``.
        run: the region.
        value: which of the three is the value.
        head_size: features of a head.

    Attributes:
        value: the value's linear layer.
        others: those of query and key.
        out: the linear layer after attention.
    """

    def __init__(self, region: Region, run: Run, value: int, head_size: int) -> None:
        self._region = region
        self._run = run
        self._head_size = head_size
        self.value: Linear = region.sources[value]
        self.others = [linear for linear in region.sources if linear is not self.value]
        self.out: Linear = region.reader

    @property
    def heads(self) -> int:
        """How many there are now."""
        return int(self.out.matrix.shape[0]) // self._head_size

    def may_shrink(self) -> bool:
        """Whether the graph works with fewer heads; one head stays in any case.

        Raises:
            ModelError: it does not run.
        """
        return self.heads == 1 or self._works_with(
            np.arange(self._head_size, self.heads * self._head_size)
        )

    def remove_empty(self) -> Indices | None:
        """Take out the empty heads; one stays where all are empty.

        Returns:
            The features of the heads that stay; None, with nothing changed, if no head is empty
            or if the graph does not work without just these.
        """
        unused = ~self.value.matrix.any(axis=0) | ~self.out.matrix.any(axis=1)
        empty = np.asarray(unused.reshape(self.heads, -1).all(axis=1))
        if empty.all():
            empty[0] = False
        if not empty.any():
            return None
        kept = np.flatnonzero(np.repeat(~empty, self._head_size))
        try:
            if not self._works_with(kept):
                return None
        except ModelError:
            return None
        gone = np.setdiff1d(np.arange(self.value.bias.size), kept)
        added = self.value.bias[gone].astype(np.float64) @ self.out.matrix[gone]
        for linear in self._region.sources:
            linear.keep_outputs(kept)
        self.out.keep_inputs(kept, added)
        return kept

    def _works_with(self, kept: Indices) -> bool:
        """Whether each head that stays gives what it gave, and weights always sum up to 1."""
        features = int(self.out.matrix.shape[0])
        value = self._region.sources.index(self.value)
        for states, feeds in _made_up(self._region, features):
            (expected,) = self._run({**_named(self._region, states), **feeds})
            narrow = [np.ascontiguousarray(array[..., kept]) for array in states]
            (found,) = self._run({**_named(self._region, narrow), **feeds})
            if not is_close(found, expected[..., kept]):
                return False
            if not _gives_constants(self._region, self._run, states, feeds, value):
                return False
        return True


def as_attention(region: Region) -> Attention | None:
    """The attention that a region is the middle of, told by what it computes; else None."""
    features = int(region.reader.matrix.shape[0])
    if len(region.sources) != 3:
        return None
    if any(source.matrix.shape[1] != features for source in region.sources):
        return None
    run = region.open()
    if run is None:
        return None
    states, feeds = next(_made_up(region, features))
    try:
        values = [i for i in range(3) if _gives_constants(region, run, states, feeds, i)]
        if len(values) != 1:
            return None
        head_size = _head_size(region, run, states, feeds, (values[0] + 1) % 3)
        if head_size is None:
            return None
        attention = Attention(region, run, values[0], head_size)
        return attention if attention.may_shrink() else None
    except ModelError:
        return None


def _made_up(region: Region, features: int) -> Iterator[tuple[list[Floats], dict[str, Array]]]:
    """Random outputs of the three linear layers, and inputs of the graph with some padding."""
    generator = np.random.default_rng(_SEED)
    for size in SIZES:
        states = [
            generator.standard_normal((*size, features)).astype(np.float32) for _ in region.sources
        ]
        lengths = generator.integers(1, size[1] + 1, (size[0], 1))
        yield (
            states,
            {
                str(value.name): _input(value, np.arange(size[1]) < lengths)
                for value in region.inputs
            },
        )


def _input(value: ir.Value, kept: NDArray[np.bool_]) -> Array:
    array = kept if value.name == _MASK else np.zeros(kept.shape)
    return array.astype((value.dtype or ir.DataType.INT64).numpy())


def _named(region: Region, states: Sequence[Floats]) -> dict[str, Array]:
    names = [str(source.output.name) for source in region.sources]
    return dict(zip(names, states, strict=True))


def _gives_constants(
    region: Region, run: Run, states: Sequence[Floats], feeds: dict[str, Array], index: int
) -> bool:
    """Whether the result is what one of the states is, if that is the same for all tokens."""
    constant = np.broadcast_to(states[index][:1, :1], states[index].shape).copy()
    changed = [*states[:index], constant, *states[index + 1 :]]
    (found,) = run({**_named(region, changed), **feeds})
    return is_close(found, constant)


def _head_size(
    region: Region, run: Run, states: Sequence[Floats], feeds: dict[str, Array], index: int
) -> int | None:
    """How many features of the result depend on the first feature of the query or key."""
    moved = states[index].copy()
    moved[..., 0] = np.random.default_rng(_SEED).standard_normal(moved.shape[:2])
    (before,) = run({**_named(region, states), **feeds})
    (after,) = run({**_named(region, [*states[:index], moved, *states[index + 1 :]]), **feeds})
    change = np.asarray(after, np.float64) - np.asarray(before, np.float64)
    changes = np.abs(change).max(axis=(0, 1)) > _CHANGE
    size = int(np.count_nonzero(changes))
    return size if size and changes.size % size == 0 else None
