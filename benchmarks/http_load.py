"""An HTTP client that counts what becomes of every request and checks every answer.

It speaks HTTP/1.1 over plain streams: client libraries send again, keep connections and hide what
is left on them, and that is what is looked at here.
"""

import asyncio
import collections
import itertools
import json
import math
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray


class Answer(NamedTuple):
    """An HTTP answer; the headers' names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """The body."""
        return json.loads(self.body)

    def logits(self) -> NDArray[np.float32]:
        """The output ``logits`` of an inference."""
        (output,) = [entry for entry in self.json()["outputs"] if entry["name"] == "logits"]
        return np.array(output["data"], dtype=np.float32).reshape(output["shape"])


class UnansweredError(Exception):
    """The connection ended before a whole answer came.

    Attributes:
        begun: whether a part of one came.
    """

    def __init__(self, *, begun: bool) -> None:
        super().__init__("the answer broke off" if begun else "no answer")
        self.begun = begun


class Connection:
    """One connection, kept between requests."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def open(cls, port: int, tls: ssl.SSLContext | None = None) -> Self:
        """Connect to a port of this machine."""
        return cls(*await asyncio.open_connection("127.0.0.1", port, ssl=tls))

    async def ask(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Send a request and read its answer.

        Raises:
            UnansweredError: the server closed the connection before the end of its answer.
        """
        try:
            self.writer.write(request_bytes(method, path, body, headers))
            await self.writer.drain()
        except OSError as error:
            raise UnansweredError(begun=False) from error
        return await self.read()

    async def read(self) -> Answer:
        """Read an answer.

        Raises:
            UnansweredError: the server closed the connection before the end of its answer.
        """
        head = b""
        try:
            head = await self.reader.readuntil(b"\r\n\r\n")
            status, *lines = head.decode("latin-1").split("\r\n")[:-2]
            pairs = (line.partition(":") for line in lines)
            headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
            body = await self.reader.readexactly(int(headers.get("content-length", 0)))
        except asyncio.IncompleteReadError as error:
            raise UnansweredError(begun=bool(head or error.partial)) from error
        except OSError as error:
            raise UnansweredError(begun=bool(head)) from error
        return Answer(int(status.split()[1]), headers, body)

    async def rest(self) -> bytes:
        """What is left on the connection up to its end."""
        try:
            return await self.reader.read()
        except OSError:
            return b""

    def unread(self) -> bool:
        """Whether something came that no request asked for."""
        return bool(self.reader._buffer)  # type: ignore[attr-defined]

    def close(self) -> None:
        """End the connection as a client does that has all its answers."""
        self.writer.close()

    def vanish(self) -> None:
        """End the connection at once, as a client does that has crashed."""
        self.writer.transport.abort()


def request_bytes(
    method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
) -> bytes:
    """A request as it goes over the wire."""
    lines = {"host": "localhost", "content-length": str(len(body)), **(headers or {})}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + body


@dataclass(frozen=True)
class Question:
    """Texts and their right answer, float32 [texts, outputs]."""

    model: str
    texts: tuple[str, ...]
    logits: ArrayLike

    @property
    def path(self) -> str:
        """Where to ask."""
        return f"/v2/models/{self.model}/infer"

    def body(self, request_id: str) -> bytes:
        """The request."""
        return infer_body(self.texts, request_id)


def infer_body(texts: tuple[str, ...], request_id: str = "") -> bytes:
    """A request for the logits of texts."""
    tensor = {"name": "text", "shape": [len(texts)], "datatype": "BYTES", "data": texts}
    return json.dumps(
        {"id": request_id, "inputs": [tensor], "outputs": [{"name": "logits"}]}
    ).encode()


@dataclass
class Tally:
    """What became of the requests.

    Attributes:
        statuses: how many answers had each HTTP status.
        times: of each answer with status 200, when it came (of ``time.monotonic``) and how many
            seconds after its request was sent.
        unanswered: when the server closed a connection on which a request was waiting.
        refused: connections that the server did not take.
        wrong: what was not as it should be: an answer to another question, a wrong logit, an
            answer that broke off, or one too many.
        largest_difference: of a logit from the right one.
    """

    statuses: collections.Counter[int] = field(default_factory=collections.Counter)
    times: list[tuple[float, float]] = field(default_factory=list)
    unanswered: list[float] = field(default_factory=list)
    refused: int = 0
    wrong: list[str] = field(default_factory=list)
    largest_difference: float = 0.0

    def seconds(self, quantile: float, *, since: float = 0.0, until: float = math.inf) -> float:
        """A quantile of the answers' times, of those that came within a span."""
        seconds = [seconds for came, seconds in self.times if since <= came < until]
        return float(np.quantile(seconds, quantile)) if seconds else math.nan

    def check(self, question: Question, request_id: str, answer: Answer, tolerance: float) -> None:
        """Compare an answer with the right one."""
        found = answer.json()
        if found["id"] != request_id or found["model_name"] != question.model:
            self.wrong.append(f"asked {request_id}, got {found['id']} of {found['model_name']}")
            return
        logits, right = answer.logits(), np.asarray(question.logits, dtype=np.float32)
        same_shape = logits.shape == right.shape
        difference = float(np.abs(logits - right).max()) if same_shape else math.inf
        self.largest_difference = max(self.largest_difference, difference)
        if difference > tolerance:
            self.wrong.append(f"{question.texts}: expected {right.tolist()}, got {logits.tolist()}")


class Client:
    """Asks one question after the other, on a connection that it keeps.

    Attributes:
        name: no other client has it; the ids of its requests start so.
    """

    def __init__(
        self,
        name: str,
        port: int,
        tally: Tally,
        *,
        tolerance: float = 0.0,
        pause_s: float = 0.02,
        tls: ssl.SSLContext | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Set up.

        Args:
            name: of the client.
            port: of the server.
            tally: where to count.
            tolerance: how far a logit may be off.
            pause_s: before the next question after an answer other than 200.
            tls: for HTTPS.
            headers: sent with each request.
        """
        self.name = name
        self._port = port
        self._tally = tally
        self._tolerance = tolerance
        self._pause_s = pause_s
        self._tls = tls
        self._headers = headers
        self._connection: Connection | None = None

    async def ask_until(self, stop: asyncio.Event, question: Callable[[int], Question]) -> None:
        """Ask until told to stop, or until the server takes no connections.

        The last question is answered before this returns.

        Args:
            stop: ends it.
            question: the question of each number, from 0.
        """
        try:
            for number in itertools.count():
                if stop.is_set() or not await self.ask(f"{self.name}-{number}", question(number)):
                    return
        finally:
            self._close()

    async def ask(self, request_id: str, question: Question) -> bool:
        """Ask one question and count what becomes of it; False if the server is not there."""
        if self._connection is None:
            try:
                self._connection = await Connection.open(self._port, self._tls)
            except OSError:
                self._tally.refused += 1
                return False
        body = question.body(request_id)
        start = time.monotonic()
        try:
            answer = await self._connection.ask("POST", question.path, body, self._headers)
        except UnansweredError as error:
            self._tally.unanswered.append(time.monotonic())
            if error.begun:
                self._tally.wrong.append(f"{request_id}: {error}")
            self._close()
            return True
        end = time.monotonic()
        self._tally.statuses[answer.status] += 1
        if answer.status == 200:
            self._tally.times.append((end, end - start))
            self._tally.check(question, request_id, answer, self._tolerance)
        else:
            await asyncio.sleep(self._pause_s)
        if answer.headers.get("connection") == "close":
            self._close()
        return True

    def _close(self) -> None:
        if self._connection is None:
            return
        if self._connection.unread():
            self._tally.wrong.append(f"{self.name}: more answers than requests")
        self._connection.close()
        self._connection = None
