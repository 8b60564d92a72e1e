"""A server as a process of its own, and questions whose right answers are known."""

import http.client
import json
import ssl
import time
from collections.abc import Callable, Mapping

import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.http_load import Answer, Question
from benchmarks.server_process import PATIENCE_S, ServerProcess
from tests.made_up_data import NEGATIVE, NEUTRAL, POSITIVE

__all__ = [
    "Answer",
    "Question",
    "ServerProcess",
    "ask",
    "count_words",
    "eventually",
    "metrics",
    "numbered",
    "reason",
]

# Words of one kind that a text may have; the word counter reads 30 words.
_MOST = 30


def ask(
    port: int,
    method: str,
    path: str,
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
    *,
    tls: ssl.SSLContext | None = None,
) -> Answer:
    """Send one request on a connection of its own."""
    connection = (
        http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
        if tls is None
        else http.client.HTTPSConnection("127.0.0.1", port, timeout=PATIENCE_S, context=tls)
    )
    try:
        connection.request(method, path, body or None, dict(headers or {}))
        response = connection.getresponse()
        lower = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, lower, response.read())
    finally:
        connection.close()


def reason(answer: Answer) -> str:
    """Why a request was refused."""
    return str(json.loads(answer.body)["error"])


def metrics(port: int) -> dict[tuple[str, ...], float]:
    """All samples of /metrics: name and label values in the order of their names -> value."""
    text = ask(port, "GET", "/metrics").body.decode()
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def eventually(holds: Callable[[], bool]) -> None:
    """Wait until something holds; fails if it never does."""
    end = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < end, "it never came about"
        time.sleep(0.02)


def count_words(model: str, *counts: int) -> Question:
    """One text for each count of positive (or, below 0, negative) words."""
    texts = tuple(
        " ".join(
            (POSITIVE if count > 0 else NEGATIVE)[index % len(POSITIVE)]
            for index in range(abs(count))
        )
        or NEUTRAL[0]
        for count in counts
    )
    logits = np.array([[-count, count] for count in counts], dtype=np.float32)
    return Question(model, texts, logits)


def numbered(model: str, number: int) -> Question:
    """A question that only its own answer fits: the texts' logits are the digits of a number."""
    base = 2 * _MOST + 1
    # Times a number that shares no divisor with the base, so that all digits differ early on.
    number = 77_777 * number % base**3
    digits = [number % base, number // base % base, number // base**2]
    return count_words(model, *(digit - _MOST for digit in digits))
