"""The gRPC clients of benchmarks/serve.py: one process, one connection and coroutine a client.

Requests are serialised before the clock starts and answers are left as bytes, so that the client
takes as little of the shared cores as Python allows; what it takes is reported.
"""

import argparse
import asyncio
import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import grpc
from tritonclient.grpc import service_pb2

_METHOD = "/inference.GRPCInferenceService/ModelInfer"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("target")
    parser.add_argument("model")
    parser.add_argument("texts", type=Path)
    parser.add_argument("first", type=int)
    parser.add_argument("clients", type=int)
    parser.add_argument("seconds", type=int)
    arguments = parser.parse_args()
    texts = json.loads(arguments.texts.read_text(encoding="utf-8"))
    requests = [request(arguments.model, text) for text in texts]
    found = asyncio.run(
        load(arguments.target, requests, arguments.first, arguments.clients, arguments.seconds)
    )
    print(json.dumps(found))


def request(model: str, text: str) -> bytes:
    """One text as a serialised ModelInferRequest."""
    message = service_pb2.ModelInferRequest(model_name=model)
    tensor = message.inputs.add(name="text", datatype="BYTES", shape=[1])
    tensor.contents.bytes_contents.append(text.encode())
    serialised: bytes = message.SerializeToString()
    return serialised


async def load(
    target: str, requests: Sequence[bytes], first: int, clients: int, seconds: int
) -> dict[str, float]:
    """Call until the time is over."""
    times: list[float] = []
    refused = 0
    position = first
    # Channels of the same arguments would share one connection.
    options = [("grpc.use_local_subchannel_pool", 1)]
    channels = [grpc.aio.insecure_channel(target, options=options) for _ in range(clients)]
    await asyncio.gather(*(channel.channel_ready() for channel in channels))

    async def client(channel: grpc.aio.Channel) -> None:
        nonlocal position, refused
        call = channel.unary_unary(_METHOD)
        while (begin := time.perf_counter()) < end:
            position += 1
            try:
                await call(requests[position % len(requests)])
            except grpc.RpcError:
                refused += 1
            else:
                times.append(time.perf_counter() - begin)

    cpu = time.process_time()
    start = time.perf_counter()
    end = start + seconds
    await asyncio.gather(*map(client, channels))
    duration = time.perf_counter() - start
    cpu = time.process_time() - cpu
    for channel in channels:
        await channel.close()
    centiles = statistics.quantiles(times, n=100, method="inclusive")
    return {
        "requests": len(times),
        "seconds": duration,
        "refused": refused,
        "lost": 0,
        "p50_ms": 1e3 * centiles[49],
        "p99_ms": 1e3 * centiles[98],
        "client_cpu_s": cpu,
    }


if __name__ == "__main__":
    main()
