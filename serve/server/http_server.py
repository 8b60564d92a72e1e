"""Sockets, TLS and graceful end of the HTTP front: uvicorn within an event loop of ours."""

import asyncio
import errno
import functools
import os
import socket
from typing import Any, cast

import uvicorn
from starlette.types import ASGIApp

from pipeline.config import ServeConfig
from pipeline.errors import ConfigurationError
from serve.server.http_protocol import ConnectionState, HttpProtocol
from serve.server.tls import tls_context

__all__ = ["HttpServer"]

# Longer than the 60 s after which load balancers commonly close idle connections themselves.
_KEEP_ALIVE_S = 75
_BACKLOG = 2048
# How long the connections are still read after the end was announced: who is in the middle of
# sending a request, or about to send the next, gets its answer, with "connection: close".
_FAREWELL_S = 0.05
# What is cancelled in the end has so long to tell its client.
_LAST_WORDS_S = 1.0
# The name localhost has an address of IPv6 also where that is switched off.
_NO_SUCH_ADDRESS = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
_TICKS_BETWEEN_LOOKS = 2  # uvicorn ticks ten times a second


class HttpServer:
    """Serves an ASGI application over HTTP/1.1.

    Args:
        app: the application.
        config: address, limits, certificate.
    """

    def __init__(self, app: ASGIApp, config: ServeConfig) -> None:
        self._app = app
        self._config = config
        self._sockets: list[socket.socket] = []
        self._server: _Server | None = None
        self._ticking: asyncio.Task[None] | None = None

    async def start(self) -> int:
        """Listen.

        Returns:
            The port.

        Raises:
            ConfigurationError: the address cannot be had, or the certificate cannot be used.
        """
        config = self._config
        context = tls_context(config)
        self._sockets = _bind(config.host, config.port)
        protocol = functools.partial(HttpProtocol, limits=config)
        self._server = _Server(
            uvicorn.Config(
                self._app,
                http=cast(type[asyncio.Protocol], protocol),
                ws="none",
                lifespan="off",
                interface="asgi3",
                log_config=None,
                log_level="error",
                access_log=False,
                proxy_headers=False,
                server_header=False,
                backlog=_BACKLOG,
                timeout_keep_alive=_KEEP_ALIVE_S,
                ssl_context_factory=None if context is None else lambda *_: context,
            )
        )
        await self._server.listen(self._sockets)
        self._ticking = asyncio.create_task(self._server.main_loop())
        port: int = self._sockets[0].getsockname()[1]
        return port

    async def stop(self, timeout_s: float) -> None:
        """Accept no more, answer what was accepted, close all connections.

        Args:
            timeout_s: how long the answers may take.
        """
        if self._server is None or self._ticking is None:
            return
        await self._server.end(self._sockets, timeout_s)
        await self._ticking


class _Server(uvicorn.Server):
    """uvicorn's server, started and ended from outside, without its signal handlers."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.server_state: ConnectionState = ConnectionState()

    async def listen(self, sockets: list[socket.socket]) -> None:
        self.config.load()
        self.lifespan = self.config.lifespan_class(self.config)
        await self.startup(sockets)

    async def on_tick(self, counter: int) -> bool:
        if counter % _TICKS_BETWEEN_LOOKS == 0:
            for connection in tuple(self.server_state.connections):
                cast(HttpProtocol, connection).look()
        return await super().on_tick(counter)

    async def end(self, sockets: list[socket.socket], timeout_s: float) -> None:
        self.server_state.stopping = True
        await asyncio.sleep(_FAREWELL_S)
        # Typed as whole seconds, and handed to asyncio.wait_for as it is.
        self.config.timeout_graceful_shutdown = cast(Any, timeout_s)
        await self.shutdown(sockets)
        self.should_exit = True  # of the ticks, which until now cut off slow clients
        if self.server_state.tasks:  # cancelled; they say so to their clients
            await asyncio.wait(self.server_state.tasks, timeout=_LAST_WORDS_S)
        for connection in tuple(self.server_state.connections):
            cast(HttpProtocol, connection).transport.abort()


def _bind(host: str, port: int) -> list[socket.socket]:
    """Sockets of all addresses of a host, at the same port."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise ConfigurationError(
            f"--host {host} is no address of this machine; take 127.0.0.1 or 0.0.0.0"
        ) from error
    sockets: list[socket.socket] = []
    failure: OSError | None = None
    for family, address in dict.fromkeys((entry[0], entry[4]) for entry in found):
        try:
            sockets.append(
                socket.create_server(
                    (address[0], port, *address[2:]), family=family, backlog=_BACKLOG
                )
            )
        except OSError as error:
            failure = error
            if error.errno not in _NO_SUCH_ADDRESS:
                break
        else:
            port = sockets[-1].getsockname()[1]
    if failure is not None and (not sockets or failure.errno not in _NO_SUCH_ADDRESS):
        for bound in sockets:
            bound.close()
        raise ConfigurationError(
            f"cannot listen at --host {host} --port {port}: {os.strerror(failure.errno or 0)}; "
            "take another, or --port 0 for a free one"
        ) from failure
    return sockets
