"""With --quiet nothing but errors reaches stderr, from whichever package it comes."""

import logging
import sys

import pytest
from rich.console import Console
from rich.progress import track

from pipeline.quiet import error_stream, only_errors


def test_bars_notes_and_log_lines_are_kept_off_and_come_back(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich then draws as on a terminal
    logger = logging.getLogger("some.library")
    logger.addHandler(handler := logging.StreamHandler(error_stream()))
    try:
        with only_errors():
            print("note", file=sys.stderr)
            list(track([1, 2], console=Console(stderr=True)))
            logger.warning("odd")
            logger.error("broken")
            print("result")
        logger.warning("odd again")
    finally:
        logger.removeHandler(handler)
    out, err = capsys.readouterr()
    assert out == "result\n"
    assert err.splitlines() == ["broken", "odd again"]


def test_an_error_ends_the_quiet(capsys):
    with pytest.raises(ValueError), only_errors():
        raise ValueError
    print("note", file=sys.stderr)
    assert capsys.readouterr().err == "note\n"
    assert error_stream() is sys.stderr


def test_errors_have_their_stream_within(capsys):
    with only_errors():
        assert sys.stderr is not error_stream()
        print("broken", file=error_stream())
    assert capsys.readouterr().err == "broken\n"
