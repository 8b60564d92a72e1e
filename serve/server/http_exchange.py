"""One HTTP request and its answer: limits on reading it, and an end to waiting in vain."""

import asyncio
import time
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, TypeVar

from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from serve.server.errors import Overloaded, RequestError, TooLarge
from serve.server.request_ids import check_request_id, new_request_id

__all__ = ["STARTED", "Answer", "BodyBudget", "ClientDisconnectedError", "Exchange", "Watch"]

# Key in the scope's state: when the request's first byte came, in the loop's time.
STARTED = "started"

_WATCH_PERIOD_S = 0.05
# How long a body is read and thrown away after the answer; else the client, which still sends,
# would see a broken connection instead of the answer.
_LINGER_S = 2.0
_GONE = "the client closed the connection"

_Result = TypeVar("_Result")


class ClientDisconnectedError(RequestError):
    """The client closed the connection before it had its answer; the status is nginx's."""

    http_status = 499
    grpc_status = "CANCELLED"


class Answer(NamedTuple):
    """What is sent back."""

    status: int
    body: bytes
    content_type: bytes = b"application/json"
    headers: Sequence[tuple[bytes, bytes]] = ()


class BodyBudget:
    """How many bytes of bodies all requests together may be reading.

    Args:
        max_bytes: that may be held at once.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._held = 0

    def take(self, size: int) -> None:
        """Hold so many bytes more.

        Raises:
            Overloaded: there would be too many.
        """
        if self._held + size > self._max_bytes:
            raise Overloaded(
                "too many large requests are being read; come back later", retry_after_s=1
            )
        self._held += size

    def give_back(self, size: int) -> None:
        """Hold so many bytes less."""
        self._held -= size


class Watch:
    """Looks at all requests in progress now and then: one timer for all costs none of them one."""

    def __init__(self) -> None:
        self._exchanges: set[Exchange] = set()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, exchange: "Exchange") -> None:
        """Look at a request until it is discarded."""
        self._exchanges.add(exchange)
        if self._timer is None:
            self._start()

    def discard(self, exchange: "Exchange") -> None:
        """Look at it no more."""
        self._exchanges.discard(exchange)

    def _start(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(_WATCH_PERIOD_S, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._exchanges:
            for exchange in tuple(self._exchanges):
                exchange.look()
            self._start()


class Exchange:
    """A request and its answer.

    Attributes:
        headers: of the request, by lower-case name; the last one of a name given twice.
        request_id: to find the request in the log; the client's, or made here.
        begun_s: when it began to be answered, of ``time.perf_counter``.
        deadline: until when it must be answered, in the loop's time.
        answer: set by the endpoint.
    """

    def __init__(self, scope: Scope, receive: Receive, watch: Watch, timeout_s: float) -> None:
        self.scope = scope
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.request_id = new_request_id().encode()
        self.begun_s = time.perf_counter()
        loop = asyncio.get_running_loop()
        started: float | None = scope["state"].get(STARTED)
        self.deadline = (loop.time() if started is None else started) + timeout_s
        self.answer: Answer | None = None
        self._loop = loop
        self._receive = receive
        self._watch = watch
        self._task = asyncio.current_task()
        self._body_complete = False
        self._interrupted = False
        self._looks = 0
        self._disconnect: asyncio.Task[None] | None = None

    def take_request_id(self) -> None:
        """Take the client's own id of the request, if it gave one.

        Raises:
            InvalidRequest: it is too long, or would not do in a log.
        """
        given = self.headers.get(b"x-request-id")
        if given is None:
            return
        check_request_id(given.decode("latin-1"))
        self.request_id = given

    def remaining_s(self) -> float:
        """Seconds that are left for the answer, in hundredths, as a message may name them."""
        return max(0, int((self.deadline - self._loop.time()) * 100 + 0.5)) / 100

    async def read_body(self, max_bytes: int, budget: BodyBudget) -> bytes:
        """Read the request's body.

        Args:
            max_bytes: that it may have.
            budget: of all requests; what is read here counts until it is complete.

        Raises:
            Overloaded: the budget is used up.
            TooLarge: it has more; it is not read to its end.
            HTTPException: 408, it comes too slowly; 415, it is compressed.
            ClientDisconnectedError: the client closed the connection.
        """
        encoding = self.headers.get(b"content-encoding", b"identity").lower()
        if encoding != b"identity":
            raise HTTPException(415, "this server reads no compressed bodies; send it as it is")
        # The parser has refused what is no number; int() refuses thousands of zeros before one.
        if int(self.headers.get(b"content-length", b"0").lstrip(b"0") or b"0") > max_bytes:
            raise _too_large(max_bytes)
        self._watch.add(self)
        try:
            return await self._read_messages(max_bytes, budget)
        except asyncio.CancelledError:
            if not self._interrupted:
                raise
            self._resume()
            raise HTTPException(408, "the request came too slowly; send it whole at once") from None
        finally:
            self._watch.discard(self)

    async def while_connected(self, work: Awaitable[_Result]) -> _Result:
        """Wait for work, and cancel it when the client closes the connection.

        Raises:
            ClientDisconnectedError: it did.
        """
        self._looks = 0
        self._watch.add(self)
        try:
            return await work
        except asyncio.CancelledError:
            if not self._interrupted:
                raise
            self._resume()
            raise ClientDisconnectedError(_GONE) from None
        finally:
            self._watch.discard(self)
            if self._disconnect is not None:
                self._disconnect.cancel()

    def look(self) -> None:
        """Interrupt a body that comes too slowly; watch the connection of one that takes long."""
        if not self._body_complete:
            if self._loop.time() >= self.deadline:
                self._interrupt()
            return
        self._looks += 1
        if self._looks == 2:  # the first look may be right after the start
            self._disconnect = self._loop.create_task(self._interrupt_at_disconnect())

    async def send_answer(self, send: Send, answer: Answer) -> None:
        """Send the answer."""
        close = answer.status in (408, 413)
        headers = [
            (b"content-type", answer.content_type),
            (b"content-length", b"%d" % len(answer.body)),
            (b"x-request-id", self.request_id),
            *answer.headers,
        ]
        if close:
            headers.append((b"connection", b"close"))
        start: dict[str, Any] = {
            "type": "http.response.start",
            "status": answer.status,
            "headers": headers,
        }
        await send(start)
        await send({"type": "http.response.body", "body": answer.body, "more_body": close})
        if close:
            await self._linger()
            await send({"type": "http.response.body"})

    async def _read_messages(self, max_bytes: int, budget: BodyBudget) -> bytes:
        parts = []
        size = 0
        try:
            while not self._body_complete:
                message = await self._receive()
                if message["type"] == "http.disconnect":
                    raise ClientDisconnectedError(_GONE)
                part: bytes = message.get("body", b"")
                self._body_complete = not message.get("more_body", False)
                budget.take(len(part))
                parts.append(part)
                size += len(part)
                if size > max_bytes:
                    raise _too_large(max_bytes)
        finally:
            budget.give_back(sum(map(len, parts)))
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def _interrupt_at_disconnect(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._interrupt()

    def _interrupt(self) -> None:
        assert self._task is not None
        self._interrupted = True
        self._task.cancel()

    def _resume(self) -> None:
        assert self._task is not None
        self._interrupted = False
        self._task.uncancel()

    async def _linger(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(_LINGER_S):
                while not self._body_complete:
                    self._body_complete = not (await self._receive()).get("more_body", False)


def _too_large(max_bytes: int) -> TooLarge:
    return TooLarge(
        f"the body is larger than {max_bytes} bytes; send less, or raise --max-request-bytes"
    )
