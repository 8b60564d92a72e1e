import asyncio
import json
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from prometheus_client.parser import text_string_to_metric_families
from tritonclient.utils import InferenceServerException

from serve.server.errors import Overloaded, Unavailable
from serve.server.protocol import InferRequest, InferResponse
from serve.server.service import Service
from tests.serve.server.http_front import Front, read_all, running, texts

TOKEN = "0123456789abcdef-token"
INFER = "/v2/models/words/infer"


@pytest.fixture(scope="module")
def front(model: Path) -> Iterator[Front]:
    with running(model) as found:
        yield found


def test_text_gives_label_and_probabilities(front: Front) -> None:
    answer = front.ask("POST", INFER, texts("good film", "a bad plot", id="a1"))
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    content = answer.json()
    label, probabilities = content.pop("outputs")
    assert content == {"model_name": "words", "model_version": "1", "id": "a1"}
    assert label == {"name": "label", "datatype": "BYTES", "shape": [2], "data": ["1", "0"]}
    expected = [1 / (1 + np.exp(2)), 1 / (1 + np.exp(-2))]
    np.testing.assert_allclose(probabilities["data"], [*expected, *expected[::-1]], rtol=1e-6)


def test_the_standard_client_works_unchanged(front: Front) -> None:
    client = triton.InferenceServerClient(f"127.0.0.1:{front.port}")
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("words")
    assert client.is_model_ready("words", "1")
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    assert client.get_model_metadata("words")["inputs"][0] == {
        "name": "text",
        "datatype": "BYTES",
        "shape": [-1],
    }
    assert client.get_model_repository_index() == [
        {"name": "words", "version": "1", "state": "READY", "reason": ""}
    ]
    text = triton.InferInput("text", [2], "BYTES")
    for binary in (True, False):
        text.set_data_from_numpy(np.array(["good", "dull ü"], dtype=object), binary_data=binary)
        for outputs in (None, [triton.InferRequestedOutput("logits", binary_data=binary)]):
            result = client.infer("words", [text], outputs=outputs, request_id="r")
            assert result.get_response()["id"] == "r"
            if outputs is None:
                assert result.as_numpy("label").tolist() == [b"1", b"0"]
            else:
                np.testing.assert_array_equal(result.as_numpy("logits"), [[-1, 1], [1, -1]])
    with pytest.raises(InferenceServerException, match=r"400.*no output 'weights'"):
        client.infer("words", [text], outputs=[triton.InferRequestedOutput("weights")])
    client.unload_model("words")
    assert not client.is_model_ready("words")
    client.load_model("words")
    assert client.is_model_ready("words")
    with pytest.raises(InferenceServerException, match="leave the parameters out"):
        client.load_model("words", config="{}")
    client.close()


def test_a_version_may_be_named(front: Front) -> None:
    assert front.ask("POST", "/v2/models/words/versions/1/infer", texts("good")).status == 200
    assert front.ask("GET", "/v2/models/words/versions/1").json()["versions"] == ["1"]
    assert front.ask("GET", "/v2/models/words/versions/2").status == 404


def test_the_index_may_list_ready_models_only(front: Front) -> None:
    for body in (None, b"", {}, {"ready": True}):
        (entry,) = front.ask("POST", "/v2/repository/index", body).json()
        assert entry["state"] == "READY"
    assert front.ask("POST", "/v2/repository/index", {"ready": 1}).status == 400


@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [
        ("GET", "/v3", 404, "there is no /v3; /openapi.json describes"),
        ("GET", "/v2/", 404, "there is no /v2/"),
        ("GET", "/v2/models/%E2%98%83%00", 404, "\u2603"),
        ("GET", "/v2/models/none", 404, "none"),
        ("POST", "/v2/models/none/infer", 404, "none"),
        ("POST", "/v2/repository/models/none/load", 404, "none"),
        ("GET", INFER, 405, f"{INFER} takes POST, not GET"),
        ("DELETE", "/v2", 405, "/v2 takes GET, HEAD, not DELETE"),
        ("BREW", "/", 400, "not HTTP"),
    ],
)
def test_what_is_not_there_is_refused(
    method: str, path: str, status: int, message: str, front: Front
) -> None:
    body = texts("good") if method == "POST" and path.endswith("infer") else None
    answer = front.ask(method, path, body)
    assert answer.status == status
    assert message in answer.error()
    if status == 405:
        assert answer.headers["allow"] in message


def test_head_is_get_without_a_body(front: Front) -> None:
    for path in ("/", "/v2", "/v2/health/live", "/v2/models/words", "/openapi.json"):
        head, get = front.ask("HEAD", path), front.ask("GET", path)
        assert head.status == 200
        assert head.body == b""
        assert head.headers["content-length"] == str(len(get.body))


def test_compressed_bodies_are_refused(front: Front) -> None:
    answer = front.ask("POST", INFER, b"\x1f\x8b", {"Content-Encoding": "gzip"})
    assert answer.status == 415
    assert "send it as it is" in answer.error()
    assert front.ask("POST", INFER, texts("a"), {"Content-Encoding": "Identity"}).status == 200


def test_the_content_type_does_not_matter(front: Front) -> None:
    for kind in ("application/json; charset=utf-8", "application/octet-stream", "text/plain", ""):
        assert front.ask("POST", INFER, texts("a"), {"Content-Type": kind}).status == 200


def test_every_answer_has_the_id_of_its_request(front: Front) -> None:
    assert front.ask("GET", "/v2", headers={"X-Request-ID": "a-1"}).headers["x-request-id"] == "a-1"
    made = [front.ask("GET", path).headers["x-request-id"] for path in ("/v2", "/v2", "/none")]
    assert len(set(made)) == 3
    for wrong in ("", "a b", "a\u00e9", "x" * 129):
        answer = front.ask("GET", "/v2", headers={"X-Request-ID": wrong})
        assert answer.status == 400
        assert "128 visible ASCII" in answer.error()
        assert answer.headers["x-request-id"] not in ("", wrong)


def test_requests_are_logged_with_id_status_and_reason(
    front: Front, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "smp_pipeline.serve"):
        front.ask("POST", INFER, texts("good"), {"X-Request-ID": "one"})
        front.ask("POST", INFER, b"{", {"X-Request-ID": "two"})
        eventually(lambda: len(caplog.records) == 2)
    one, two = (vars(record)["fields"] for record in caplog.records)
    assert one["duration_ms"] > 0
    assert {**one, "duration_ms": 0} == {
        "request_id": "one",
        "protocol": "http",
        "method": "POST",
        "path": INFER,
        "model": "words",
        "status": 200,
        "duration_ms": 0,
    }
    assert (two["request_id"], two["status"]) == ("two", 400)
    assert "truncated" in two["error"]


def test_a_quiet_server_logs_only_its_own_failures(
    model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with running(model, kind=Failing, log_requests=False) as front:
        front.ask("GET", "/v2")
        assert not caplog.records
        answer = front.ask("POST", INFER, texts("good"), {"X-Request-ID": "one"})
        eventually(lambda: len(caplog.records) == 2)
    assert answer.status == 500
    assert answer.error() == "the server failed on this request; its log says more"
    traceback, line = (vars(record)["fields"] for record in caplog.records)
    assert "ZeroDivisionError" in traceback["traceback"]
    assert traceback["request_id"] == line["request_id"] == "one"
    assert line["status"] == 500


class Failing(Service):
    """A service with a mistake in it."""

    async def infer(
        self, request: InferRequest, *, timeout_s: float | None = None
    ) -> InferResponse:
        raise ZeroDivisionError


class Busy(Service):
    """A service that is full or away, as the request says."""

    async def infer(
        self, request: InferRequest, *, timeout_s: float | None = None
    ) -> InferResponse:
        if request.id == "full":
            raise Overloaded("the queue is full", retry_after_s=7)
        raise Unavailable("the model is loading")

    def ready(self) -> bool:
        return False


def test_who_should_come_back_is_told_when(model: Path) -> None:
    with running(model, kind=Busy) as front:
        full = front.ask("POST", INFER, texts("good", id="full"))
        assert (full.status, full.headers["retry-after"]) == (429, "7")
        away = front.ask("POST", INFER, texts("good"))
        assert (away.status, away.headers["retry-after"]) == (503, "1")
        ready = front.ask("GET", "/v2/health/ready")
        assert (ready.status, ready.json()) == (503, {"ready": False})
        assert ready.headers["retry-after"] == "1"
        assert front.ask("GET", "/v2/health/live").json() == {"live": True}


def test_a_token_is_wanted_for_all_but_health_and_the_page(model: Path) -> None:
    with running(model, token=TOKEN) as front:
        for path in ("/", "/openapi.json", "/v2/health/live", "/v2/health/ready"):
            assert front.ask("GET", path).status == 200
        for method, path in (
            ("GET", "/v2"),
            ("GET", "/metrics"),
            ("GET", "/none"),
            ("POST", INFER),
            ("POST", "/v2/repository/models/words/unload"),
        ):
            for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "B\u00e9"}):
                answer = front.ask(method, path, headers=headers)
                assert answer.status == 401
                assert answer.headers["www-authenticate"] == "Bearer"
                assert "token" in answer.error()
        right = {"Authorization": f"Bearer {TOKEN}"}
        assert front.ask("POST", INFER, texts("good"), right).status == 200


def test_pages_of_other_sites_cannot_use_a_visitors_browser(front: Front) -> None:
    for site, status in (("cross-site", 403), ("same-site", 403), ("same-origin", 200)):
        headers = {"Sec-Fetch-Site": site}
        assert front.ask("POST", INFER, texts("good"), headers).status == status
        # A link to the page is no harm.
        assert front.ask("GET", "/", headers=headers).status == 200
    # Over plain HTTP to another machine, browsers send the origin only.
    for headers, status in (
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": f"http://127.0.0.1:{front.port}"}, 200),
        ({"Origin": "https://models.example", "X-Forwarded-Host": "models.example"}, 200),
    ):
        assert front.ask("POST", INFER, texts("good"), headers).status == status


def samples(front: Front) -> dict[tuple[str, ...], float]:
    text = front.ask("GET", "/metrics").body.decode()
    return {
        (sample.labels["model"], sample.labels["code"]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "smp_requests_total"
    }


def test_requests_are_counted_and_made_up_names_are_no_labels(model: Path) -> None:
    with running(model) as front:
        front.ask("POST", INFER, texts("good"))
        front.ask("POST", INFER, b"")
        front.ask("POST", "/v2/models/made-up/infer", texts("good"))
        front.ask("POST", "/v2/models/made-up/infer", b"")
        assert samples(front) == {
            ("words", "200"): 1,
            ("words", "400"): 1,
            ("", "404"): 1,
            ("", "400"): 1,
        }


def test_metrics_come_in_the_format_that_is_asked_for(front: Front) -> None:
    plain = front.ask("GET", "/metrics").headers["content-type"]
    accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
    open_metrics = front.ask("GET", "/metrics", headers=accept).headers["content-type"]
    assert plain.startswith("text/plain")
    assert open_metrics.startswith("application/openmetrics-text")


def head(**headers: str) -> bytes:
    lines = [f"POST {INFER} HTTP/1.1", "host: localhost", *(f"{k}: {headers[k]}" for k in headers)]
    return "\r\n".join([*lines, "", ""]).replace("_", "-").encode()


def test_a_body_beyond_the_limit_is_refused_and_the_answer_arrives(model: Path) -> None:
    limit = 4096
    with running(model, max_request_bytes=limit) as front:
        assert front.ask("POST", INFER, b" " * limit).status == 400
        # Much more than fits in the sockets' buffers: the client is still sending when refused.
        answer = front.ask("POST", INFER, b" " * 10_000_000)
        assert answer.status == 413
        assert answer.headers["connection"] == "close"
        assert f"larger than {limit} bytes" in answer.error()
        with front.open() as connection:  # announced only
            connection.sendall(head(content_length="9999999"))
            assert connection.recv(4096).startswith(b"HTTP/1.1 413 ")
        with front.open() as connection:  # not announced
            connection.sendall(head(transfer_encoding="chunked"))
            connection.sendall(b"1000\r\n" + b" " * 0x1000 + b"\r\n" + b"1\r\n \r\n")
            assert connection.recv(4096).startswith(b"HTTP/1.1 413 ")


def test_a_body_in_pieces_is_put_together(front: Front) -> None:
    body = json.dumps(texts("good")).encode()
    with front.open() as connection:
        connection.sendall(head(transfer_encoding="chunked", connection="close"))
        for index in range(len(body)):
            connection.sendall(b"1\r\n" + body[index : index + 1] + b"\r\n")
        connection.sendall(b"0\r\nx-trailer: 1\r\n\r\n")
        assert read_all(connection).startswith(b"HTTP/1.1 200 ")


def test_a_client_that_waits_to_be_told_to_send_is_told(front: Front) -> None:
    body = json.dumps(texts("good")).encode()
    with front.open() as connection:
        connection.sendall(head(content_length=str(len(body)), expect="100-continue"))
        assert connection.recv(4096) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(body)
        assert connection.recv(4096).startswith(b"HTTP/1.1 200 ")


def test_a_body_that_comes_too_slowly_is_refused(model: Path) -> None:
    with running(model, request_timeout_s=0.3) as front, front.open() as connection:
        connection.sendall(head(content_length="100") + b"{")
        answer = read_all(connection)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"connection: close" in answer
        assert b'{"error":"the request came too slowly' in answer


class Patient(Service):
    """A service that never answers, and knows who no longer waits."""

    waiting = 0
    gone = 0

    async def infer(
        self, request: InferRequest, *, timeout_s: float | None = None
    ) -> InferResponse:
        self.waiting += 1
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.gone += 1
            raise
        raise AssertionError


def eventually(holds: Any) -> None:
    end = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_work_for_a_client_that_vanished_is_cancelled(
    model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        running(model, kind=Patient) as front,
        caplog.at_level(logging.INFO, "smp_pipeline.serve"),
    ):
        service = front.service
        assert isinstance(service, Patient)
        body = json.dumps(texts("good")).encode()
        connection = front.open()
        connection.sendall(head(content_length=str(len(body))) + body)
        eventually(lambda: service.waiting)
        assert not service.gone
        connection.close()
        eventually(lambda: service.gone)
        eventually(lambda: caplog.records)
        assert vars(caplog.records[0])["fields"]["status"] == 499
        assert samples(front)[("words", "499")] == 1


def test_a_client_that_vanished_while_it_sent_is_no_failure(
    model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with running(model) as front, caplog.at_level(logging.INFO, "smp_pipeline.serve"):
        connection = front.open()
        connection.sendall(head(content_length="100") + b"{")
        connection.close()
        eventually(lambda: caplog.records)
    assert vars(caplog.records[0])["fields"]["status"] == 499


class Clock(Service):
    """A service that only says how much time it was given."""

    async def infer(
        self, request: InferRequest, *, timeout_s: float | None = None
    ) -> InferResponse:
        raise Unavailable(f"{timeout_s} s were left")


def test_the_time_for_an_answer_counts_from_the_first_byte(model: Path) -> None:
    with running(model, kind=Clock, request_timeout_s=60.0) as front, front.open() as connection:
        body = json.dumps(texts("good")).encode()
        content = head(content_length=str(len(body)), connection="close") + body
        connection.sendall(content[:5])
        time.sleep(0.5)
        connection.sendall(content[5:])
        answer = read_all(connection)
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert 0 < float(json.loads(answer.partition(b"\r\n\r\n")[2])["error"].split()[0]) < 59.6


def test_long_names_do_not_make_long_answers(front: Front) -> None:
    body = texts("good")
    body["inputs"][0]["name"] = "x" * 100_000
    answer = front.ask("POST", INFER, body)
    assert answer.status == 400
    assert len(answer.body) < 2000
