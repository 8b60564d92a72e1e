"""The table for people."""

import dataclasses

import pytest

from pipeline.artifacts.benchmark import Benchmark
from pipeline.gate import print_gate
from tests.pipeline.gate.edits import edited, judged, unusable, wrong


def test_the_table_names_what_failed_and_fits_80_columns(
    measured: Benchmark, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    long = "a-rather-long-name-of-a-model-directory"
    models = (measured.models[0], dataclasses.replace(measured.models[1], name=long))
    named = dataclasses.replace(measured, models=models)
    print_gate(judged(unusable(edited(named, 0, wrong(measured, range(24))), 1), named))
    lines = capsys.readouterr().out.splitlines()
    assert all(len(line) <= 80 for line in lines)
    (failed,) = [line for line in lines if line.startswith("right") and "accuracy" in line]
    assert failed.split()[:6] == ["right", "accuracy", "0.9167", "0.5", "41.7", "0.5"]
    assert failed.split()[-1] == "failed"
    assert sum("unmeasured" in line for line in lines) == 1
    words = " ".join(" ".join(lines).split())
    assert (
        f"{long}: latency ratio, 4 texts of 16 tokens, 1 thread was not judged: unusable" in words
    )
    assert lines[-1] == "failed: 1 of 6 comparisons"
    print_gate(judged(named, named))
    assert capsys.readouterr().out.splitlines()[-1] == "passed"


def test_a_name_from_a_file_is_text_and_no_command(
    measured: Benchmark, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "[red]x\n::error::y\x1b[2J"
    models = (dataclasses.replace(measured.models[0], name=name), *measured.models[1:])
    named = dataclasses.replace(measured, models=models)
    machine = dataclasses.replace(measured.machine, cpu=name)
    print_gate(judged(dataclasses.replace(named, machine=machine), named))
    out = capsys.readouterr().out
    assert "The processor is [red]x" in out
    assert "\x1b" not in out
    assert "[red]x" in out
    assert not any(line.startswith("::") for line in out.splitlines())
