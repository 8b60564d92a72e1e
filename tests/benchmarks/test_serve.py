"""The measurement of the server: who is asked what, what is counted, and what the table says."""

import asyncio
import itertools
import json
import os
import shutil
import subprocess
import sys
import threading
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import grpc
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from benchmarks import serve_grpc
from benchmarks.serve import find_kserve
from benchmarks.serve_load import http_load, need_wrk
from benchmarks.serve_loop import BareLoops, batches
from benchmarks.serve_measure import read_texts
from benchmarks.serve_table import best_loop, report
from pipeline.errors import ConfigurationError, MachineError

ROOT = Path(__file__).parents[2]

with_wrk = pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed")


class Recorder(BaseHTTPRequestHandler):
    """Answers 200, or 500 to the body `bad`, and keeps the bodies in the order of arrival."""

    protocol_version = "HTTP/1.1"
    seen: list[str]

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.seen.append(body)
        self.send_response(500 if body == "bad" else 200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *arguments):
        pass


@pytest.fixture
def recorder():
    handler = type("Handler", (Recorder,), {"seen": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/", handler.seen
        server.shutdown()
        thread.join()


@with_wrk
def test_http_clients_post_the_bodies_in_their_order_from_the_given_one_on(recorder, tmp_path):
    url, seen = recorder
    bodies = ["zero", "one %d", 'two "quoted" \\n', "drei ö"]
    path = tmp_path / "bodies"
    path.write_text("\n".join(bodies) + "\n", encoding="utf-8")
    load = http_load(url, path, 5, 1, 1)
    assert load.requests > len(bodies)
    # wrk throws the request away that is on its way when the time is over.
    assert 0 <= len(seen) - load.requests <= 1
    assert seen == list(itertools.islice(itertools.cycle(bodies), 2, 2 + len(seen)))
    assert 0 < load.p50_ms <= load.p99_ms < 1000 * load.seconds
    assert load.client_cpu_s > 0


@with_wrk
def test_a_refused_request_ends_the_measurement(recorder, tmp_path):
    (tmp_path / "bodies").write_text("fine\nbad\n", encoding="utf-8")
    with pytest.raises(MachineError, match=r"refused [1-9]\d* and lost 0; see its log"):
        http_load(recorder[0], tmp_path / "bodies", 0, 2, 1)


def test_a_missing_load_generator_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MachineError, match=r"wrk.* is missing; apt-get install wrk"):
        need_wrk()


class Texts(service_pb2_grpc.GRPCInferenceServiceServicer):
    def __init__(self):
        self.seen = []

    def ModelInfer(self, request, context):  # noqa: N802
        (tensor,) = request.inputs
        (text,) = tensor.contents.bytes_contents
        self.seen.append((request.model_name, tensor.name, text.decode()))
        if text == b"bad":
            context.abort(grpc.StatusCode.INTERNAL, "bad")
        return service_pb2.ModelInferResponse(model_name=request.model_name)


@pytest.mark.parametrize("texts", [["a", "ö"], ["a", "bad"]])
def test_grpc_clients_send_one_text_a_request_and_count_what_is_refused(texts):
    servicer = Texts()
    server = grpc.server(futures.ThreadPoolExecutor(2))
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(servicer, server)
    target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        requests = [serve_grpc.request("model", text) for text in texts]
        found = asyncio.run(serve_grpc.load(target, requests, 0, 2, 1))
    finally:
        server.stop(None).wait()
    asked = [text for _, _, text in servicer.seen]
    assert set(servicer.seen) == {("model", "text", text) for text in texts}
    assert found["requests"] + found["refused"] == len(asked)
    assert found["refused"] == asked.count("bad")


def test_the_loops_share_the_texts_out_between_them():
    streams = [batches(10, 3 + number * 4, 4, 2) for number in range(2)]
    found = list(itertools.islice(itertools.chain.from_iterable(zip(*streams, strict=True)), 5))
    assert list(itertools.chain.from_iterable(found)) == [number % 10 for number in range(3, 23)]


@pytest.mark.parametrize("tokenise", [True, False])
def test_the_session_alone_counts_every_text_of_its_batches(
    make_model, tmp_path, monkeypatch, tokenise
):
    bare = BareLoops(make_model(tmp_path / "model"), ["good", "a bad film", "the plot"])
    for loops in bare.loops:
        turn = bare.turn(1, batch=4, loops=loops, seconds=0.05, tokenise=tokenise)
        assert min(turn.values()) > 0
    # A clock by which every batch takes 10 ms.
    monkeypatch.setattr(
        "benchmarks.serve_loop.time.perf_counter", itertools.count(0, 0.01).__next__
    )
    turn = bare.turn(1, batch=4, loops=1, seconds=0.05, tokenise=tokenise)
    assert turn["per_s"] == pytest.approx(400)
    assert turn["p50_ms"] == pytest.approx(10)


def test_texts_come_in_random_order_and_a_file_without_them_is_refused(tmp_path):
    path = tmp_path / "texts.csv"
    texts = [f'text "{number}", long' for number in range(50)]
    path.write_text("text,label\n", encoding="utf-8")
    with pytest.raises(ConfigurationError, match=r"texts\.csv has no texts"):
        read_texts(path, 0)
    rows = "".join('"{}",1\n'.format(text.replace('"', '""')) for text in texts)
    path.write_text("text,label\n" + rows, encoding="utf-8")
    assert read_texts(path, 0) == read_texts(path, 0) != texts
    assert sorted(read_texts(path, 0)) == sorted(texts)
    path.write_text("sentence\na\n", encoding="utf-8")
    with pytest.raises(ConfigurationError, match="no CSV file with a column text"):
        read_texts(path, 0)


def test_an_interpreter_without_the_peer_is_refused_when_it_was_asked_for():
    with pytest.raises(ConfigurationError, match=r"kserve.*; pip install kserve onnxruntime"):
        find_kserve(Path(sys.executable))
    with pytest.raises(ConfigurationError, match=r"--kserve-python nowhere cannot serve"):
        find_kserve(Path("nowhere"))


def request_row(variant, clients, number, per_s, p50_ms):
    figures = {"per_s": per_s, "p50_ms": p50_ms, "p99_ms": 9.0}
    figures |= {"server_cpu_ms": 0.9, "client_cpu_ms": 0.0125}
    return {"variant": variant, "clients": clients, "round": number, **figures}


def loop_row(batch, tokenise, number, per_s, p50_ms):
    what = {"loops": 1, "batch": batch, "tokenise": tokenise, "round": number}
    return {**what, "per_s": per_s, "p50_ms": p50_ms, "cpu_ms": 0.75}


def test_figures_are_compared_round_by_round_with_the_best_loop():
    requests, loop = [], []
    # The machine is twice as slow in the second round: what is compared within one is the same.
    for number, speed in enumerate([1.0, 0.5, 0.8]):
        requests += [
            request_row("http", 1, number, 300 * speed, 3.0),
            request_row("http", 32, number, 900 * speed, 30.0),
            request_row("unbatched", 32, number, 450 * speed, 60.0),
        ]
        loop += [
            loop_row(1, True, number, 400 * speed, 2.0),
            loop_row(1, False, number, 500 * speed, 1.6),
            loop_row(8, True, number, 1000 * speed, 8.0),
            loop_row(8, False, number, 2000 * speed, 4.0),
        ]
    assert best_loop(loop) == (1, 8, 800)
    faster = [{**row, "loops": 2, "per_s": 1.5 * row["per_s"]} for row in loop]
    assert best_loop([*loop, *faster]) == (2, 8, 1200)
    assert best_loop([*loop, *faster], most=1) == (1, 8, 800)
    model = {
        "model": "tiny",
        "format": "engine",
        "density": 0.1,
        "threads": 2,
        "texts": 3,
        "tokens": {"mean": 4.0, "max": 5},
        "variants": {"http": "HTTP", "unbatched": "no batching"},
        "rss_bytes": {"http": 120_000_000},
        "requests": requests,
        "loop": loop,
    }
    content = {
        "machine": {"load_average": 3.0},
        "versions": {},
        "kserve": False,
        "rounds": 3,
        "seconds": 2,
        "models": [model],
    }
    lines = list(itertools.chain.from_iterable(part.splitlines() for part in report(content)))
    assert "**Other work was running when it started (load average 3.0).**" in lines
    assert "The KServe SDK was left out: not installed." in lines
    compared = next(line for line in lines if line.startswith("| HTTP | 0.9 "))
    cells = [cell.strip() for cell in compared.split("|")[1:-1]]
    assert cells == [
        "HTTP",
        "0.9 (0.9 to 0.9)",
        "1 (1 to 1)",
        "0.15 (0.15 to 0.15)",
        "1",
        "1",
    ]
    compared = next(line for line in lines if line.startswith("| no batching | 0.45 "))
    assert [cell.strip() for cell in compared.split("|")[3:-1]] == [
        "",
        "0.15 (0.15 to 0.15)",
        "",
        "0.5 (0.5 to 0.5)",
    ]
    assert "| HTTP | 32 | 720 (450 to 900) | 30 (30 to 30) | 9 (9 to 9) |" in "\n".join(lines)


@pytest.mark.slow
@with_wrk
def test_one_command_measures_a_model_in_all_ways(make_model, reviews, tmp_path):
    command = [sys.executable, "-m", "benchmarks.serve", "--models", make_model(tmp_path / "tiny")]
    command += ["--validation-file", reviews[1], "--work-dir", tmp_path / "work"]
    command += ["--output", tmp_path / "table.md", "--rounds", "1", "--seconds", "1"]
    command += ["--loop-seconds", "0.05", "--clients", "2", "--batches", "1", "2"]
    command += ["--delays", "1", "--tries=--max-batch-size 2 --no-log-requests"]
    done = subprocess.run(
        list(map(str, command)),
        capture_output=True,
        text=True,
        timeout=550,
        cwd=ROOT,
        env={**os.environ},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (model,) = json.loads((tmp_path / "work" / "serve.json").read_text(encoding="utf-8"))["models"]
    measured = {(row["variant"], row["clients"]) for row in model["requests"]}
    ways = ["http", "control", "unbatched", "grpc", "delay-1", "try-0"]
    assert measured == set(itertools.product(ways, [2])) | ({("kserve", 2)} & measured)
    assert {(row["batch"], row["tokenise"]) for row in model["loop"]} == set(
        itertools.product([1, 2], [True, False])
    )
    assert "| HTTP, --max-batch-delay-ms 1 | 2 |" in (tmp_path / "table.md").read_text("utf-8")
