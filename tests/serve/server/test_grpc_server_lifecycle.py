import asyncio
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from tritonclient.grpc import service_pb2 as messages
from tritonclient.grpc import service_pb2_grpc

from pipeline.errors import ConfigurationError
from tests.serve.server.conftest import Certificate
from tests.serve.server.grpc_front import (
    Running,
    eventually,
    hold,
    logits,
    refusal,
    serving,
    status_and_details,
    text_message,
    with_stub,
)


def test_a_request_ends_after_the_time_that_the_server_allows(model: Path) -> None:
    async def scenario(running: Running, stub: Any) -> None:
        _, go_on = hold(running)
        try:
            error = await refusal(stub.ModelInfer(text_message("good")))
        finally:
            go_on.set()
        assert error.code().name == "DEADLINE_EXCEEDED"
        assert "raise --request-timeout-s" in (error.details() or "")
        assert 'code="DEADLINE_EXCEEDED"' in running.service.metrics.render(None)[0].decode()

    with_stub(scenario, model, request_timeout_s=0.3)


def test_a_message_that_does_not_come_ends_at_the_deadline(model: Path) -> None:
    async def scenario() -> None:
        async with (
            serving(model, request_timeout_s=0.2) as running,
            grpc.aio.insecure_channel(running.address) as channel,
        ):
            call = channel.stream_unary("/inference.GRPCInferenceService/ModelInfer")()
            status, details = status_and_details(await refusal(call))
            assert status == "DEADLINE_EXCEEDED"
            assert "did not arrive in time" in details

    asyncio.run(scenario())


@pytest.mark.parametrize("timeout", [None, 2.0])
def test_a_client_that_waits_no_longer_leaves_the_queue(model: Path, timeout: float | None) -> None:
    async def scenario() -> None:
        async with serving(model, max_queue=1, max_batch_size=1) as running:
            running_now, go_on = hold(running)
            try:
                async with grpc.aio.insecure_channel(running.address) as channel:
                    stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
                    first = asyncio.ensure_future(stub.ModelInfer(text_message("good")))
                    assert await asyncio.to_thread(running_now.wait, 60)
                    waiting = stub.ModelInfer(text_message("good"), timeout=timeout)
                    await eventually(running, "smp_queue_texts 1.0")
                    if timeout is None:
                        waiting.cancel()
                    await eventually(running, "smp_queue_texts 0.0")
                    await eventually(running, 'code="CANCELLED"')
                    second = asyncio.ensure_future(stub.ModelInfer(text_message("dull")))
                    await eventually(running, "smp_queue_texts 1.0")
                # The channel is closed, and with it both calls.
                await asyncio.gather(first, second, return_exceptions=True)
                await eventually(running, "smp_queue_texts 0.0")
            finally:
                go_on.set()
            async with grpc.aio.insecure_channel(running.address) as channel:
                stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
                assert logits(await stub.ModelInfer(text_message("bad"))) == [[1, -1]]

    asyncio.run(scenario())


def test_a_fault_of_the_server_tells_the_client_no_more_than_its_id(
    model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(running: Running, stub: Any) -> None:
        def fail(request: Any, answer: Any) -> Any:
            raise RuntimeError("a secret")

        running.service.repository.get("words", "").answer = fail  # type: ignore[method-assign]
        call = stub.ModelInfer(text_message("good"), metadata=(("x-request-id", "abc"),))
        status, details = status_and_details(await refusal(call))
        assert status == "INTERNAL"
        assert "request abc" in details
        assert "secret" not in details

    with_stub(scenario, model)
    (record,) = [record for record in caplog.records if record.exc_info]
    assert record.__dict__["fields"] == {"request_id": "abc"}
    assert "a secret" in caplog.text


def test_stopping_finishes_what_was_accepted_and_takes_no_more(model: Path) -> None:
    async def scenario(running: Running, stub: Any) -> None:
        running_now, go_on = hold(running)
        try:
            accepted = asyncio.ensure_future(stub.ModelInfer(text_message("good")))
            assert await asyncio.to_thread(running_now.wait, 60)
            stopping = asyncio.ensure_future(running.server.stop(60.0))
            await asyncio.wait([stopping], timeout=0.3)
            assert not stopping.done()
            async with grpc.aio.insecure_channel(running.address) as channel:
                late = service_pb2_grpc.GRPCInferenceServiceStub(channel)
                error = await refusal(late.ServerLive(messages.ServerLiveRequest()))
                assert error.code().name == "UNAVAILABLE"
        finally:
            go_on.set()
        assert logits(await accepted) == [[-1, 1]]
        await stopping

    with_stub(scenario, model)


def test_stopping_ends_what_takes_longer_than_allowed(model: Path) -> None:
    async def scenario(running: Running, stub: Any) -> None:
        running_now, go_on = hold(running)
        try:
            accepted = asyncio.ensure_future(stub.ModelInfer(text_message("good")))
            assert await asyncio.to_thread(running_now.wait, 60)
            await running.server.stop(0.1)
            assert (await refusal(accepted)).code().name in ("CANCELLED", "UNAVAILABLE")
        finally:
            go_on.set()

    with_stub(scenario, model)


def test_tls_protects_the_port(model: Path, certificate: Certificate) -> None:
    async def scenario() -> None:
        async with serving(
            model, tls_certificate=certificate.certificate, tls_key=certificate.key
        ) as running:
            trusted = grpc.ssl_channel_credentials(certificate.certificate.read_bytes())
            async with grpc.aio.secure_channel(running.address, trusted) as channel:
                stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
                assert logits(await stub.ModelInfer(text_message("good"))) == [[-1, 1]]
            async with grpc.aio.insecure_channel(running.address) as channel:
                stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
                error = await refusal(stub.ModelInfer(text_message("good")))
                assert error.code().name == "UNAVAILABLE"

    asyncio.run(scenario())


def start_failure(model: Path, **settings: Any) -> str:
    async def scenario() -> None:
        async with serving(model, load=False, **settings):
            pass

    with pytest.raises(ConfigurationError) as caught:
        asyncio.run(scenario())
    return str(caught.value)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_taken_port_is_an_error(
    model: Path, host: str, capfd: pytest.CaptureFixture[str]
) -> None:
    async def scenario(running: Running, _: Any) -> None:
        failure = await asyncio.to_thread(start_failure, model, host=host, grpc_port=running.port)
        assert f"--grpc-port {running.port} on --host {host} cannot be listened on" in failure
        assert "Address already in use; choose a free port" in failure

    with_stub(scenario, model)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
def test_an_address_of_no_machine_is_an_error(
    model: Path, host: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert f"on --host {host} cannot be listened on: " in start_failure(model, host=host)
    assert capfd.readouterr().err == ""


def test_a_certificate_that_cannot_be_used_is_an_error(
    model: Path, certificate: Certificate, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    garbage = tmp_path / "garbage.pem"
    garbage.write_text("no certificate")
    for one, key in (
        (garbage, certificate.key),
        (certificate.certificate, garbage),
        (certificate.certificate, tmp_path / "missing.pem"),
    ):
        failure = start_failure(model, tls_certificate=one, tls_key=key)
        assert failure.startswith(("--tls-certificate ", "--tls-key "))
    assert capfd.readouterr().err == ""
