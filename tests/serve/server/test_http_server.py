import asyncio
import json
import select
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import ServeConfig
from pipeline.errors import ConfigurationError
from serve.server.http_server import HttpServer
from serve.server.protocol import InferRequest, InferResponse
from serve.server.service import Service
from tests.serve.server.conftest import Certificate
from tests.serve.server.http_front import Front, read_all, running, texts

INFER = "/v2/models/words/infer"
LIVE = b"GET /v2/health/live HTTP/1.1\r\nhost: localhost\r\n\r\n"


@pytest.fixture(scope="module")
def front(model: Path) -> Iterator[Front]:
    with running(model) as found:
        yield found


def start(**settings: Any) -> int:
    """Start a server of nothing and stop it again; returns the port that it had."""

    async def serve() -> int:
        server = HttpServer(nothing, ServeConfig(models=(Path("m"),), **settings))
        port = await server.start()
        await server.stop(1.0)
        return port

    return asyncio.run(serve())


async def nothing(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError


def test_a_free_port_is_taken_and_given_back() -> None:
    port = start(port=0)
    assert port > 0
    assert start(port=port) == port


def test_a_port_in_use_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"--port {port}: Address already in use"):
            start(port=port)


@pytest.mark.parametrize(
    ("host", "message"),
    [
        ("192.0.2.1", r"--host 192\.0\.2\.1 --port 0: Cannot assign requested address"),
        ("no.such.host.invalid", r"--host no\.such\.host\.invalid is no address of this machine"),
        ("\u2603" * 100, "is no address of this machine"),
    ],
)
def test_an_address_that_cannot_be_had_is_named(host: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        start(host=host, port=0)


def test_localhost_is_an_address() -> None:
    assert start(host="localhost", port=0) > 0


def test_tls_is_spoken_with_a_certificate(model: Path, certificate: Certificate) -> None:
    with running(model, tls_certificate=certificate.certificate, tls_key=certificate.key) as front:
        front.tls = ssl.create_default_context(cafile=certificate.certificate)
        assert front.ask("POST", INFER, texts("good")).status == 200
        with front.open() as plain:
            plain.settimeout(10)
            plain.sendall(LIVE)
            assert not read_all(plain).startswith(b"HTTP/1.1 200")


def test_one_connection_takes_many_requests(front: Front) -> None:
    connection = front.connect()
    for text in ("good", "bad"):
        answer = front.ask("POST", INFER, texts(text), connection=connection)
        assert answer.json()["outputs"][0]["data"] == [str(int(text == "good"))]
    connection.close()


@pytest.mark.parametrize(
    "content",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
        b"GET\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nhost: a\r\n\r\n",
        b"CONNECT a:443 HTTP/1.1\r\nhost: a\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: 99999999999999999999\r\n\r\n",
        b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nZZ\r\n\r\n",
    ],
    ids=lambda content: repr(content[:12]),
)
def test_what_is_not_http_is_refused_in_the_form_of_all_errors(
    content: bytes, front: Front
) -> None:
    with front.open() as connection:
        connection.sendall(content)
        answer = read_all(connection)
    assert answer.startswith(b"HTTP/1.1 4")
    assert list(json.loads(answer.partition(b"\r\n\r\n")[2])) == ["error"]


def test_headers_without_end_are_cut_off(front: Front) -> None:
    for endless in (b"x: " + b"a" * 200_000, b"x: y\r\n" * 30_000):
        with front.open() as connection:
            connection.sendall(b"GET / HTTP/1.1\r\n")
            try:
                connection.sendall(endless)
                assert read_all(connection).startswith(b"HTTP/1.1 431 ")
            except ConnectionError:
                pass  # cut off while it was still sending


def test_trailers_without_end_are_cut_off(front: Front) -> None:
    with front.open() as connection:
        connection.sendall(f"POST {INFER} HTTP/1.1\r\nhost: a\r\n".encode())
        connection.sendall(b"transfer-encoding: chunked\r\n\r\n1\r\n{\r\n0\r\n")
        with pytest.raises(ConnectionError):
            for _ in range(1000):
                connection.sendall(b"x: y\r\n" * 10_000)


def test_who_reads_no_answers_is_read_no_further(front: Front) -> None:
    with front.open() as connection:
        connection.settimeout(3)
        sent = 0
        with pytest.raises(TimeoutError):  # the sockets' buffers are full
            while sent < 64_000_000:
                sent += connection.send(LIVE * 10_000)


def test_who_sends_no_whole_head_in_time_is_sent_away(model: Path) -> None:
    with running(model, request_timeout_s=1.0) as front:
        with front.open() as slow, front.open() as mute:
            slow.sendall(LIVE[:-2])
            answer = read_all(slow)
            assert answer.startswith(b"HTTP/1.1 408 ")
            assert b"connection: close" in answer
            assert read_all(mute) == b""
        # A connection that rests between two requests is not slow.
        connection = front.connect()
        assert front.ask("GET", "/v2", connection=connection).status == 200
        time.sleep(1.5)
        used = connection.sock
        assert front.ask("GET", "/v2", connection=connection).status == 200
        assert connection.sock is used
        connection.close()


def test_a_connection_that_rests_is_closed_whatever_came_after_the_answer(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serve.server.http_server._KEEP_ALIVE_S", 1.0)
    early = b"POST /nowhere HTTP/1.1\r\nhost: localhost\r\ncontent-length: 4\r\n\r\n"
    with running(model) as front:
        for request, status, rest in ((LIVE, b"200", b"\r\n"), (early, b"404", b"late")):
            with front.open() as connection:
                connection.settimeout(20)
                connection.sendall(request)
                assert connection.recv(4096).startswith(b"HTTP/1.1 %s " % status)
                connection.sendall(rest)
                assert read_all(connection) == b""


def test_a_length_with_thousands_of_zeros_is_a_length(front: Front) -> None:
    body = json.dumps(texts("good")).encode()
    with front.open() as connection:
        connection.sendall(
            b"POST %s HTTP/1.1\r\nhost: localhost\r\ncontent-length: %s%d\r\n\r\n%s"
            % (INFER.encode(), b"0" * 5000, len(body), body)
        )
        assert connection.recv(4096).startswith(b"HTTP/1.1 200 ")


def test_connections_beyond_the_limit_are_refused_and_those_within_are_not(model: Path) -> None:
    with running(model, max_connections=3) as front:
        within = [front.connect() for _ in range(3)]
        for connection in within:
            assert front.ask("GET", "/v2", connection=connection).status == 200
        refused = front.ask("GET", "/v2")
        assert refused.status == 503
        assert refused.headers["retry-after"] == "1"
        assert refused.headers["connection"] == "close"
        assert refused.error() == "too many connections; come back later"
        # Whoever looks after the process must not take a full server for a dead one.
        assert front.ask("GET", "/v2/health/live").json() == {"live": True}
        for connection in within:
            assert front.ask("GET", "/v2", connection=connection).status == 200
            connection.close()
        end = time.monotonic() + 30
        while front.ask("GET", "/v2").status != 200:
            assert time.monotonic() < end


def test_large_bodies_that_do_not_end_leave_room_for_small_ones(model: Path) -> None:
    head = b"POST %s HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1024\r\n\r\n" % INFER.encode()
    with running(model, max_request_bytes=1024) as front:
        opened = [front.open() for _ in range(32)]
        for connection in opened:
            connection.sendall(head + b" " * 1000)
        refused = [connection for connection in opened if answered(connection)]
        assert 0 < len(refused) <= 16
        for connection in refused:
            answer = connection.recv(4096)
            assert answer.startswith(b"HTTP/1.1 429 ") and b"retry-after: 1" in answer
        for connection in opened:
            connection.close()
        end = time.monotonic() + 30
        while front.ask("POST", INFER, texts("good " * 100)).status != 200:
            assert time.monotonic() < end


def answered(connection: socket.socket) -> bool:
    """Whether an answer comes within a moment."""
    return bool(select.select([connection], [], [], 0.1)[0])


class Deliberate(Service):
    """A service that answers when it is told to."""

    waiting = threading.Event()
    gate: asyncio.Event

    async def infer(
        self, request: InferRequest, *, timeout_s: float | None = None
    ) -> InferResponse:
        if request.id == "wait":
            self.gate = asyncio.Event()
            self.waiting.set()
            await self.gate.wait()
        return await super().infer(request, timeout_s=timeout_s)


def test_stopping_answers_what_was_accepted_and_closes_the_rest(model: Path) -> None:
    with running(model, kind=Deliberate) as front:
        service = front.service
        assert isinstance(service, Deliberate)
        idle = front.open()
        idle.sendall(LIVE)
        assert idle.recv(4096).startswith(b"HTTP/1.1 200 ")
        body = json.dumps(texts("good", id="wait")).encode()
        busy = front.open()
        busy.sendall(
            b"POST %s HTTP/1.1\r\ncontent-length: %d\r\n\r\n" % (INFER.encode(), len(body))
        )
        busy.sendall(body)
        assert service.waiting.wait(30)
        stopping = asyncio.run_coroutine_threadsafe(front.server.stop(30.0), front.loop)
        assert read_all(idle) == b""
        with pytest.raises(ConnectionError):
            front.open()
        assert not stopping.done()
        front.loop.call_soon_threadsafe(service.gate.set)
        answer = read_all(busy)
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b"connection: close" in answer
        assert b'"id":"wait"' in answer
        stopping.result(30)
        idle.close()
        busy.close()


def test_stopping_ends_what_takes_too_long(model: Path) -> None:
    with running(model, kind=Deliberate) as front:
        service = front.service
        assert isinstance(service, Deliberate)
        service.waiting.clear()
        body = json.dumps(texts("good", id="wait")).encode()
        with front.open() as busy:
            busy.sendall(b"POST %s HTTP/1.1\r\n" % INFER.encode())
            busy.sendall(b"content-length: %d\r\n\r\n" % len(body) + body)
            assert service.waiting.wait(30)
            front.run(front.server.stop(0.1))
            answer = read_all(busy)
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b'{"error":"the server is shutting down"}' in answer


def test_requests_that_follow_each_other_get_their_last_answer_when_the_server_stops(
    model: Path,
) -> None:
    with running(model) as front:
        outcomes = []
        connected = threading.Barrier(9, timeout=60)

        def ask_on() -> None:
            connection = front.connect()
            front.ask("GET", "/v2", connection=connection)
            connected.wait()
            while True:
                try:
                    answer = front.ask("POST", INFER, texts("good"), connection=connection)
                except ConnectionError as error:
                    outcomes.append(type(error).__name__)
                    return
                if answer.headers.get("connection") == "close":
                    outcomes.append(f"{answer.status}, closed")
                    connection.close()
                    return

        clients = [threading.Thread(target=ask_on) for _ in range(8)]
        for client in clients:
            client.start()
        connected.wait()
        time.sleep(0.3)
        front.run(front.server.stop(10.0))
        for client in clients:
            client.join()
    assert outcomes == ["200, closed"] * len(clients)
