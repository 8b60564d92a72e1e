"""An HTTP front in this process: real parts, a real socket, a loop in a thread of its own."""

import asyncio
import contextlib
import http.client
import json
import socket
import ssl
import threading
from collections.abc import Coroutine, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import uvloop

from pipeline.config import ServeConfig
from serve.server.batching import Batcher
from serve.server.http_app import create_http_app
from serve.server.http_server import HttpServer
from serve.server.metrics import Metrics
from serve.server.repository import Repository
from serve.server.service import Service

_PATIENCE_S = 60.0

_Result = TypeVar("_Result")


class Answer(NamedTuple):
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    def error(self) -> str:
        content = self.json()
        assert list(content) == ["error"]
        assert self.headers["content-type"] == "application/json"
        return str(content["error"])


class Front:
    """A running HTTP front."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, service: Service, server: HttpServer, port: int
    ) -> None:
        self.loop = loop
        self.service = service
        self.server = server
        self.port = port
        self.tls: ssl.SSLContext | None = None

    def run(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        """Run something in the front's loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(_PATIENCE_S)

    def connect(self) -> http.client.HTTPConnection:
        if self.tls is not None:
            return http.client.HTTPSConnection(
                "127.0.0.1", self.port, timeout=_PATIENCE_S, context=self.tls
            )
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=_PATIENCE_S)

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        *,
        connection: http.client.HTTPConnection | None = None,
    ) -> Answer:
        """Send a request, on a connection of its own unless one is given; a body may be JSON."""
        content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        used = self.connect() if connection is None else connection
        try:
            used.request(method, path, content, dict(headers or {}))
            response = used.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, found, response.read())
        finally:
            if connection is None:
                used.close()

    def open(self) -> socket.socket:
        """A bare connection."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=_PATIENCE_S)


@contextlib.contextmanager
def running(
    *models: Path, kind: type[Service] = Service, token: str | None = None, **settings: Any
) -> Iterator[Front]:
    """Serve models over HTTP, at a free port, until the end of the block.

    Args:
        *models: model directories.
        kind: the service's class.
        token: that requests must bring.
        **settings: of ServeConfig.
    """
    config = ServeConfig(models=models, **{"port": 0, "threads": 1, **settings})
    metrics = Metrics()
    repository = Repository(config, metrics)
    batcher = Batcher(
        max_batch_size=config.max_batch_size,
        max_delay_s=0.0,
        max_queue=config.max_queue,
        concurrency=1,
        metrics=metrics,
    )
    service = kind(config, repository, batcher, metrics)
    server = HttpServer(create_http_app(service, token), config)
    loop = uvloop.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    front = Front(loop, service, server, 0)
    try:
        front.run(repository.load_all())
        front.port = front.run(server.start())
        yield front
        front.run(server.stop(5.0))
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
        batcher.close()
        repository.close()


def read_all(connection: socket.socket) -> bytes:
    """What the server sends until it closes the connection."""
    parts = []
    while part := connection.recv(65536):
        parts.append(part)
    return b"".join(parts)


def texts(*values: str, **others: Any) -> dict[str, Any]:
    """An inference request."""
    text = {"name": "text", "datatype": "BYTES", "shape": [len(values)], "data": list(values)}
    return {"inputs": [text], **others}
