"""The server's life: listen, load, answer, and finish what was accepted when told to stop."""

import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import Callable

from pipeline.config import ServeConfig
from serve.server.auth import read_token
from serve.server.batching import Batcher
from serve.server.grpc_server import GrpcServer
from serve.server.http_app import create_http_app
from serve.server.http_server import HttpServer
from serve.server.logs import configure_logging, log
from serve.server.metrics import Metrics
from serve.server.repository import Repository
from serve.server.service import Service

__all__ = ["run_server", "serve_until"]

# Beside connections: libraries, models while they load.
_OTHER_FILES = 256


def run_server(config: ServeConfig, *, as_json: bool) -> None:
    """Serve until SIGTERM or SIGINT, then finish the accepted requests and return.

    A second signal ends at once. Where it listens is said on stdout.

    Args:
        config: the settings.
        as_json: say it as one line of JSON, once the models are loaded, with their names.

    Raises:
        ConfigurationError: a directory, address, port, token or certificate cannot be used.
        ArtifactError: a model that the command line names cannot be loaded.
    """
    configure_logging()
    _allow_connections(config.max_connections)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_serve_until_signal(config, as_json=as_json))


async def serve_until(
    config: ServeConfig,
    stop: asyncio.Event,
    *,
    listening: Callable[[int, int | None], None] | None = None,
    ready: Callable[[list[str]], None] | None = None,
) -> None:
    """Serve until an event is set, then finish the accepted requests and return.

    Args:
        config: the settings.
        stop: ends the server.
        listening: called with the HTTP and the gRPC port once both are open; models load then.
        ready: called with the names of the models that answer, once they are loaded.

    Raises:
        ConfigurationError: a directory, address, port, token or certificate cannot be used.
        ArtifactError: a model that the command line names cannot be loaded.
    """
    token = None if config.token_file is None else read_token(config.token_file)
    metrics = Metrics()
    repository = Repository(config, metrics)
    batcher = Batcher(
        max_batch_size=config.max_batch_size,
        max_delay_s=config.max_batch_delay_ms / 1000.0,
        max_queue=config.max_queue,
        concurrency=config.concurrency,
        metrics=metrics,
    )
    service = Service(config, repository, batcher, metrics)
    fronts: list[HttpServer | GrpcServer] = []
    try:
        http = HttpServer(create_http_app(service, token), config)
        port = await http.start()
        fronts.append(http)
        grpc_port = None
        if config.grpc:
            grpc = GrpcServer(service, token)
            grpc_port = await grpc.start()
            fronts.append(grpc)
        log(logging.INFO, "listening", host=config.host, port=port, grpc_port=grpc_port)
        if listening is not None:
            listening(port, grpc_port)
        await _serve(repository, config, stop, ready)
    finally:
        service.stop()
        if fronts:
            log(logging.INFO, "stopping")
        await asyncio.gather(*(front.stop(config.shutdown_timeout_s) for front in fronts))
        batcher.close()
        repository.close()
        if fronts:
            log(logging.INFO, "stopped")


async def _serve(
    repository: Repository,
    config: ServeConfig,
    stop: asyncio.Event,
    ready: Callable[[list[str]], None] | None,
) -> None:
    log(logging.INFO, "loading", models=[entry.name for entry in repository.index()])
    stopped = asyncio.create_task(stop.wait())
    loading = asyncio.create_task(repository.load_all())
    tasks = [stopped, loading]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if not loading.done():
            return
        loading.result()
        models = [entry.name for entry in repository.index() if entry.state == "READY"]
        if repository.ready():
            log(logging.INFO, "ready", models=models)
            if ready is not None:
                ready(models)
        else:
            log(logging.ERROR, "not ready: no model could be loaded")
        if config.watch_s > 0:
            tasks.append(asyncio.create_task(repository.watch()))
        await stopped
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _serve_until_signal(config: ServeConfig, *, as_json: bool) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()

    def on_signal(number: signal.Signals) -> None:
        if stop.is_set():
            # An orderly end would wait for the batch that runs, or abort in the middle of it.
            os._exit(128 + number)
        log(logging.INFO, "signal", name=number.name)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        try:
            loop.add_signal_handler(number, on_signal, number)
        except NotImplementedError:  # Windows: Ctrl-C raises KeyboardInterrupt
            break
    addresses: dict[str, str | None] = {}

    def listening(port: int, grpc_port: int | None) -> None:
        addresses.update(_addresses(config, port, grpc_port))
        if not as_json:
            grpc = f", gRPC at {addresses['grpc']}" if grpc_port is not None else ""
            print(f"serving at {addresses['http']}{grpc}; Ctrl-C stops", flush=True)

    def ready(models: list[str]) -> None:
        if as_json:
            print(json.dumps({**addresses, "models": models}), flush=True)

    await serve_until(config, stop, listening=listening, ready=ready)


def _addresses(config: ServeConfig, port: int, grpc_port: int | None) -> dict[str, str | None]:
    host = f"[{config.host}]" if ":" in config.host else config.host
    scheme = "http" if config.tls_certificate is None else "https"
    return {
        "http": f"{scheme}://{host}:{port}/",
        "grpc": None if grpc_port is None else f"{host}:{grpc_port}",
    }


def _allow_connections(count: int) -> None:
    """Have the system allow as many open files as there may be connections."""
    if sys.platform == "win32":  # it has no such limit
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Those of gRPC, and of HTTP twice, to tell those beyond the limit why they are refused.
    needed = 3 * count + _OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < needed:
        allowed = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
        if allowed < needed:
            log(logging.WARNING, "few open files allowed", allowed=allowed, needed=needed)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    if sys.platform == "win32":  # uvloop has no build for it
        return asyncio.new_event_loop
    import uvloop

    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory
