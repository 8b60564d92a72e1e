"""A model whose answers tell which row they are of, and a batcher for it."""

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from serve.server.batching import Batcher
from serve.server.errors import InferenceFailed
from serve.server.metrics import Metrics
from serve.server.text_model import TextModel
from serve.session import TokenRow

BAD = -1  # a token that the model cannot run


class FakeModel:
    """Its logits are a function of the row and the model, so that a mix-up is seen.

    Attributes:
        batches: first tokens of the rows of each batch that ran.
        gate: closed, it holds batches up.
        started: set once a batch waits at the gate or is beyond it.
    """

    def __init__(self, name: str = "fake", factor: int = 1) -> None:
        self.name = name
        self.factor = factor
        self.batches: list[list[int]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.started = threading.Event()

    def results(self, rows: int) -> NDArray[np.float32]:
        return np.empty((rows, 2), np.float32)

    def run(self, rows: Sequence[TokenRow]) -> NDArray[np.float32]:
        self.started.set()
        assert self.gate.wait(60)
        if any(BAD in row.ids for row in rows):
            raise InferenceFailed("a bad row")
        self.batches.append([row.ids[0] for row in rows])
        return np.stack([self.logits(row) for row in rows])

    def logits(self, row: TokenRow) -> NDArray[np.float32]:
        return np.array([self.factor * sum(row.ids), len(row.ids)], dtype=np.float32)

    def expected(self, rows: Sequence[TokenRow]) -> NDArray[np.float32]:
        return np.stack([self.logits(row) for row in rows])


def row(token: int, length: int = 1) -> TokenRow:
    return TokenRow([token, *[1] * (length - 1)], [1] * length, [0] * length)


def as_model(model: FakeModel) -> TextModel:
    return cast(TextModel, model)


@asynccontextmanager
async def batcher(**changes: Any) -> AsyncIterator[Batcher]:
    arguments: dict[str, Any] = {
        "max_batch_size": 4,
        "max_delay_s": 0.0,
        "max_queue": 100,
        "concurrency": 1,
        "metrics": Metrics(),
    }
    batching = Batcher(**{**arguments, **changes})
    try:
        yield batching
    finally:
        batching.close()


async def until(condition: threading.Event) -> None:
    """Let the loop run until a thread has set an event."""
    while not condition.is_set():
        await asyncio.sleep(0.001)
