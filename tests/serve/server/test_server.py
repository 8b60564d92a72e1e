import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from benchmarks.http_load import Client, Connection, Tally, UnansweredError
from pipeline.artifacts.files import sha256_file
from tests.serve.server.conftest import Certificate
from tests.serve.server.running import (
    Question,
    ServerProcess,
    ask,
    count_words,
    eventually,
    metrics,
    numbered,
)

MakeModel = Callable[..., Path]


def failure(*arguments: Any, environment: dict[str, str] | None = None) -> str:
    """The one line with which a server that cannot start ends."""
    models = [argument for argument in arguments if isinstance(argument, Path)]
    flags = [argument for argument in arguments if isinstance(argument, str)]
    with ServerProcess(models, flags, environment=environment) as server:
        assert server.wait() == 2
        (line,) = server.lines
        assert line.startswith("error: ")
        assert not any("traceback" in entry for entry in server.events)
        return line


def test_a_truncated_model_ends_the_server_with_one_line(model: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(model, tmp_path / "broken")
    graph = broken / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:-7])
    assert f"{graph} is truncated or was changed" in failure(broken)


def test_a_model_that_onnxruntime_cannot_load_ends_it_with_one_line(
    make_model: MakeModel, tmp_path: Path
) -> None:
    garbage = tmp_path / "garbage"
    garbage.write_bytes(b"no graph at all")
    broken = make_model(tmp_path / "broken", model_sha256=sha256_file(garbage))
    garbage.replace(broken / "model.onnx")
    line = failure(broken)
    assert str(broken / "model.onnx") in line
    assert "export" in line


def test_a_directory_without_models_ends_it_with_one_line(tmp_path: Path) -> None:
    assert str(tmp_path / "missing") in failure(tmp_path / "missing")
    (tmp_path / "empty").mkdir()
    assert str(tmp_path / "empty") in failure(tmp_path / "empty")


def test_two_models_of_one_name_end_it_with_one_line(model: Path, tmp_path: Path) -> None:
    assert "words" in failure(model, shutil.copytree(model, tmp_path / "words"))


def test_ports_in_use_end_it_with_one_line_that_names_the_flag(model: Path) -> None:
    with ServerProcess([model]) as server:
        port, grpc_port = server.port, server.grpc_port
        assert f"--port {port}" in failure(model, f"--port={port}")
        assert f"--grpc-port {grpc_port}" in failure(model, f"--grpc-port={grpc_port}")
        server.wait_for("ready")
        assert ask(port, "GET", "/v2/health/ready").status == 200


def test_a_token_that_is_too_short_ends_it_with_one_line(model: Path, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("short\n")
    assert "--token-file" in failure(model, f"--token-file={token}")


def test_a_key_that_does_not_fit_ends_it_with_one_line(
    model: Path, certificate: Certificate, tmp_path: Path
) -> None:
    other = tmp_path / "other.pem"
    subprocess.run(
        [*("openssl", "genpkey", "-algorithm", "ed25519", "-out"), str(other)],
        check=True,
        capture_output=True,
    )
    for key in (other, tmp_path / "missing.pem"):
        line = failure(model, f"--tls-certificate={certificate.certificate}", f"--tls-key={key}")
        assert "--tls-" in line


def test_missing_packages_are_named_with_the_command_that_installs_them(model: Path) -> None:
    program = (
        "import sys; sys.modules['httptools'] = None; "
        f"sys.argv = ['smp-pipeline', 'serve', {str(model)!r}]; "
        "from pipeline.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "httptools" in line
    assert "pip install 'smp-pipeline[cpu,serve]'" in line


def test_as_json_it_says_where_it_is_once_it_answers_and_quietly_nothing_else(
    model: Path,
) -> None:
    command = [sys.executable, "-m", "pipeline", "serve", str(model), "--port=0", "--grpc-port=0"]
    process = subprocess.Popen(
        [*command, "--json", "--quiet"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        said = json.loads(process.stdout.readline())
        assert said["models"] == ["words"]
        address = re.fullmatch(r"http://127\.0\.0\.1:(\d+)/", said["http"])
        assert address is not None
        assert ask(int(address[1]), "GET", "/v2/health/ready").status == 200
        with grpc.insecure_channel(said["grpc"]) as channel:
            grpc.channel_ready_future(channel).result(timeout=60)
        process.terminate()
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, out, err) == (0, "", "")


def test_it_is_live_and_not_ready_while_models_load(model: Path, tmp_path: Path) -> None:
    names = [f"model{number:02}" for number in range(60)]
    for name in names:
        shutil.copytree(model, tmp_path / "models" / name, copy_function=os.link)
    # They load in the order of their names: the first to be asked is the last to be there.
    questions = [count_words(name, 3) for name in reversed(names)]
    with ServerProcess([tmp_path / "models"]) as server:
        health = []
        while 200 not in health:
            assert ask(server.port, "GET", "/v2/health/live").status == 200
            health.append(ask(server.port, "GET", "/v2/health/ready").status)
            if len(health) == 1:
                early = [
                    ask(server.port, "POST", question.path, question.body("early"))
                    for question in questions
                ]
        assert set(health[:-1]) == {503}
        assert 503 in [answer.status for answer in early]
        for question, answer in zip(questions, early, strict=True):
            assert answer.status in (200, 503)
            again = ask(server.port, "POST", question.path, question.body("late"))
            np.testing.assert_array_equal(again.logits(), question.logits)
        assert ask(server.port, "GET", "/v2/health/ready").status == 200


def test_a_signal_ends_a_server_that_is_loading(model: Path, tmp_path: Path) -> None:
    for number in range(60):
        shutil.copytree(model, tmp_path / "models" / str(number), copy_function=os.link)
    with ServerProcess([tmp_path / "models"]) as server:
        server.wait_for("listening")
        assert server.stop() == 0
        assert not any(event["event"] == "ready" for event in server.events)
        assert server.lines == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_an_idle_server_with_exit_code_0(number: signal.Signals, model: Path) -> None:
    with ServerProcess([model]) as server:
        server.wait_for("ready")
        server.signal(number)
        assert server.wait() == 0
        assert server.wait_for("stopped")
        assert server.lines == []


async def infer_over_grpc(stub: Any, question: Question) -> Any:
    request = service_pb2.ModelInferRequest(model_name=question.model)
    tensor = request.inputs.add(name="text", datatype="BYTES", shape=[len(question.texts)])
    tensor.contents.bytes_contents.extend(text.encode() for text in question.texts)
    request.outputs.add(name="logits")
    try:
        answer = await stub.ModelInfer(request)
    except grpc.aio.AioRpcError as error:
        return error.code()
    logits = np.frombuffer(answer.raw_output_contents[0], dtype="<f4")
    np.testing.assert_array_equal(logits.reshape(answer.outputs[0].shape), question.logits)
    return grpc.StatusCode.OK


async def until_accepted(port: int, texts: int, *, running: int) -> None:
    """Until so many texts have reached the queue, while a batch of some of them runs."""
    while True:
        found = await asyncio.to_thread(metrics, port)
        ran = sum(value for (name, *_), value in found.items() if name == "smp_batch_texts_sum")
        if found[("smp_queue_texts",)] + ran >= texts - running:
            return
        await asyncio.sleep(0.01)


async def until_refused(port: int) -> None:
    """Until a server takes no more connections."""
    with contextlib.suppress(ConnectionRefusedError):
        while True:
            (await Connection.open(port)).close()
            await asyncio.sleep(0.01)


async def signal_under_load(server: ServerProcess, number: signal.Signals) -> None:
    """Signal a server that has accepted 60 requests or nearly, while 8 clients never pause."""
    port, grpc_port = server.port, server.grpc_port
    idle = await Connection.open(port)
    assert (await idle.ask("GET", "/v2/health/ready")).status == 200
    questions = [numbered("slower", 1000 + n) for n in range(30)]
    connections = [await Connection.open(port) for _ in questions]
    accepted = [
        asyncio.create_task(connection.ask("POST", question.path, question.body("accepted")))
        for connection, question in zip(connections, questions, strict=True)
    ]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{grpc_port}") as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        accepted_grpc = [
            asyncio.create_task(infer_over_grpc(stub, question)) for question in questions
        ]
        # Three texts each, and batches of twelve.
        await until_accepted(port, 3 * 60, running=12)
        tally, stop = Tally(), asyncio.Event()
        clients = [Client(f"client{n}", port, tally) for n in range(8)]
        asking = [
            asyncio.create_task(client.ask_until(stop, lambda n: numbered("slower", n)))
            for client in clients
        ]

        server.signal(number)
        await asyncio.to_thread(server.wait_for, "stopping")
        with contextlib.suppress(UnansweredError):  # connections that nobody uses may end too
            assert (await idle.ask("GET", "/v2/health/ready")).status == 503
        await until_refused(port)
        assert not all(task.done() for task in [*accepted, *accepted_grpc])

        refused = 0
        for answer, question in zip(await asyncio.gather(*accepted), questions, strict=True):
            refused += answer.status == 503
            if answer.status != 503:
                assert answer.status == 200
                np.testing.assert_array_equal(answer.logits(), question.logits)
        for status in await asyncio.gather(*accepted_grpc):
            refused += status == grpc.StatusCode.UNAVAILABLE
            assert status in (grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE)
        # Of what was seen in the queue or run none; a batch's worth may have come too late.
        assert 3 * refused <= 12
    await asyncio.gather(*asking)
    # Each client ends when the server takes no more connections.
    assert tally.refused == len(clients)
    assert tally.wrong == []
    assert set(tally.statuses) <= {200, 503}
    for connection in [idle, *connections]:
        connection.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_under_load_lets_all_accepted_requests_end(
    number: signal.Signals, slower_model: Path
) -> None:
    flags = ("--max-batch-size=12", "--no-log-requests", "--threads=1")
    with ServerProcess([slower_model], flags) as server:
        server.wait_for("ready")
        asyncio.run(signal_under_load(server, number))
        assert server.wait() == 0
        assert server.lines == []


async def outcomes_of_a_long_queue(server: ServerProcess, end: Callable[[], None]) -> list[Any]:
    """What 200 requests get of a server that is told to end while they wait."""
    question = count_words("slow", 3)
    connections = [await Connection.open(server.port) for _ in range(200)]
    asking = [
        asyncio.create_task(connection.ask("POST", question.path, question.body("long")))
        for connection in connections
    ]
    await until_accepted(server.port, 200, running=1)
    await asyncio.to_thread(end)
    results = await asyncio.gather(*asking, return_exceptions=True)
    for connection in connections:
        connection.close()
    return results


def test_requests_that_take_longer_than_the_grace_time_are_given_up(slow_model: Path) -> None:
    flags = ("--max-batch-size=1", "--shutdown-timeout-s=0.3", "--threads=1")
    with ServerProcess([slow_model], flags) as server:
        server.wait_for("ready")
        results = asyncio.run(
            outcomes_of_a_long_queue(server, lambda: server.signal(signal.SIGTERM))
        )
        assert server.wait() == 0
        assert server.lines == []
    statuses = {result.status for result in results if not isinstance(result, BaseException)}
    assert statuses <= {200, 503}
    given_up = [result for result in results if getattr(result, "status", None) != 200]
    assert given_up
    assert not any(isinstance(result, UnansweredError) and result.begun for result in results)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_the_server_at_once(number: signal.Signals, slow_model: Path) -> None:
    def end() -> None:
        server.signal(number)
        server.wait_for("stopping")
        server.signal(number)

    flags = ("--max-batch-size=1", "--shutdown-timeout-s=600", "--threads=1")
    with ServerProcess([slow_model], flags) as server:
        server.wait_for("ready")
        results = asyncio.run(outcomes_of_a_long_queue(server, end))
        assert server.wait() == 128 + number
        assert server.lines == []
    assert any(getattr(result, "status", None) != 200 for result in results)


@pytest.fixture(scope="module")
def guarded(
    model: Path, certificate: Certificate, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[ServerProcess, str]]:
    """A server with TLS and a token, and the token."""
    token = "correct-horse-battery-staple"
    path = tmp_path_factory.mktemp("token") / "token"
    path.write_text(token + "\n")
    flags = (
        f"--token-file={path}",
        f"--tls-certificate={certificate.certificate}",
        f"--tls-key={certificate.key}",
    )
    with ServerProcess([model], flags) as server:
        server.wait_for("ready")
        yield server, token


def test_https_with_a_token(guarded: tuple[ServerProcess, str], certificate: Certificate) -> None:
    server, token = guarded
    tls = ssl.create_default_context(cafile=str(certificate.certificate))
    question = count_words("words", 2)

    def answer(headers: dict[str, str]) -> Any:
        return ask(server.port, "POST", question.path, question.body("1"), headers, tls=tls)

    assert ask(server.port, "GET", "/v2/health/ready", tls=tls).status == 200
    refused = answer({})
    assert refused.status == 401
    assert refused.headers["www-authenticate"].startswith("Bearer")
    assert answer({"authorization": f"Bearer {token}x"}).status == 401
    right = answer({"authorization": f"Bearer {token}"})
    np.testing.assert_array_equal(right.logits(), question.logits)


def test_a_client_that_speaks_plain_http_to_https_is_sent_away(
    guarded: tuple[ServerProcess, str], certificate: Certificate
) -> None:
    server, _ = guarded
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(b"GET /v2/health/live HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert b"200" not in client.recv(1000)
    tls = ssl.create_default_context(cafile=str(certificate.certificate))
    assert ask(server.port, "GET", "/v2/health/live", tls=tls).status == 200
    assert server.lines == []


def test_grpc_with_tls_and_a_token(
    guarded: tuple[ServerProcess, str], certificate: Certificate
) -> None:
    server, token = guarded
    client = tritonclient.grpc.InferenceServerClient(
        f"localhost:{server.grpc_port}", ssl=True, root_certificates=str(certificate.certificate)
    )
    text = tritonclient.grpc.InferInput("text", [1], "BYTES")
    text.set_data_from_numpy(np.array(["good good"], dtype=object))
    asked = {"inputs": [text], "outputs": [tritonclient.grpc.InferRequestedOutput("logits")]}
    with pytest.raises(tritonclient.grpc.InferenceServerException) as caught:
        client.infer("words", **asked)
    assert "UNAUTHENTICATED" in caught.value.status()
    answer = client.infer("words", headers={"authorization": f"Bearer {token}"}, **asked)
    np.testing.assert_array_equal(answer.as_numpy("logits"), [[-2, 2]])
    client.close()


def test_every_request_leaves_a_line_with_its_id(model: Path) -> None:
    question = count_words("words", 1)
    with ServerProcess([model]) as server:
        server.wait_for("ready")
        answer = ask(
            server.port, "POST", question.path, question.body("1"), {"x-request-id": "mine-7"}
        )
        assert answer.headers["x-request-id"] == "mine-7"
        eventually(lambda: any(e.get("request_id") == "mine-7" for e in server.events))
        (entry,) = [e for e in server.events if e.get("request_id") == "mine-7"]
        assert entry["status"] == 200
        assert server.stop() == 0
