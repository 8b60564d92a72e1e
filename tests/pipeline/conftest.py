"""The command line as the console script calls it, and a benchmark that no machine disturbs."""

import sys
from collections.abc import Callable
from typing import NamedTuple

import pytest

from pipeline.artifacts.benchmark import Benchmark
from tests.pipeline.gate.edits import edited, ratio, steady, wrong


@pytest.fixture(scope="session")
def measured(benchmark: Benchmark) -> Benchmark:
    """Two models, each wrong on another four of 48 examples; the second takes half the time."""
    benchmark = edited(steady(benchmark), 0, wrong(benchmark, range(4)))
    return edited(benchmark, 1, wrong(benchmark, range(4, 8)), ratio(0.5))


class Result(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Result]:
    """A function that runs ``smp-pipeline WORDS...`` on an 80-column terminal-less stdout."""
    from pipeline.__main__ import main

    def run(*words: object) -> Result:
        monkeypatch.setenv("COLUMNS", "80")
        monkeypatch.setattr(sys, "argv", ["smp-pipeline", *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit:
            main()
        out, err = capsys.readouterr()
        return Result(exit.value.code or 0, out, err)

    return run
