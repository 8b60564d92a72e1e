"""A gRPC front in this process: real parts, a real socket."""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import grpc.aio
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.grpc.aio
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2 as messages
from tritonclient.grpc import service_pb2_grpc

from pipeline.config import ServeConfig
from serve.server.batching import Batcher
from serve.server.grpc_server import GrpcServer
from serve.server.metrics import Metrics
from serve.server.repository import Repository
from serve.server.service import Service


class Running(NamedTuple):
    """A server that listens."""

    port: int
    service: Service
    server: GrpcServer

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"


@asynccontextmanager
async def serving(
    *models: Path, token: str | None = None, load: bool = True, **settings: Any
) -> AsyncIterator[Running]:
    config = ServeConfig(models=models, threads=1, **{"grpc_port": 0, **settings})
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
    server = GrpcServer(service, token)
    try:
        port = await server.start()
        if load:
            await repository.load_all()
        yield Running(port, service, server)
    finally:
        await server.stop(10.0)
        batcher.close()
        repository.close()


def hold(running: Running, name: str = "words") -> tuple[threading.Event, threading.Event]:
    """Let the next batches of a model wait: (set once one runs, set it to let them go on)."""
    model = running.service.repository.get(name, "")
    running_now, go_on = threading.Event(), threading.Event()
    run = model.run

    def held(rows: Any) -> NDArray[np.float32]:
        running_now.set()
        assert go_on.wait(60)
        return run(rows)

    model.run = held  # type: ignore[method-assign]
    return running_now, go_on


def text_input(client: Any, texts: Sequence[str]) -> Any:
    tensor = client.InferInput("text", [len(texts)], "BYTES")
    tensor.set_data_from_numpy(np.array([text.encode() for text in texts], dtype=np.object_))
    return tensor


def text_message(*texts: str, model: str = "words") -> Any:
    message = messages.ModelInferRequest(model_name=model)
    message.inputs.add(name="text", datatype="BYTES", shape=[len(texts)])
    message.inputs[0].contents.bytes_contents.extend(text.encode() for text in texts)
    message.outputs.add(name="logits")
    return message


def logits(response: Any) -> list[list[float]]:
    values = tritonclient.grpc.InferResult(response).as_numpy("logits")
    assert values is not None
    found: list[list[float]] = values.tolist()
    return found


def with_stub(scenario: Callable[[Running, Any], Awaitable[None]], *models: Path, **s: Any) -> None:
    """Run a scenario with a server and a bare stub of the protocol's service."""

    async def run() -> None:
        async with (
            serving(*models, **s) as running,
            grpc.aio.insecure_channel(running.address) as channel,
        ):
            await scenario(running, service_pb2_grpc.GRPCInferenceServiceStub(channel))

    asyncio.run(run())


async def refusal(call: Awaitable[Any]) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


def status_and_details(error: grpc.aio.AioRpcError) -> tuple[str, str]:
    return error.code().name, error.details() or ""


async def eventually(running: Running, sample: str) -> None:
    """Wait until the metrics hold a sample."""
    async with asyncio.timeout(60):
        while sample not in running.service.metrics.render(None)[0].decode():
            await asyncio.sleep(0.01)
