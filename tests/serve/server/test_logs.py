import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from serve.server.logs import LOGGER, configure_logging, log


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    before = root.handlers[:], root.level, LOGGER.level
    flags = logging.logThreads, logging.logProcesses, logging.logMultiprocessing
    yield
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    LOGGER.setLevel(before[2])
    logging.logThreads, logging.logProcesses, logging.logMultiprocessing = flags


def test_each_event_is_one_line_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging()
    log(logging.INFO, "request", request_id='a\n"b', status=200, models=["ü", "\u2028"])
    log(logging.DEBUG, "too much")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    line = json.loads(captured.err)
    age = datetime.now(UTC) - datetime.fromisoformat(line.pop("time"))
    assert timedelta(seconds=-1) < age < timedelta(minutes=5)
    assert line == {
        "level": "info",
        "event": "request",
        "request_id": 'a\n"b',
        "status": 200,
        "models": ["ü", "\u2028"],
    }


def test_what_fails_is_logged_with_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging()
    try:
        raise ValueError("unforeseen")
    except ValueError:
        LOGGER.exception("failed", extra={"fields": {"request_id": "7"}})
    line = json.loads(capsys.readouterr().err)
    assert (line["level"], line["event"], line["request_id"]) == ("error", "failed", "7")
    assert line["traceback"].endswith("ValueError: unforeseen")


def test_of_libraries_only_warnings_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging()
    logging.getLogger("some.library").info("started")
    logging.getLogger("some.library").warning("%d odd bytes", 3)
    line = json.loads(capsys.readouterr().err)
    assert (line["logger"], line["level"]) == ("some.library", "warning")
    assert line["event"] == "3 odd bytes"
