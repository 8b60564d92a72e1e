"""Annotations and the step summary, by the rules of workflow commands."""

import dataclasses
import re
from pathlib import Path

import pytest

from pipeline.artifacts.benchmark import Benchmark
from pipeline.config import CheckConfig
from pipeline.gate.github import annotation, report_to_github, wants_github
from tests.pipeline.gate.edits import edited, judged, size, unusable


def test_an_annotation_is_one_line_whatever_the_message() -> None:
    line = annotation("error", "100 %: a,b\r\n::error::x%0A")
    assert line == "::error title=smp-pipeline check::100 %25: a,b%0D%0A::error::x%250A"


def test_each_comparison_that_did_not_pass_is_annotated(
    measured: Benchmark, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    new = dataclasses.replace(measured.models[1], name="new\n::stop-commands::x")
    bench = dataclasses.replace(measured, models=(*measured.models, new))
    bench = edited(unusable(bench, 0), 0, size(10**9))
    report_to_github(judged(bench, measured))
    out, err = capsys.readouterr()
    assert out == ""
    levels = [re.match("::([a-z]+) title=smp-pipeline check::.", line) for line in err.splitlines()]
    assert [level[1] for level in levels if level] == ["error", "error", *["notice"] * 4]
    assert len(levels) == 6


def test_what_an_update_accepts_is_no_error(
    measured: Benchmark, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    result = judged(edited(measured, 0, size(10**9)), measured)
    report_to_github(dataclasses.replace(result, verdict="updated"))
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("::notice title=smp-pipeline check::right: size in MB went from")


def test_a_pass_is_not_annotated_and_stands_in_the_summary(
    measured: Benchmark,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    summary = tmp_path / "summary.md"
    summary.write_text("before\n", encoding="utf-8")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    report_to_github(judged(measured, measured))
    assert capsys.readouterr() == ("", "")
    text = summary.read_text(encoding="utf-8")
    assert text.startswith("before\n### smp-pipeline check: passed\n")
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + 6
    assert {row.count(" | ") for row in rows} == {7}
    assert all(row.endswith("| passed |") for row in rows[2:])


@pytest.mark.parametrize(
    ("flag", "variable", "wanted"),
    [
        (None, None, False),
        (None, "true", True),
        (None, "1", False),
        (True, None, True),
        (False, "true", False),
    ],
)
def test_the_flag_decides_else_the_environment(
    flag: bool | None, variable: str | None, wanted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    if variable is not None:
        monkeypatch.setenv("GITHUB_ACTIONS", variable)
    assert wants_github(CheckConfig(Path("a"), Path("b"), github=flag)) is wanted
