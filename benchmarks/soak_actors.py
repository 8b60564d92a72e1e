"""What goes on at the same time in benchmarks/soak.py."""

import asyncio
import collections
import os
import random
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.http_load import (
    Client,
    Connection,
    Question,
    Tally,
    UnansweredError,
    infer_body,
    request_bytes,
)
from benchmarks.server_process import ServerProcess
from pipeline.artifacts.exported import MODEL_FILE

# Texts of a request.
MOST_TEXTS = 3
_RUBBISH = (
    b"",
    b"not JSON",
    b'{"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES"',
    b'{"inputs": [{"name": "text", "shape": [7], "datatype": "BYTES", "data": ["a"]}]}',
    b'{"inputs": [{"name": "text", "shape": [1], "datatype": "FP32", "data": [1.5]}]}',
    b'{"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": ["\xff\xfe"]}]}',
    infer_body(("word " * 100_000,)),
    bytes(200_000),
    random.Random(0).randbytes(10_000),
)


class Sample(NamedTuple):
    """One look at the server.

    Attributes:
        time_s: of ``time.monotonic``.
        rss_bytes: its memory.
        health_s: how long a health check took.
    """

    time_s: float
    rss_bytes: int
    health_s: float


async def right_answers(port: int, model: str, texts: Sequence[str]) -> list[Question]:
    """Questions of one to three texts with what a quiet server answers, each text alone."""
    connection = await Connection.open(port)
    logits = []
    for text in texts:
        path = f"/v2/models/{model}/infer"
        answer = await connection.ask("POST", path, infer_body((text,)))
        logits.append(answer.logits()[0])
    connection.close()
    questions = []
    for index in range(len(texts)):
        chosen = [(index * 7 + step * 31) % len(texts) for step in range(1 + index % MOST_TEXTS)]
        right = np.stack([logits[i] for i in chosen])
        questions.append(Question(model, tuple(texts[i] for i in chosen), right))
    return questions


async def ask_clients(
    stop: asyncio.Event,
    port: int,
    questions: Sequence[Question],
    clients: int,
    tally: Tally,
    tolerance: float,
) -> None:
    """Clients that ask all questions over and over, each from another place on."""

    def of_client(index: int) -> Callable[[int], Question]:
        first = index * len(questions) // clients
        return lambda number: questions[(first + number) % len(questions)]

    model = questions[0].model
    async with asyncio.TaskGroup() as group:
        for index in range(clients):
            client = Client(f"{model}-{index}", port, tally, tolerance=tolerance)
            group.create_task(client.ask_until(stop, of_client(index)))


async def vanish(stop: asyncio.Event, port: int, question: Question) -> int:
    """Clients that go away while they wait, or in the middle of what they send."""
    whole = request_bytes("POST", question.path, question.body("vanishing"))
    count = 0
    while not await _stopped(stop, 0.05):
        connection = await Connection.open(port)
        connection.writer.write(whole if count % 2 else whole[: len(whole) // 2])
        await connection.writer.drain()
        await asyncio.sleep(0.002 * (count % 5))
        connection.vanish()
        count += 1
    return count


async def send_rubbish(
    stop: asyncio.Event, port: int, path: str, statuses: collections.Counter[int]
) -> None:
    """Clients that send what is no request; counts the answers, 0 for none."""
    for number in range(10**9):
        if await _stopped(stop, 0.1):
            return
        connection = await Connection.open(port)
        try:
            answer = await connection.ask("POST", path, _RUBBISH[number % len(_RUBBISH)])
            statuses[answer.status] += 1
        except UnansweredError:
            statuses[0] += 1
        connection.close()


async def disturb_model(
    stop: asyncio.Event, port: int, directory: Path, stock: Path, pause_s: float
) -> collections.Counter[str]:
    """Load, replace and unload one model, again and again; returns what was done how often.

    Args:
        stop: ends it; the good model is in its place then.
        port: of the server.
        directory: the model.
        stock: where copies are made, on the same file system.
        pause_s: between two changes.
    """
    done: collections.Counter[str] = collections.Counter()

    async def post(action: str) -> None:
        connection = await Connection.open(port)
        path = f"/v2/repository/models/{directory.name}/{action}"
        done[f"{action}: {(await connection.ask('POST', path)).status}"] += 1
        connection.close()

    good = copy_model(directory, stock / "good")
    while not stop.is_set():
        await post("load")
        await _stopped(stop, pause_s)

        _replace(directory, _corrupt(copy_model(good, stock / "corrupt")), stock / "before")
        await post("load")
        await _stopped(stop, pause_s)
        _replace(directory, copy_model(good, stock / "mended"), stock / "before")
        await post("load")
        await _stopped(stop, pause_s)

        await post("unload")
        await asyncio.sleep(pause_s / 10)
        await post("load")
        await _stopped(stop, pause_s)
    return done


async def sample(stop: asyncio.Event, server: ServerProcess) -> list[Sample]:
    """Look at the server every second."""
    samples: list[Sample] = []
    connection = await Connection.open(server.port)
    while True:
        asked = time.monotonic()
        await connection.ask("GET", "/v2/health/live")
        now = time.monotonic()
        samples.append(Sample(now, server.rss_bytes, now - asked))
        if await _stopped(stop, 1.0):
            connection.close()
            return samples


def copy_model(source: Path, target: Path) -> Path:
    """A copy of a model directory that takes no space."""
    return Path(shutil.copytree(source, target, copy_function=os.link))


def _corrupt(directory: Path) -> Path:
    """Cut the end off the graph."""
    path = directory / MODEL_FILE
    content = path.read_bytes()[:-100]
    path.unlink()
    path.write_bytes(content)
    return directory


def _replace(directory: Path, new: Path, scratch: Path) -> None:
    directory.rename(scratch)
    new.rename(directory)
    shutil.rmtree(scratch)


async def _stopped(stop: asyncio.Event, seconds: float) -> bool:
    """Wait; returns early, and true, when told to stop."""
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return False
    return True
