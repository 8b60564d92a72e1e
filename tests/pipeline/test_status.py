"""A line for what takes a while, where somebody watches."""

import pytest

from pipeline.status import status_line


@pytest.mark.parametrize(
    ("environment", "shown"),
    [({"FORCE_COLOR": "1"}, True), ({}, False), ({"FORCE_COLOR": "1", "RANK": "1"}, False)],
    ids=["a terminal", "no terminal", "not the main process"],
)
def test_it_is_shown_on_a_terminal_by_the_main_process(capsys, monkeypatch, environment, shown):
    monkeypatch.setenv("TERM", "xterm")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with status_line("loading the model"):
        pass
    out, err = capsys.readouterr()
    assert out == ""
    assert ("loading the model" in err) is shown
    assert (err == "") is not shown
