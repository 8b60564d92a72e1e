from hypothesis import given, settings
from hypothesis import strategies as st

from serve.server.row_queue import PADDED_WORK, RowQueue, WaitingRow

LENGTHS = st.integers(1, 60)
ROWS = st.lists(st.tuples(st.sampled_from("ab"), LENGTHS), min_size=1, max_size=40)

Queue = RowQueue[int]
Row = WaitingRow[int]


def fill(rows: list[tuple[str, int]]) -> tuple[Queue, list[Row]]:
    queue = Queue()
    waiting = [Row(i, 0, model, length, 0.0) for i, (model, length) in enumerate(rows)]
    for row in waiting:
        queue.add(row)
    return queue, waiting


def padded(rows: list[Row]) -> int:
    return len(rows) * max(row.length for row in rows)


def tokens(rows: list[Row]) -> int:
    return sum(row.length for row in rows)


@settings(deadline=None)
@given(rows=ROWS, size=st.integers(1, 12))
def test_every_row_is_taken_once_with_the_oldest_in_each_batch(
    rows: list[tuple[str, int]], size: int
) -> None:
    queue, left = fill(rows)
    while len(queue):
        oldest = left[0]
        assert queue.oldest() is oldest
        assert queue.beside_oldest() == sum(row.model == oldest.model for row in left)
        batch = queue.take(size)
        assert oldest in batch
        assert len(batch) <= size
        assert {row.model for row in batch} == {oldest.model}
        left = [row for row in left if row not in batch]
        assert list(queue) == left
    assert left == []


@settings(deadline=None)
@given(rows=ROWS, size=st.integers(1, 12))
def test_a_batch_has_the_nearest_lengths_and_little_padding(
    rows: list[tuple[str, int]], size: int
) -> None:
    queue, _ = fill(rows)
    oldest = queue.oldest()
    batch = queue.take(size)
    left = [row for row in queue if row.model == oldest.model]

    def distance(row: Row) -> int:
        return abs(row.length - oldest.length)

    assert len(batch) == 1 or padded(batch) <= PADDED_WORK * tokens(batch)
    if left:
        nearest = min(map(distance, left))
        assert max(map(distance, batch)) <= nearest
        if len(batch) < size:
            wider = [[*batch, row] for row in left if distance(row) == nearest]
            assert any(padded(rows) > PADDED_WORK * tokens(rows) for rows in wider)


@settings(deadline=None)
@given(rows=ROWS, gone=st.sets(st.integers(0, 39)), size=st.integers(1, 12))
def test_removed_rows_are_not_taken(rows: list[tuple[str, int]], gone: set[int], size: int) -> None:
    queue, waiting = fill(rows)
    removed = [row for row in waiting if row.owner in gone]
    queue.remove(removed)
    queue.remove(removed)
    assert len(queue) == len(waiting) - len(removed)
    taken = [row for _ in waiting if len(queue) for row in queue.take(size)]
    assert sorted(row.owner for row in taken) == sorted(set(range(len(rows))) - gone)
    assert len(queue) == 0


def test_rows_of_one_length_run_in_the_order_of_their_arrival() -> None:
    queue, waiting = fill([("a", 7)] * 10)
    assert queue.take(4) == waiting[:4]
    assert queue.take(4) == waiting[4:8]
