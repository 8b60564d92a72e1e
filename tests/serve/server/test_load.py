import asyncio
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from benchmarks.http_load import Client, Connection, Tally, infer_body
from export import export_run
from pipeline.config import ExportConfig
from serve import open_session
from tests.made_up_data import NEUTRAL, POSITIVE
from tests.serve.server.running import (
    Question,
    ServerProcess,
    ask,
    count_words,
    eventually,
    metrics,
    numbered,
)

pytestmark = pytest.mark.usefixtures("traced_once")

MakeModel = Callable[..., Path]
QUIET = "--no-log-requests"
WATCH_S = 0.5


def words(number: int) -> Question:
    return numbered("words", number)


def slow(number: int) -> Question:
    return numbered("slow", number)


async def under_load(
    port: int,
    questions: Sequence[Callable[[int], Question]],
    during: Callable[[], Any],
    *,
    tolerance: float = 0.0,
    pause_s: float = 0.02,
) -> tuple[Tally, Any]:
    """Do something while clients, one for each kind of question, ask without a pause.

    Each number is asked once: client 3 of 8 asks 3, 11, 19, ...

    Returns:
        What became of the requests, and what was returned.
    """
    tally, stop = Tally(), asyncio.Event()

    def of_client(index: int) -> Callable[[int], Question]:
        return lambda number: questions[index](number * len(questions) + index)

    clients = [
        Client(f"client{index}", port, tally, tolerance=tolerance, pause_s=pause_s)
        for index in range(len(questions))
    ]
    asking = [
        asyncio.create_task(client.ask_until(stop, of_client(index)))
        for index, client in enumerate(clients)
    ]
    try:
        result = await asyncio.to_thread(during)
    finally:
        stop.set()
        await asyncio.gather(*asking)
    return tally, result


def assert_all_right(tally: Tally, *statuses: int) -> None:
    """Every request has one answer, with one of these statuses, and those with 200 are right."""
    assert tally.wrong == []
    assert tally.unanswered == []
    assert tally.refused == 0
    assert tally.statuses[200] > 0
    assert set(tally.statuses) <= {200, *statuses}


# wrk prints what its Lua script says beside its own figures.
_SCRIPT = """
wrk.method = "POST"
wrk.body = [[{body}]]
function delay() return {pause_ms} end
local threads = {{}}
function setup(thread) table.insert(threads, thread) end
function init() answered, refused, others = 0, 0, 0 end
function response(status)
  if status == 200 then answered = answered + 1
  elseif status == 429 then refused = refused + 1
  else others = others + 1 end
end
function done(summary)
  local sums = {{answered = 0, refused = 0, others = 0}}
  for _, thread in ipairs(threads) do
    for name in pairs(sums) do sums[name] = sums[name] + thread:get(name) end
  end
  for name, sum in pairs(sums) do print(name .. ":" .. sum) end
  for name, count in pairs(summary.errors) do print("errors." .. name .. ":" .. count) end
end
"""


def wrk(
    port: int,
    question: Question,
    directory: Path,
    *,
    connections: int,
    seconds: int,
    pause_ms: int = 0,
) -> Any:
    """Have wrk ask one question over and over; returns what it counted."""
    if shutil.which("wrk") is None:
        pytest.skip("wrk is not installed")
    script = directory / "load.lua"
    script.write_text(_SCRIPT.format(body=question.body("wrk").decode(), pause_ms=pause_ms))
    done = subprocess.run(
        [
            *("wrk", "--threads=1", f"--connections={connections}", f"--duration={seconds}s"),
            *("--timeout=30s", f"--script={script}", f"http://127.0.0.1:{port}{question.path}"),
        ],
        check=True,
        capture_output=True,
        text=True,
    )
    pairs = re.findall(r"^([\w.]+):(\d+)$", done.stdout, re.MULTILINE)
    return {name: int(count) for name, count in pairs}


def test_at_saturation_every_request_has_one_answer_and_it_is_its_own(
    model: Path, tmp_path: Path
) -> None:
    connections = 32
    with ServerProcess([model], [QUIET]) as server:
        server.wait_for("ready")
        tally, counted = asyncio.run(
            under_load(
                server.port,
                [words] * 8,
                lambda: wrk(
                    server.port,
                    count_words("words", 3),
                    tmp_path,
                    connections=connections,
                    seconds=3,
                ),
            )
        )
        assert_all_right(tally)
        answered_wrk = counted.pop("answered")
        assert answered_wrk > 0
        assert set(counted.values()) == {0}
        answered = metrics(server.port)["smp_requests_total", "200", "words", "http"]
        # What wrk asked when its time was over was answered too, and not counted by it.
        surplus = answered - tally.statuses[200] - answered_wrk
        assert 0 <= surplus <= connections
        eventually(lambda: metrics(server.port)[("smp_queue_texts",)] == 0)


def test_past_saturation_the_surplus_is_refused_and_the_wait_is_bounded(
    slow_model: Path, tmp_path: Path
) -> None:
    clients, connections = 32, 64
    flags = (QUIET, "--threads=1", "--max-batch-size=6", "--max-queue=12", "--max-request-texts=3")
    with ServerProcess([slow_model], flags) as server:
        server.wait_for("ready")
        start = time.monotonic()
        tally, counted = asyncio.run(
            under_load(
                server.port,
                [slow] * clients,
                lambda: wrk(
                    server.port,
                    count_words("slow", 1, 2, 3),
                    tmp_path,
                    connections=connections,
                    seconds=3,
                    pause_ms=100,
                ),
                pause_s=0.1,
            )
        )
        answered_a_second = (tally.statuses[200] + counted["answered"]) / (time.monotonic() - start)
        assert_all_right(tally, 429)
        assert tally.statuses[429] > 0
        assert counted["refused"] > 0
        assert counted["others"] == 0
        # Little's law: so many requests are in the server while one waits. The queue and two
        # batches hold 8; if all were let in and none refused, it would be all who ask. The median:
        # a machine that stands still for a moment makes the slowest as slow as it likes.
        assert tally.seconds(0.5) * answered_a_second < (clients + connections) / 2
        eventually(lambda: metrics(server.port)[("smp_queue_texts",)] == 0)


def test_a_refusal_says_when_to_come_back(slow_model: Path) -> None:
    async def flood(port: int, grpc_port: int) -> tuple[list[Any], list[Any]]:
        question = count_words("slow", 1)
        connections = [await Connection.open(port) for _ in range(40)]
        answers = await asyncio.gather(
            *(c.ask("POST", question.path, question.body("flood")) for c in connections)
        )
        for connection in connections:
            connection.close()
        request = service_pb2.ModelInferRequest(model_name="slow")
        text = request.inputs.add(name="text", datatype="BYTES", shape=[1])
        text.contents.bytes_contents.append(b"good")
        async with grpc.aio.insecure_channel(f"127.0.0.1:{grpc_port}") as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            results = await asyncio.gather(
                *(stub.ModelInfer(request) for _ in range(40)), return_exceptions=True
            )
        return answers, results

    flags = ("--threads=1", "--max-batch-size=1", "--max-queue=4", "--max-request-texts=1")
    with ServerProcess([slow_model], flags) as server:
        server.wait_for("ready")
        answers, results = asyncio.run(flood(server.port, server.grpc_port))
    assert {answer.status for answer in answers} == {200, 429}
    for answer in answers:
        if answer.status == 429:
            assert int(answer.headers["retry-after"]) >= 1
            assert "queue" in answer.json()["error"]
    refused = [result for result in results if isinstance(result, grpc.aio.AioRpcError)]
    assert 0 < len(refused) < len(results)
    assert {error.code() for error in refused} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
    for error in refused:
        assert int(dict([*error.trailing_metadata()])["retry-after"]) >= 1


class LongQuestion(Question):
    """A question with much beside it that the server reads and does not need."""

    def body(self, request_id: str) -> bytes:
        return super().body(request_id)[:-1] + b', "parameters": {"note": "%s"}}' % (b"x" * 50_000)


def test_memory_does_not_grow_with_the_requests(model: Path) -> None:
    def long(number: int) -> Question:
        question = words(number)
        return LongQuestion("words", question.texts, question.logits)

    with ServerProcess([model], [QUIET]) as server:
        server.wait_for("ready")
        warm_up, _ = asyncio.run(under_load(server.port, [long] * 8, lambda: time.sleep(1)))
        before = server.rss_bytes
        tally, _ = asyncio.run(under_load(server.port, [long] * 8, lambda: time.sleep(3)))
        growth = server.rss_bytes - before
        assert_all_right(warm_up)
        assert_all_right(tally)
        read = tally.statuses[200] * len(long(0).body("1"))
        # A server that kept a twentieth of what it reads would grow by more; where the machine is
        # busy, less is read, and the allocator's own ups and downs count.
        assert growth < max(read / 20, 12 * 2**20)


def test_a_model_is_loaded_anew_under_load_without_a_lost_request(model: Path) -> None:
    def reload() -> int:
        for _ in range(10):
            answer = ask(server.port, "POST", "/v2/repository/models/words/load")
            assert answer.status == 200, answer.body
        return 10

    with ServerProcess([model], [QUIET]) as server:
        server.wait_for("ready")
        tally, _ = asyncio.run(under_load(server.port, [words] * 8, reload))
        assert_all_right(tally)
        assert ask(server.port, "GET", "/v2/health/ready").status == 200


def test_only_an_unloaded_model_does_not_answer(make_model: MakeModel, tmp_path: Path) -> None:
    other = make_model(tmp_path / "repository" / "other", max_length=32)
    make_model(tmp_path / "repository" / "words")

    def unload_and_load() -> None:
        for _ in range(8):
            for action in ("unload", "load"):
                path = f"/v2/repository/models/other/{action}"
                assert ask(server.port, "POST", path).status == 200
                time.sleep(0.05)

    def others(number: int) -> Question:
        return numbered("other", number)

    with ServerProcess([other.parent], [QUIET]) as server:
        server.wait_for("ready")

        async def both() -> tuple[Tally, Tally]:
            done = threading.Event()
            steady = asyncio.create_task(under_load(server.port, [words] * 4, done.wait))
            changing, _ = await under_load(server.port, [others] * 4, unload_and_load)
            done.set()
            return (await steady)[0], changing

        steady, changing = asyncio.run(both())
        assert_all_right(steady)
        assert_all_right(changing, 404, 503)
        assert set(changing.statuses) & {404, 503}
        after, _ = asyncio.run(under_load(server.port, [others] * 4, lambda: time.sleep(0.2)))
        assert_all_right(after)


def test_what_vanished_clients_asked_leaves_the_queue(slow_model: Path) -> None:
    async def vanish(port: int) -> float:
        question = count_words("slow", 1)
        asked = question.body("vanishing")
        connections = [await Connection.open(port) for _ in range(150)]
        asking = [asyncio.create_task(c.ask("POST", question.path, asked)) for c in connections]
        while (found := await asyncio.to_thread(metrics, port))[("smp_queue_texts",)] < 50:
            await asyncio.sleep(0.01)
        for connection in connections:
            connection.vanish()
        await asyncio.gather(*asking, return_exceptions=True)
        # Half a body, then nothing.
        for _ in range(20):
            connection = await Connection.open(port)
            connection.writer.write(b"POST /v2 HTTP/1.1\r\nhost: x\r\ncontent-length: 900\r\n\r\n{")
            await connection.writer.drain()
            connection.vanish()
        return found.get(("smp_batch_texts_count", "slow"), 0.0)

    with ServerProcess([slow_model], ["--threads=1", "--max-batch-size=1", QUIET]) as server:
        server.wait_for("ready")
        before = asyncio.run(vanish(server.port))
        eventually(lambda: metrics(server.port)[("smp_queue_texts",)] == 0)
        ran = metrics(server.port)["smp_batch_texts_count", "slow"]
        assert ran - before < 50, "what nobody waits for was run all the same"
        question = count_words("slow", -4)
        answer = ask(server.port, "POST", question.path, question.body("1"))
        np.testing.assert_array_equal(answer.logits(), question.logits)
        assert server.stop() == 0
        assert server.lines == []
        assert not any("traceback" in entry for entry in server.events)


def test_a_corrupt_model_does_not_replace_a_good_one_and_a_new_one_loses_no_request(
    make_model: MakeModel, tmp_path: Path
) -> None:
    make_model(tmp_path / "repository" / "words")
    served = tmp_path / "repository" / "words"
    double = make_model(tmp_path / "double", scale=2.0)
    corrupt = shutil.copytree(double, tmp_path / "corrupt")
    graph = corrupt / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:-7])

    def replace(directory: Path) -> None:
        # The server has just looked. When it looks again there is no directory, for a moment.
        time.sleep(0.75 * WATCH_S)
        served.rename(tmp_path / f"before-{directory.name}")
        time.sleep(0.5 * WATCH_S)
        directory.rename(served)

    def index() -> dict[str, Any]:
        (entry,) = ask(server.port, "POST", "/v2/repository/index").json()
        assert isinstance(entry, dict)
        return entry

    def corrupt_then_double() -> None:
        replace(corrupt)
        eventually(lambda: "truncated or was changed" in index()["reason"])
        assert index()["state"] == "READY"
        answer = ask(server.port, "POST", "/v2/repository/models/words/load")
        assert answer.status == 503
        assert "truncated or was changed" in answer.json()["error"]
        answer = ask(server.port, "POST", question.path, question.body("1"))
        np.testing.assert_array_equal(answer.logits(), question.logits)
        replace(double)
        doubled = 2 * np.asarray(question.logits)

        def is_double() -> bool:
            answer = ask(server.port, "POST", question.path, question.body("1"))
            return bool((answer.logits() == doubled).all())

        eventually(is_double)
        assert not index().get("reason")

    question = count_words("words", 5, -3, 1)
    with ServerProcess([served.parent], [f"--watch-s={WATCH_S}", QUIET]) as server:
        server.wait_for("ready")
        # Texts of neutral words have the same logits in both models.
        tally, _ = asyncio.run(
            under_load(
                server.port, [lambda number: count_words("words", 0)] * 8, corrupt_then_double
            )
        )
        assert_all_right(tally)
        assert ask(server.port, "GET", "/v2/health/ready").status == 200


@pytest.mark.parametrize(("form", "values"), [("dense", "fp32"), ("engine", "int8")])
def test_a_real_encoder_answers_under_load_as_it_does_in_quiet(
    form: str, values: str, tiny_run: Path, native_library: Path, tmp_path: Path
) -> None:
    directory = tmp_path / "encoder"
    options: dict[str, Any] = {"compute": values} if form == "engine" else {"values": values}
    export_run(ExportConfig(run=tiny_run, output_dir=directory, format=form, **options))
    texts = [
        " ".join((POSITIVE + NEUTRAL)[(seed * step) % 15] for step in range(1, length))
        for seed in range(1, 12)
        for length in (2, 3, 5, 9, 17, 30)
    ]
    session = open_session(directory, threads=1)
    right = np.concatenate([session.logits([text]) for text in texts])

    def question(number: int) -> Question:
        chosen = [(number * 7 + step * 13) % len(texts) for step in range(1 + number % 5)]
        return Question("encoder", tuple(texts[index] for index in chosen), right[chosen])

    # Sums of a batch are added in another order: a few units in the last place.
    tolerance = 16 * float(np.finfo(np.float32).eps * np.abs(right).max())
    with ServerProcess([directory], [QUIET, "--threads=1"]) as server:
        server.wait_for("ready")
        tally, _ = asyncio.run(
            under_load(server.port, [question] * 16, lambda: time.sleep(1), tolerance=tolerance)
        )
        assert_all_right(tally)
        sizes = metrics(server.port)
        assert sizes["smp_batch_texts_sum", "encoder"] > sizes["smp_batch_texts_count", "encoder"]
        for text, logits in zip(texts[:10], right, strict=False):
            path = "/v2/models/encoder/infer"
            answer = ask(server.port, "POST", path, infer_body((text,)))
            np.testing.assert_array_equal(answer.logits(), [logits])
