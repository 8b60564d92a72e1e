"""Which waiting rows run together."""

import math
from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from itertools import count
from typing import Generic, TypeVar

__all__ = ["RowQueue", "WaitingRow"]

T = TypeVar("T")

# Batches are padded to at most so many times their own tokens, unless the rows are of one text.
PADDED_WORK = 1.5


class WaitingRow(Generic[T]):
    """One row that waits.

    Attributes:
        owner: whom it belongs to.
        index: its place among its owner's rows.
        model: what runs it; rows run together only if theirs is the same object.
        length: in tokens.
        arrived_s: when it came.
    """

    __slots__ = ("arrived_s", "index", "length", "model", "owner", "sequence")

    def __init__(self, owner: T, index: int, model: object, length: int, arrived_s: float) -> None:
        self.owner = owner
        self.index = index
        self.model = model
        self.length = length
        self.arrived_s = arrived_s
        self.sequence = 0


# Sorts by length, then arrival; sequences differ, so that rows are never compared.
_Key = tuple[int, int, WaitingRow[T]]


class RowQueue(Generic[T]):
    """Rows that wait, of all models.

    Every batch holds the row that has waited longest, whatever its model and length: none starves.
    """

    def __init__(self) -> None:
        self._sequence = count()
        # In order of arrival; taken from anywhere.
        self._rows: OrderedDict[WaitingRow[T], None] = OrderedDict()
        # By length. A model without waiting rows is not kept, so that it can be freed.
        self._by_model: dict[object, list[_Key[T]]] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[WaitingRow[T]]:
        return iter(self._rows)

    def add(self, row: WaitingRow[T]) -> None:
        """Let a row wait."""
        row.sequence = next(self._sequence)
        self._rows[row] = None
        insort(self._by_model.setdefault(row.model, []), (row.length, row.sequence, row))

    def remove(self, rows: Iterable[WaitingRow[T]]) -> None:
        """Let rows wait no more; those that do not wait are passed over."""
        for row in rows:
            if row not in self._rows:
                continue
            del self._rows[row]
            keys = self._by_model[row.model]
            del keys[bisect_left(keys, (row.length, row.sequence))]
            if not keys:
                del self._by_model[row.model]

    def oldest(self) -> WaitingRow[T]:
        """The row that has waited longest, which the next batch will hold."""
        return next(iter(self._rows))

    def beside_oldest(self) -> int:
        """How many rows wait for the oldest row's model, itself included."""
        return len(self._by_model[self.oldest().model])

    def take(self, size: int) -> list[WaitingRow[T]]:
        """Take the next batch: the oldest row and the rows of its model that are nearest in length.

        Args:
            size: rows that it may have.
        """
        oldest = self.oldest()
        keys = self._by_model[oldest.model]
        start, end = _window(keys, bisect_left(keys, (oldest.length, oldest.sequence)), size)
        batch = [key[2] for key in keys[start:end]]
        del keys[start:end]
        if not keys:
            del self._by_model[oldest.model]
        for row in batch:
            del self._rows[row]
        return batch


def _window(keys: list[_Key[T]], position: int, size: int) -> tuple[int, int]:
    """Grow from a row to its neighbours in length, the nearer first, while padding is little."""
    start, end = position, position + 1
    length = tokens = keys[position][0]
    while end - start < size:
        below = length - keys[start - 1][0] if start > 0 else math.inf
        above = keys[end][0] - length if end < len(keys) else math.inf
        if below < above:
            wider = start - 1, end
            tokens += keys[start - 1][0]
        elif end < len(keys):
            wider = start, end + 1
            tokens += keys[end][0]
        else:
            break
        if keys[wider[1] - 1][0] * (wider[1] - wider[0]) > PADDED_WORK * tokens:
            break
        start, end = wider
    return start, end
