"""Requests that wait together run together."""

import asyncio
import math
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any

from serve.server.errors import InferenceFailed, Overloaded, RequestError, TooLarge, Unavailable
from serve.server.logs import LOGGER
from serve.server.metrics import Metrics
from serve.server.row_queue import RowQueue, WaitingRow
from serve.server.text_model import TextModel
from serve.session import Row

__all__ = ["Batcher"]

# Weight of the last batch in the mean time of a row.
_LATEST = 0.1


@dataclass(eq=False, slots=True)
class _Job:
    """The rows of one request."""

    model: TextModel
    rows: Sequence[Row]
    answer: asyncio.Future[Any]
    results: Any
    left: int
    waiting: list[WaitingRow["_Job"]]
    error: RequestError | None = None


_Batch = list[WaitingRow[_Job]]


class Batcher:
    """Runs rows in batches on threads of its own; submitted to from one event loop.

    A batch is taken when a thread is free for it, at the last moment: while the threads are busy,
    rows gather. A thread that is done takes the next batch itself; only an idle one is handed its
    batch by the loop, which does so after everything that is ready in the loop has been submitted.
    """

    def __init__(
        self,
        *,
        max_batch_size: int,
        max_delay_s: float,
        max_queue: int,
        concurrency: int,
        metrics: Metrics,
    ) -> None:
        """Start the threads.

        Args:
            max_batch_size: rows that may run together.
            max_delay_s: how long a row waits for others to fill its batch while a thread is idle.
            max_queue: rows that may wait.
            concurrency: batches that may run at once.
            metrics: where to count.
        """
        self._max_batch_size = max_batch_size
        self._max_delay_s = max_delay_s
        self._max_queue = max_queue
        self._metrics = metrics
        # Shared by the loop and the threads, under the lock.
        self._lock = Lock()
        self._queue: RowQueue[_Job] = RowQueue()
        self._idle = concurrency
        self._row_s = 0.0  # recent mean time of a row

        # The loop's own.
        self._is_start_due = False
        self._timer: asyncio.TimerHandle | None = None
        self._is_closed = False

        # Batches for idle threads; None ends one.
        self._batches: SimpleQueue[_Batch | None] = SimpleQueue()
        self._threads = [
            Thread(target=self._work, name=f"inference-{index}", daemon=True)
            for index in range(concurrency)
        ]
        for thread in self._threads:
            thread.start()
        metrics.watch_queue(lambda: len(self._queue))

    def check_room(self, rows: int) -> None:
        """Refuse what :meth:`submit` would refuse now, before anything is made of it.

        Raises:
            Overloaded, TooLarge, Unavailable: as :meth:`submit`.
        """
        with self._lock:
            self._check_room(rows)

    async def submit(self, model: TextModel, rows: Sequence[Row]) -> Any:
        """Run rows, at least one, through a model; cancelling drops those that still wait.

        Returns:
            What the model's ``run`` gives, for all rows in their order.

        Raises:
            InferenceFailed: the model cannot run them.
            Overloaded: the queue has no room for them now.
            TooLarge: the queue will never have room for them.
            Unavailable: the batcher is closed.
        """
        loop = asyncio.get_running_loop()
        results = model.results(len(rows))
        job = _Job(model, rows, loop.create_future(), results, len(rows), [])
        now = time.monotonic()
        job.waiting = [
            WaitingRow(job, index, model, len(row.ids), now) for index, row in enumerate(rows)
        ]
        with self._lock:
            self._check_room(len(rows))
            for row in job.waiting:
                self._queue.add(row)
            is_idle = self._idle > 0
        if is_idle and not self._is_start_due:
            self._is_start_due = True
            loop.call_soon(self._start, loop)
        try:
            return await job.answer
        except asyncio.CancelledError:
            with self._lock:
                self._queue.remove(job.waiting)
            raise
        finally:
            job.waiting.clear()  # a cycle, which would keep the model until the next collection

    def close(self) -> None:
        """Refuse what waits and what comes, finish the batches that run, and end the threads."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
        with self._lock:
            jobs = {row.owner for row in self._queue}
            for job in jobs:
                self._queue.remove(job.waiting)
        for job in jobs:
            if not job.answer.done():
                job.answer.set_exception(_shutting_down())
        for _ in self._threads:
            self._batches.put(None)
        for thread in self._threads:
            thread.join()

    def _check_room(self, rows: int) -> None:
        if self._is_closed:
            raise _shutting_down()
        if rows > self._max_queue:
            raise TooLarge(
                f"{rows} texts in a request; the queue of this server holds {self._max_queue}; "
                "send fewer, or raise --max-queue"
            )
        waiting = len(self._queue)
        if waiting + rows > self._max_queue:
            seconds = waiting * self._row_s / len(self._threads)
            raise Overloaded(
                f"{waiting} texts wait, and the queue holds {self._max_queue}; come back later",
                retry_after_s=max(1, math.ceil(seconds)),
            )

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Hand batches to idle threads, or set a timer for the next one."""
        self._is_start_due = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        with self._lock:
            while self._idle and (batch := self._take()):
                self._idle -= 1
                self._batches.put(batch)
            if not self._idle or not self._queue or self._is_closed:
                return
            due_s = self._queue.oldest().arrived_s + self._max_delay_s
        self._timer = loop.call_later(max(0.0, due_s - time.monotonic()), self._start, loop)

    def _take(self) -> _Batch | None:
        """The next batch, if it is full or its oldest row has waited long enough."""
        if not self._queue:
            return None
        if self._max_delay_s and self._queue.beside_oldest() < self._max_batch_size:
            waited_s = time.monotonic() - self._queue.oldest().arrived_s
            if waited_s < self._max_delay_s:
                return None
        return self._queue.take(self._max_batch_size)

    def _work(self) -> None:
        """Run batches until :meth:`close`; the thread's own."""
        while (batch := self._batches.get()) is not None:
            # Nothing of a batch is kept while waiting, so that an unloaded model can be freed.
            while batch is not None:
                batch = self._run_and_take(batch)

    def _run_and_take(self, batch: _Batch) -> _Batch | None:
        loop = batch[0].owner.answer.get_loop()
        start_s = time.monotonic()
        self._run(batch)
        seconds = time.monotonic() - start_s
        done = []
        with self._lock:
            row_s = seconds / len(batch)
            self._row_s += (_LATEST if self._row_s else 1.0) * (row_s - self._row_s)
            for row in batch:
                job = row.owner
                job.left -= 1
                if job.error is not None:
                    self._queue.remove(job.waiting)
                if job.left == 0 or job.error is not None:
                    done.append(job)
            following = self._take()
            is_delayed = following is None and len(self._queue) > 0
            if following is None:
                self._idle += 1
        if done or is_delayed:
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(self._finish, loop, done, is_delayed)
        name = batch[0].owner.model.name
        for row in batch:
            self._metrics.queued(name, start_s - row.arrived_s)
        return following

    def _run(self, batch: _Batch) -> None:
        """Run a batch; if it fails, every job in it by itself, so that a bad one fails alone."""
        try:
            self._infer(batch)
            return
        except Exception as error:  # whatever happens to one batch, the thread goes on
            jobs = list(dict.fromkeys(row.owner for row in batch))
            if len(jobs) == 1:
                jobs[0].error = _failure(jobs[0].model, error)
                return
        for job in jobs:
            self._run([row for row in batch if row.owner is job])

    def _infer(self, batch: _Batch) -> None:
        start_s = time.monotonic()
        model = batch[0].owner.model
        results = model.run([row.owner.rows[row.index] for row in batch])
        for row, result in zip(batch, results, strict=True):
            row.owner.results[row.index] = result
        lengths = [row.length for row in batch]
        self._metrics.batch(
            model.name,
            rows=len(batch),
            tokens=sum(lengths),
            padded_tokens=len(batch) * max(lengths),
            seconds=time.monotonic() - start_s,
        )

    def _finish(
        self, loop: asyncio.AbstractEventLoop, jobs: Sequence[_Job], is_delayed: bool
    ) -> None:
        """Give answers, and set a timer where rows wait beside an idle thread; the loop's own."""
        for job in jobs:
            if job.answer.done():  # cancelled, or failed before
                continue
            if job.error is None:
                job.answer.set_result(job.results)
            else:
                job.answer.set_exception(job.error)
        if is_delayed:
            self._start(loop)


def _failure(model: TextModel, error: Exception) -> RequestError:
    if isinstance(error, RequestError):
        return error
    fields = {"model": model.name}
    LOGGER.error("inference failed", exc_info=error, extra={"fields": fields})
    failure = InferenceFailed(f"model {model.name} failed; the server's log says why")
    failure.__cause__ = error
    return failure


def _shutting_down() -> Unavailable:
    return Unavailable("the server is shutting down; ask another one")
