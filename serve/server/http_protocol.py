"""uvicorn's HTTP/1.1 protocol with what it lacks: limits on connections, heads and slow clients."""

import asyncio
from collections import deque
from typing import Any, cast

import msgspec
from starlette.types import Receive, Scope, Send
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from pipeline.config import ServeConfig
from serve.server.http_exchange import STARTED
from serve.server.joined_writes import JoinedWrites

__all__ = ["ConnectionState", "HttpProtocol"]

# What a request may have beside its body: request line, headers, chunk sizes, trailers.
_MAX_HEAD_BYTES = 64 * 1024


class ConnectionState(ServerState):
    """What all connections of a server share.

    Attributes:
        stopping: each connection is to be closed after its next answer.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stopping = False


class _Flow(FlowControl):
    """Reads on only when no request that was read already waits for its turn.

    uvicorn reads on after each answer, so that a client that sends without waiting for answers
    fills the memory.
    """

    def __init__(self, transport: asyncio.Transport, pipeline: deque[Any]) -> None:
        super().__init__(transport)
        self._pipeline = pipeline

    def resume_reading(self) -> None:
        if not self._pipeline:
            super().resume_reading()


class HttpProtocol(HttpToolsProtocol):
    """One connection.

    Args:
        config: uvicorn's settings.
        server_state: shared by all connections.
        app_state: goes into the scope of each request.
        _loop: the event loop.
        limits: our settings.
    """

    def __init__(
        self,
        config: Config,
        server_state: ConnectionState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        limits: ServeConfig,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._limits = limits
        self._state = server_state
        # Since when the client owes us the rest of a request, in the loop's time.
        self._owing_since: float | None = self.loop.time()
        self._unread_since: float | None = None
        self._head_bytes = 0
        self._in_head = True

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Have a connection beyond the limit told so, and closed, at its first request."""
        super().connection_made(cast(asyncio.Transport, JoinedWrites(transport, self.loop)))
        self.flow = _Flow(transport, self.pipeline)
        # uvicorn's limit_concurrency would refuse the requests of all who are connected already.
        if len(self.connections) > self._limits.max_connections:
            self.app = _refuse_connection
            if len(self.connections) > 2 * self._limits.max_connections:
                transport.abort()

    def data_received(self, data: bytes) -> None:
        """Cut off a request whose head, or what surrounds its body, has no end."""
        self._head_bytes += len(data)
        super().data_received(data)
        if self._head_bytes > _MAX_HEAD_BYTES:
            self._refuse(431, f"the headers are longer than {_MAX_HEAD_BYTES} bytes")
        elif self._is_idle() and self.timeout_keep_alive_task is None:
            # uvicorn stops the timer at each byte; the rest of a request that was answered early,
            # or line ends between requests, must not keep the connection for good.
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def on_message_begin(self) -> None:
        """Note when the request began."""
        super().on_message_begin()
        self._owing_since = self.loop.time()
        self._in_head = True
        self.scope["state"][STARTED] = self._owing_since

    def on_header(self, name: bytes, value: bytes) -> None:
        """Drop trailers, which would be headers of a request that is being answered."""
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Answer the last request of a connection of a server that stops with "close"."""
        super().on_headers_complete()
        self._in_head = False
        if self._state.stopping:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """Allow for as many bytes around the body as there are in it."""
        super().on_body(body)
        self._head_bytes -= 2 * len(body)

    def on_message_complete(self) -> None:
        """Note that the client owes us nothing."""
        super().on_message_complete()
        self._owing_since = None
        self._head_bytes = 0

    def pause_writing(self) -> None:
        """Note since when the client has not read its answers."""
        super().pause_writing()
        self._unread_since = self.loop.time()

    def resume_writing(self) -> None:
        """Note that it has."""
        super().resume_writing()
        self._unread_since = None

    def look(self) -> None:
        """Cut off a client that sends its request, or reads its answers, too slowly."""
        earliest = self.loop.time() - self._limits.request_timeout_s
        if self._unread_since is not None and self._unread_since < earliest:
            self.transport.abort()
        elif self._owing_since is not None and self._owing_since < earliest:
            if self.scope is None:  # not one byte: a connection that was opened in advance
                self.transport.close()
            # A body that the application still reads is its matter.
            elif self.cycle is None or self.cycle.response_complete:
                self._refuse(408, "the request came too slowly; send it whole at once")

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP, in the form of all our errors."""
        self._refuse(400, "this is not HTTP/1.1")

    def _is_idle(self) -> bool:
        answered = self.cycle is not None and self.cycle.response_complete
        return answered and self._owing_since is None and not self.transport.is_closing()

    def _refuse(self, status: int, message: str) -> None:
        if self.transport.is_closing():
            return
        # An answer in between would be taken for that of a request before.
        answered = self.cycle is None or self.cycle.response_complete
        reading = not answered and self.cycle.more_body and not self.cycle.response_started
        if (answered or reading) and not self.pipeline:
            self.transport.write(_response(status, message))
        self.transport.close()


def _response(status: int, message: str) -> bytes:
    body = msgspec.json.encode({"error": message})
    head = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
    return b"".join((STATUS_LINE[status], head % len(body), body))


async def _refuse_connection(scope: Scope, receive: Receive, send: Send) -> None:
    status = 503
    content: dict[str, object] = {"error": "too many connections; come back later"}
    if scope["path"] == "/v2/health/live":  # busy is not dead: nobody is to start it anew
        status, content = 200, {"live": True}
    body = msgspec.json.encode(content)
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"retry-after", b"1"),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
