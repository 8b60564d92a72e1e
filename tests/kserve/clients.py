"""Ask a server with the KServe SDK's own clients and print their answers, a JSON object.

Runs in an environment of its own (requirements/kserve.txt) and imports nothing of this project.

    python clients.py HTTP_PORT GRPC_PORT MODEL TEXTS.json
"""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig

Infer = Callable[[InferRequest], Awaitable[Any]]


def request(model: str, texts: list[str], *, binary: bool) -> InferRequest:
    tensor = InferInput("text", [len(texts)], "BYTES")
    values = np.array([text.encode() for text in texts], dtype=np.object_)
    if binary:
        tensor.set_data_from_numpy(values, binary_data=True)
    else:
        tensor.data = texts
    return InferRequest(model_name=model, infer_inputs=[tensor], request_id="7")


async def ask(infer: Infer, model: str, texts: list[str], *, binary: bool) -> dict[str, Any]:
    response = await infer(request(model, texts, binary=binary))
    label, probabilities = response.outputs
    return {
        "id": response.id,
        "model": response.model_name,
        "names": [label.name, probabilities.name],
        "labels": [
            text.decode() if isinstance(text, bytes) else text
            for text in label.as_numpy().ravel().tolist()
        ],
        "probabilities": probabilities.as_numpy().tolist(),
    }


async def over_http(port: int, model: str, texts: list[str]) -> dict[str, Any]:
    base = f"http://127.0.0.1:{port}"
    async with InferenceRESTClient(RESTConfig(protocol="v2")) as client:

        async def infer(message: InferRequest) -> Any:
            return await client.infer(base, message, model_name=message.model_name)

        try:
            await infer(request("unknown", texts, binary=False))
            refused = ""
        except httpx.HTTPStatusError as error:
            refused = str(error)
        return {
            "live": await client.is_server_live(base),
            "ready": await client.is_server_ready(base),
            "model_ready": await client.is_model_ready(base, model),
            "unknown_ready": await client.is_model_ready(base, "unknown"),
            "refused": refused,
            "json": await ask(infer, model, texts, binary=False),
            "binary": await ask(infer, model, texts, binary=True),
        }


async def over_grpc(port: int, model: str, texts: list[str]) -> dict[str, Any]:
    async with InferenceGRPCClient(f"127.0.0.1:{port}") as client:
        try:
            await client.infer(request("unknown", texts, binary=False))
            refused = ""
        except grpc.RpcError as error:
            refused = f"{error.code().name}: {error.details()}"
        return {
            "live": await client.is_server_live(),
            "ready": await client.is_server_ready(),
            "model_ready": await client.is_model_ready(model),
            "refused": refused,
            "typed": await ask(client.infer, model, texts, binary=False),
            "binary": await ask(client.infer, model, texts, binary=True),
        }


async def main() -> None:
    port, grpc_port, model, file = sys.argv[1:]
    texts = json.loads(Path(file).read_text(encoding="utf-8"))
    answers = {
        "http": await over_http(int(port), model, texts),
        "grpc": await over_grpc(int(grpc_port), model, texts),
    }
    print(json.dumps(answers))


if __name__ == "__main__":
    asyncio.run(main())
