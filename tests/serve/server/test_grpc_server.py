import asyncio
import logging
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tritonclient.grpc import service_pb2 as messages
from tritonclient.grpc import service_pb2_grpc
from tritonclient.utils import InferenceServerException

from pipeline import __version__
from tests.serve.server.grpc_front import (
    Running,
    hold,
    logits,
    refusal,
    serving,
    status_and_details,
    text_input,
    text_message,
    with_stub,
)

TOKEN = "a-token-that-is-long-enough"
TEXTS = ["good film", "a bad and dull and awful plot was good", "the actor"]
LOGITS = [[-1, 1], [2, -2], [0, 0]]


def test_tritonclient_finds_all_it_asks_for(model: Path) -> None:
    def use(port: int) -> None:
        with tritonclient.grpc.InferenceServerClient(f"127.0.0.1:{port}") as client:
            assert client.is_server_live()
            assert client.is_server_ready()
            metadata = client.get_server_metadata()
            assert (metadata.name, metadata.version) == ("smp-pipeline", __version__)
            assert "model_repository" in metadata.extensions
            assert client.is_model_ready("words")
            assert client.is_model_ready("words", "1")
            described = client.get_model_metadata("words", as_json=True)
            assert described["name"] == "words"
            assert described["inputs"][0] == {"name": "text", "datatype": "BYTES", "shape": ["-1"]}
            result = client.infer("words", [text_input(tritonclient.grpc, TEXTS)], request_id="7")
            assert [label.decode() for label in result.as_numpy("label")] == ["1", "0", "0"]
            probabilities = result.as_numpy("probabilities")
            np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, rtol=1e-6)
            assert (probabilities.argmax(axis=1) == [1, 0, 0]).all()
            assert (result.get_response().id, result.get_response().model_version) == ("7", "1")
            (entry,) = client.get_model_repository_index().models
            assert (entry.name, entry.version, entry.state) == ("words", "1", "READY")
            client.unload_model("words")
            with pytest.raises(InferenceServerException):
                client.infer("words", [text_input(tritonclient.grpc, TEXTS)])
            client.load_model("words")
            assert client.is_model_ready("words")

    async def scenario() -> None:
        async with serving(model) as running:
            await asyncio.to_thread(use, running.port)

    asyncio.run(scenario())


def test_asynchronous_clients_get_each_its_own_answer(model: Path) -> None:
    async def scenario() -> None:
        async with (
            serving(model) as running,
            tritonclient.grpc.aio.InferenceServerClient(running.address) as client,
        ):

            async def ask(count: int) -> float:
                texts = text_input(tritonclient.grpc, [" ".join(["good"] * count) or "the"])
                outputs = [tritonclient.grpc.InferRequestedOutput("logits")]
                result = await client.infer("words", [texts], outputs=outputs)
                return float(result.as_numpy("logits")[0, 1])

            counts = [number % 25 for number in range(200)]
            assert await asyncio.gather(*map(ask, counts)) == counts

    asyncio.run(scenario())


def test_tokens_give_the_logits_of_their_texts(model: Path) -> None:
    async def scenario(running: Running, stub: Any) -> None:
        session = running.service.repository.get("words", "").session
        message = messages.ModelInferRequest(model_name="words")
        for name, values in session.collate(session.encode(TEXTS)).items():
            message.inputs.add(name=name, datatype="INT64", shape=values.shape)
            message.raw_input_contents.append(values.tobytes())
        message.outputs.add(name="logits")
        assert logits(await stub.ModelInfer(message)) == LOGITS
        assert logits(await stub.ModelInfer(text_message(*TEXTS))) == LOGITS

    with_stub(scenario, model)


def test_what_a_client_does_wrong_it_is_told(model: Path) -> None:
    async def scenario(_: Running, stub: Any) -> None:
        unknown_input = text_message("good")
        unknown_input.inputs[0].name = "words"
        too_few = text_message("good")
        too_few.inputs[0].shape[0] = 2
        unknown_version = text_message("good")
        unknown_version.model_version = "2"
        for message, status, details in (
            (text_message("good", model="reviews"), "NOT_FOUND", "reviews"),
            (unknown_version, "NOT_FOUND", "2"),
            (unknown_input, "INVALID_ARGUMENT", "the input 'words' cannot be among these"),
            (too_few, "INVALID_ARGUMENT", "1 elements in bytes_contents"),
            (text_message("good" * 30), "INVALID_ARGUMENT", "a text of 120 characters"),
            (text_message("good", "bad", "dull"), "INVALID_ARGUMENT", "3 texts; this server takes"),
            (text_message(), "INVALID_ARGUMENT", "at least one text"),
        ):
            found = status_and_details(await refusal(stub.ModelInfer(message)))
            assert found[0] == status
            assert details in found[1]
        for call in (
            stub.ModelMetadata(messages.ModelMetadataRequest(name="reviews")),
            stub.RepositoryModelLoad(messages.RepositoryModelLoadRequest(model_name="reviews")),
            stub.RepositoryModelUnload(messages.RepositoryModelUnloadRequest(model_name="reviews")),
        ):
            assert (await refusal(call)).code().name == "NOT_FOUND"
        assert not (await stub.ModelReady(messages.ModelReadyRequest(name="reviews"))).ready
        load = messages.RepositoryModelLoadRequest(model_name="words")
        load.parameters["config"].string_param = "{}"
        found = status_and_details(await refusal(stub.RepositoryModelLoad(load)))
        assert found[0] == "INVALID_ARGUMENT"
        assert "takes no parameter 'config'" in found[1]

    with_stub(scenario, model, max_text_chars=100, max_request_texts=2)


def test_a_message_of_any_length_names_what_was_wrong(model: Path) -> None:
    """It goes into headers, for which there is little room."""

    async def scenario(_: Running, stub: Any) -> None:
        for name in ("x" * 100_000, "\N{SNOWMAN}" * 100_000):
            error = await refusal(stub.ModelInfer(text_message("good", model=name)))
            assert error.code().name == "NOT_FOUND"
            assert name[:8] in (error.details() or "")

    with_stub(scenario, model)


def test_bytes_that_are_no_message_are_an_invalid_argument(model: Path) -> None:
    async def scenario() -> None:
        async with (
            serving(model) as running,
            grpc.aio.insecure_channel(running.address) as channel,
        ):
            call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
            not_utf8 = text_message("good", model="abcd").SerializeToString()
            for data in (b"\xff" * 9, b"\x0a\x7f", not_utf8.replace(b"abcd", b"a\xff\xfed")):
                status, details = status_and_details(await refusal(call(data)))
                assert status == "INVALID_ARGUMENT"
                assert "is no protocol buffer of its method" in details
            none = channel.stream_unary("/inference.GRPCInferenceService/ModelInfer")()
            await none.done_writing()
            assert status_and_details(await refusal(none))[0] == "INVALID_ARGUMENT"

    asyncio.run(scenario())


def test_a_message_beyond_the_limit_is_refused(model: Path) -> None:
    async def scenario(_: Running, stub: Any) -> None:
        assert (await stub.ModelInfer(text_message("good " * 300))).model_name == "words"
        error = await refusal(stub.ModelInfer(text_message("good " * 500)))
        assert error.code().name == "RESOURCE_EXHAUSTED"

    with_stub(scenario, model, max_request_bytes=2048)


def test_what_the_server_does_not_have_it_says(model: Path) -> None:
    async def scenario(_: Running, stub: Any) -> None:
        for call in (
            stub.ModelConfig(messages.ModelConfigRequest(name="words")),
            stub.ModelStatistics(messages.ModelStatisticsRequest()),
            stub.SystemSharedMemoryStatus(messages.SystemSharedMemoryStatusRequest()),
            stub.TraceSetting(messages.TraceSettingRequest()),
            stub.LogSettings(messages.LogSettingsRequest()),
            stub.ModelStreamInfer(iter([text_message("good")])).read(),
        ):
            status, details = status_and_details(await refusal(call))
            assert status == "UNIMPLEMENTED"
            assert "this server does not have" in details
            assert "ModelInfer" in details

    with_stub(scenario, model)


def test_a_full_queue_says_when_to_come_back(model: Path) -> None:
    async def scenario(running: Running, stub: Any) -> None:
        running_now, go_on = hold(running)
        try:
            first = asyncio.ensure_future(stub.ModelInfer(text_message("good")))
            assert await asyncio.to_thread(running_now.wait, 60)
            calls = [asyncio.ensure_future(stub.ModelInfer(text_message("bad"))) for _ in range(9)]
            while sum(call.done() for call in calls) < 5:
                await asyncio.sleep(0.01)
        finally:
            go_on.set()
        assert logits(await first) == [[-1, 1]]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        errors = [answer for answer in answers if isinstance(answer, grpc.aio.AioRpcError)]
        assert len(errors) >= 5
        for error in errors:
            assert error.code().name == "RESOURCE_EXHAUSTED"
            assert int(dict([*error.trailing_metadata()])["retry-after"]) >= 1
        rest = [answer for answer in answers if not isinstance(answer, grpc.aio.AioRpcError)]
        assert rest
        assert all(logits(answer) == [[1, -1]] for answer in rest)

    with_stub(scenario, model, max_queue=4, max_batch_size=1)


def test_more_calls_at_once_than_allowed_are_refused(model: Path) -> None:
    async def scenario(running: Running, stub: Any) -> None:
        running_now, go_on = hold(running)
        try:
            first = asyncio.ensure_future(stub.ModelInfer(text_message("good")))
            assert await asyncio.to_thread(running_now.wait, 60)
            error = await refusal(stub.ModelInfer(text_message("good")))
            assert error.code().name == "RESOURCE_EXHAUSTED"
        finally:
            go_on.set()
        assert logits(await first) == [[-1, 1]]

    with_stub(scenario, model, max_connections=1)


def test_connections_beyond_the_limit_are_closed(model: Path) -> None:
    async def scenario() -> None:
        async with serving(model, load=False, max_connections=2) as running:
            opened = [await asyncio.open_connection("127.0.0.1", running.port) for _ in range(3)]
            async with asyncio.timeout(30):
                heard = [await reader.read(1) for reader, _ in opened]
            for _, writer in opened:
                writer.close()
        # HTTP/2 begins with the server's settings.
        assert sorted(heard) == [b"", b"\0", b"\0"]

    asyncio.run(scenario())


def test_only_the_token_opens_the_server_and_health_needs_none(model: Path) -> None:
    async def scenario() -> None:
        async with (
            serving(model, token=TOKEN) as running,
            grpc.aio.insecure_channel(running.address) as channel,
        ):
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            for metadata in (
                None,
                (("authorization", "Bearer wrong"),),
                (("authorization", f"Basic {TOKEN}"),),
            ):
                for call in (
                    stub.ModelInfer(text_message("good"), metadata=metadata),
                    stub.ServerMetadata(messages.ServerMetadataRequest(), metadata=metadata),
                    stub.RepositoryModelUnload(
                        messages.RepositoryModelUnloadRequest(model_name="words"),
                        metadata=metadata,
                    ),
                ):
                    status, details = status_and_details(await refusal(call))
                    assert status == "UNAUTHENTICATED"
                    assert "token" in details
            right = (("authorization", f"Bearer {TOKEN}"),)
            answer = await stub.ModelInfer(text_message("good"), metadata=right)
            assert logits(answer) == [[-1, 1]]
            assert (await stub.ServerReady(messages.ServerReadyRequest())).ready
            health = health_pb2_grpc.HealthStub(channel)
            checked = await health.Check(health_pb2.HealthCheckRequest())
            assert checked.status == checked.SERVING

    asyncio.run(scenario())


def test_health_follows_readiness(model: Path) -> None:
    async def scenario() -> None:
        async with (
            serving(model, load=False) as running,
            grpc.aio.insecure_channel(running.address) as channel,
        ):
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            health = health_pb2_grpc.HealthStub(channel)

            async def state() -> tuple[bool, ...]:
                found = [(await stub.ServerReady(messages.ServerReadyRequest())).ready]
                for name in ("", "inference.GRPCInferenceService", "words"):
                    answer = await health.Check(health_pb2.HealthCheckRequest(service=name))
                    found.append(answer.status == answer.SERVING)
                return tuple(found)

            assert await state() == (False,) * 4
            assert (await stub.ServerLive(messages.ServerLiveRequest())).live
            await running.service.repository.load_all()
            assert await state() == (True,) * 4
            unknown = health.Check(health_pb2.HealthCheckRequest(service="reviews"))
            assert (await refusal(unknown)).code().name == "NOT_FOUND"
            running.service.stop()
            assert await state() == (False,) * 4

    asyncio.run(scenario())


def test_a_request_is_found_in_the_log_by_its_id(
    model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(_: Running, stub: Any) -> None:
        call = stub.ModelInfer(text_message("good"), metadata=(("x-request-id", "abc-1"),))
        await call
        assert dict([*await call.trailing_metadata()])["x-request-id"] == "abc-1"
        ids = set()
        for _ in range(2):
            call = stub.ModelInfer(text_message("good"))
            await call
            ids.add(dict([*await call.trailing_metadata()])["x-request-id"])
        assert len(ids) == 2
        unknown = stub.ModelInfer(
            text_message("good", model="x"), metadata=(("x-request-id", "abc-2"),)
        )
        error = await refusal(unknown)
        assert dict([*error.trailing_metadata()])["x-request-id"] == "abc-2"
        long = stub.ModelInfer(text_message("good"), metadata=(("x-request-id", "a" * 129),))
        status, details = status_and_details(await refusal(long))
        assert status == "INVALID_ARGUMENT"
        assert "X-Request-ID must be 1 to 128" in details

    with caplog.at_level(logging.INFO, "smp_pipeline.serve"):
        with_stub(scenario, model)
    lines: list[dict[str, Any]] = [
        record.__dict__["fields"] for record in caplog.records if record.getMessage() == "request"
    ]
    assert len(lines) == 5
    by_id = {line["request_id"]: line for line in lines}
    assert (by_id["abc-1"]["status"], by_id["abc-1"]["model"]) == ("OK", "words")
    assert (by_id["abc-1"]["protocol"], by_id["abc-1"]["method"]) == ("grpc", "ModelInfer")
    assert by_id["abc-2"]["status"] == "NOT_FOUND"
    assert by_id["abc-2"]["error"].startswith("no model 'x'")
    assert "error" not in by_id["abc-1"]


def test_requests_are_not_logged_where_that_is_off(
    model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(running: Running, stub: Any) -> None:
        await stub.ModelInfer(text_message("good"))
        await refusal(stub.ModelInfer(text_message("good", model="x")))
        await running.service.unload("words")
        await refusal(stub.ModelInfer(text_message("good")))

    with caplog.at_level(logging.INFO, "smp_pipeline.serve"):
        with_stub(scenario, model, log_requests=False)
    # As over HTTP, what the server is to blame for is logged all the same.
    (line,) = [
        record.__dict__["fields"] for record in caplog.records if record.getMessage() == "request"
    ]
    assert (line["status"], line["error"]) == (
        "UNAVAILABLE",
        "model words is not loaded: unloaded",
    )


def test_requests_are_counted_without_a_label_for_invented_names(model: Path) -> None:
    async def scenario(running: Running, stub: Any) -> None:
        for _ in range(3):
            await stub.ModelInfer(text_message("good"))
        invalid = text_message("good", model="invented")
        invalid.inputs[0].datatype = "INT65"
        for message in (text_message("good", model="invented"), invalid):
            await refusal(stub.ModelInfer(message))
        page = running.service.metrics.render(None)[0].decode()
        assert 'smp_requests_total{code="OK",model="words",protocol="grpc"} 3.0' in page
        assert 'smp_requests_total{code="NOT_FOUND",model="",protocol="grpc"} 1.0' in page
        assert 'smp_requests_total{code="INVALID_ARGUMENT",model="",protocol="grpc"} 1.0' in page
        assert "invented" not in page

    with_stub(scenario, model)
