import asyncio
import json
import random
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.http_load import Answer, Connection, UnansweredError, infer_body, request_bytes
from tests.serve.server.running import (
    ServerProcess,
    ask,
    count_words,
    eventually,
    metrics,
    reason,
)

PATH = "/v2/models/words/infer"
QUESTION = count_words("words", 4)
RIGHT = QUESTION.body("right")
LIMIT_BYTES = 2**20


@pytest.fixture(scope="module")
def server(model: Path) -> Iterator[ServerProcess]:
    """A server with tight limits, which nothing that happens here may hurt."""
    flags = (
        "--request-timeout-s=2.5",
        f"--max-request-bytes={LIMIT_BYTES}",
        "--max-connections=50",
    )
    with ServerProcess([model], flags) as running:
        running.wait_for("ready")
        yield running
        assert_unhurt(running)
        assert running.stop() == 0
        assert running.lines == []
        assert not any("traceback" in entry for entry in running.events)


def assert_unhurt(server: ServerProcess) -> None:
    """It answers, rightly, and nothing is left in its queue."""
    answer = ask(server.port, "POST", PATH, RIGHT)
    np.testing.assert_array_equal(answer.logits(), QUESTION.logits)
    eventually(lambda: metrics(server.port)[("smp_queue_texts",)] == 0)


def tensor(**changes: Any) -> bytes:
    """A request whose one tensor is changed; None takes a field away."""
    content = {"name": "text", "shape": [1], "datatype": "BYTES", "data": ["good"], **changes}
    given = {key: value for key, value in content.items() if value is not None}
    return json.dumps({"inputs": [given]}).encode()


MALFORMED = {
    "nothing": b"",
    "no JSON": b"good film",
    "half of it": RIGHT[: len(RIGHT) // 2],
    "more than one": RIGHT + RIGHT,
    "null": b"null",
    "a list": b"[]",
    "a number": b"1e999",
    "no inputs": b"{}",
    "inputs of the wrong type": b'{"inputs": "good"}',
    "no tensor": b'{"inputs": []}',
    "tensors that are none": b'{"inputs": [1, null, []]}',
    "no name": tensor(name=None),
    "an unknown name": tensor(name="image"),
    "no shape": tensor(shape=None),
    "a shape that does not fit": tensor(shape=[2]),
    "a negative shape": tensor(shape=[-1]),
    "a shape beyond 64 bits": tensor(shape=[2**70]),
    "a shape of huge product": tensor(shape=[2**40, 2**40]),
    "a shape of fractions": tensor(shape=[1.5]),
    "many dimensions": tensor(shape=[1] * 5000),
    "an unknown datatype": tensor(datatype="TEXT"),
    "another datatype": tensor(datatype="FP32"),
    "no data": tensor(data=None),
    "numbers for texts": tensor(data=[1]),
    "null for a text": tensor(data=[None]),
    "a text for texts": tensor(data="good"),
    "objects for texts": tensor(data=[{"a": 1}]),
    "deep nesting": b'{"inputs": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "an unknown output": json.dumps(
        {**json.loads(tensor()), "outputs": [{"name": "weights"}]}
    ).encode(),
    "the same input twice": json.dumps({"inputs": json.loads(tensor())["inputs"] * 2}).encode(),
    "invalid UTF-8": tensor().replace(b"good", b"go\xff\xfed"),
    "overlong UTF-8": tensor().replace(b"good", b"\xc0\xaf"),
    "half a surrogate pair": tensor().replace(b"good", b"\\ud800"),
    "random bytes": random.Random(0).randbytes(5000),
    "zeros": bytes(5000),
    "NaN for a token": tensor(
        name="input_ids", datatype="INT64", shape=[1, 1], data=[float("nan")]
    ),
    "a token beyond 64 bits": tensor(
        name="input_ids", datatype="INT64", shape=[1, 1], data=[2**64]
    ),
    "an unknown token": tensor(name="input_ids", datatype="INT64", shape=[1, 1], data=[10**9]),
}


@pytest.mark.parametrize("body", MALFORMED.values(), ids=list(MALFORMED))
def test_a_malformed_request_is_refused_with_a_reason(body: bytes, server: ServerProcess) -> None:
    answer = ask(server.port, "POST", PATH, body)
    assert answer.status == 400
    assert reason(answer)


@pytest.mark.parametrize(
    "length", ["-1", "x", "1e3", "99999999999999999999", str(2**62), str(LIMIT_BYTES + 1)]
)
def test_a_length_that_cannot_be_is_refused_before_the_body_comes(
    length: str, server: ServerProcess
) -> None:
    head = f"POST {PATH} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n\r\n"
    status = raw(server.port, head.encode())
    assert status in (400, 413)


def raw(port: int, content: bytes) -> int:
    """The status that a server gives to bytes; 0 if it just closes the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        try:
            client.sendall(content)
            answer = client.recv(4096)
        except ConnectionError:
            return 0
    return int(answer.split()[1]) if answer else 0


def test_bodies_beyond_the_limit_are_refused_however_they_come(server: ServerProcess) -> None:
    huge = b" " * (LIMIT_BYTES + 1)
    assert raw(server.port, request_bytes("POST", PATH, huge)) in (0, 413)
    assert ask(server.port, "POST", PATH, huge[:-1] + b"x").status == 413
    head = f"POST {PATH} HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n"
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"

    async def endless() -> int | None:
        connection = await Connection.open(server.port)
        connection.writer.write(head.encode())
        try:
            for _ in range(20 * LIMIT_BYTES // 0x10000):
                connection.writer.write(chunk)
                await connection.writer.drain()
            return (await connection.read()).status
        except (OSError, UnansweredError):
            return None
        finally:
            connection.vanish()

    before = server.rss_bytes
    assert asyncio.run(endless()) in (413, None)
    assert server.rss_bytes - before < 10 * LIMIT_BYTES


@pytest.mark.parametrize(
    "content",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),  # TLS to a plain port
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\r\n" * 500,
        b"GET / HTTP/1.1\r\nhost: localhost\r\n" + b"x: " + b"a" * 2**20 + b"\r\n\r\n",
        b"GET /" + b"a" * 2**20 + b" HTTP/1.1\r\nhost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: localhost\r\n" + b"x: y\r\n" * 50_000 + b"\r\n",
        b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nZZ\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        random.Random(1).randbytes(4096),
    ],
    ids=lambda content: repr(content[:20]),
)
def test_what_is_no_request_is_refused_or_cut_off(content: bytes, server: ServerProcess) -> None:
    status = raw(server.port, content)
    assert status == 0 or 400 <= status < 500
    assert_unhurt(server)


async def trickle(port: int, content: bytes, *, pieces: int) -> tuple[Answer | None, bytes]:
    """Send a start of a request byte by byte, and go on until the server has enough."""
    connection = await Connection.open(port)
    sending = asyncio.create_task(_send_slowly(connection, content, pieces))
    try:
        answer = await connection.read()
        return answer, await connection.rest()
    except UnansweredError:
        return None, b""
    finally:
        sending.cancel()
        connection.vanish()


async def _send_slowly(connection: Connection, content: bytes, pieces: int) -> None:
    size = len(content) // pieces
    for start in range(0, len(content), size):
        connection.writer.write(content[start : start + size])
        await connection.writer.drain()
        await asyncio.sleep(0.2)


def test_slow_clients_are_sent_away_and_hamper_nobody(server: ServerProcess) -> None:
    request = request_bytes("POST", PATH, RIGHT)
    head, _, body = request.partition(b"\r\n\r\n")
    chunked = head.replace(f"content-length: {len(RIGHT)}".encode(), b"transfer-encoding: chunked")
    slow_parts = {
        "headers": (request, 100),
        "body": (head + b"\r\n\r\n" + body[:1], 1),
        "chunks": (chunked + b"\r\n\r\n" + b"1\r\n{\r\n", 1),
        "nothing": (b"P", 1),
    }

    async def answers() -> tuple[list[tuple[Answer | None, bytes]], int]:
        slow = [
            asyncio.create_task(trickle(server.port, content, pieces=pieces))
            for content, pieces in slow_parts.values()
            for _ in range(10)
        ]
        quick, connection = 0, await Connection.open(server.port)
        while not all(task.done() for task in slow):
            answer = await connection.ask("POST", PATH, RIGHT)
            np.testing.assert_array_equal(answer.logits(), QUESTION.logits)
            quick += 1
        connection.close()
        return [await task for task in slow], quick

    found, quick = asyncio.run(answers())
    for answer, rest in found:
        assert answer is not None
        assert answer.status == 408
        assert answer.headers["connection"] == "close"
        assert rest == b""
    # While 40 of them dawdled, others were answered as ever.
    assert quick > 30


def test_more_connections_than_allowed_get_503_and_the_others_are_answered(
    server: ServerProcess,
) -> None:
    async def crowd() -> list[int | None]:
        connections = [await Connection.open(server.port) for _ in range(60)]
        statuses: list[int | None] = []
        for connection in connections:
            try:
                statuses.append((await connection.ask("GET", "/v2/health/ready")).status)
            except UnansweredError:
                statuses.append(None)
        for connection in connections:
            connection.close()
        return statuses

    statuses = asyncio.run(crowd())
    assert statuses.count(200) >= 40
    assert set(statuses) - {200} <= {503, None}
    assert len(set(statuses)) > 1
    eventually(lambda: ask(server.port, "GET", "/v2/health/live").status == 200)


def test_pipelined_requests_are_answered_in_their_order(server: ServerProcess) -> None:
    async def pipeline() -> list[Answer]:
        connection = await Connection.open(server.port)
        for number in range(40):
            body = count_words("words", number - 20).body(str(number))
            connection.writer.write(request_bytes("POST", PATH, body))
        answers = [await connection.read() for _ in range(40)]
        assert not connection.unread()
        connection.close()
        return answers

    for number, answer in enumerate(asyncio.run(pipeline())):
        assert answer.json()["id"] == str(number)
        np.testing.assert_array_equal(answer.logits(), [[20 - number, number - 20]])


def test_an_empty_text_is_answered(server: ServerProcess) -> None:
    for text in ("", " ", "\u200b", "\0"):
        answer = ask(server.port, "POST", PATH, infer_body((text,)))
        np.testing.assert_array_equal(answer.logits(), [[0, 0]])


def test_a_client_that_never_reads_its_answers_does_not_fill_the_memory(
    server: ServerProcess,
) -> None:
    many = infer_body(("good",) * 256)

    async def deaf() -> None:
        connection = await Connection.open(server.port)
        connection.writer.transport.pause_reading()  # type: ignore[attr-defined]
        try:
            async with asyncio.timeout(2):
                while True:
                    connection.writer.write(request_bytes("POST", PATH, many))
                    await connection.writer.drain()
        except (TimeoutError, OSError):
            pass
        connection.vanish()

    before = server.rss_bytes
    asyncio.run(deaf())
    assert server.rss_bytes - before < 64 * 2**20
    assert_unhurt(server)


def test_texts_of_100_000_words_are_answered_and_health_checks_do_not_wait(model: Path) -> None:
    words = ("good", "bad") * 50_000
    body = infer_body((" ".join(words), " ".join(("good", *words))))

    async def while_they_are_read(port: int) -> tuple[list[Answer], int]:
        connections = [await Connection.open(port) for _ in range(2)]
        long = [
            asyncio.create_task(connection.ask("POST", PATH, body)) for connection in connections
        ]
        probe, checks = await Connection.open(port), 0
        while not all(task.done() for task in long):
            assert (await probe.ask("GET", "/v2/health/live")).status == 200
            checks += 1
        return [await task for task in long], checks

    with ServerProcess([model], ["--max-text-chars=1000000"]) as server:
        server.wait_for("ready")
        answers, checks = asyncio.run(while_they_are_read(server.port))
    for answer in answers:
        np.testing.assert_array_equal(answer.logits(), [[0, 0], [-2, 2]])
    # Did each wait for as much as one of the four texts, there would be about four.
    assert checks > 12


def test_many_long_texts_take_no_more_memory_than_a_few(model: Path) -> None:
    text = "good bad " * 4000
    with ServerProcess([model], ["--log-requests"]) as server:
        server.wait_for("ready")
        grown = []
        for count in (3, 60):
            before = server.rss_bytes
            answer = ask(server.port, "POST", PATH, infer_body((text,) * count))
            np.testing.assert_array_equal(answer.logits(), [[0, 0]] * count)
            grown.append(server.rss_bytes - before)
    # What twenty times as many texts need beyond that is not much more than the bytes of them.
    assert grown[1] < 10 * 60 * len(text)


def test_a_text_beyond_the_limit_is_refused(server: ServerProcess) -> None:
    answer = ask(server.port, "POST", PATH, infer_body(("good " * 100_000,)))
    assert answer.status == 413
    assert "100,000" in reason(answer)
