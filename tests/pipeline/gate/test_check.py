"""From files to verdicts and baselines, in this process and through the command."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from pipeline.artifacts.benchmark import Benchmark, read_benchmark, write_benchmark
from pipeline.config import CheckConfig
from pipeline.errors import ArtifactError, DataError, MachineError
from pipeline.gate import check
from tests.pipeline.gate.edits import edited, size, unusable


@pytest.fixture
def config(measured: Benchmark, tmp_path: Path) -> CheckConfig:
    """A benchmark whose second model is larger, and its baseline."""
    write_benchmark(tmp_path / "baseline.json", edited(measured, 1, size(1000)))
    write_benchmark(tmp_path / "bench.json", edited(measured, 1, size(1100)))
    return CheckConfig(tmp_path / "bench.json", tmp_path / "baseline.json")


@pytest.fixture
def gate(command: Callable[..., Any], config: CheckConfig, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that runs `smp-pipeline check` on the two files, away from GitHub."""
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    return lambda *words: command("check", config.bench, "--baseline", config.baseline, *words)


def test_a_regression_fails(config: CheckConfig) -> None:
    assert check(config).verdict == "failed"
    assert check(dataclasses.replace(config, max_size_ratio=1.1)).verdict == "passed"


def test_files_that_cannot_be_read_or_held_against_each_other(
    config: CheckConfig, measured: Benchmark
) -> None:
    with pytest.raises(ArtifactError, match=r"absent\.json is missing"):
        check(dataclasses.replace(config, baseline=config.bench.with_name("absent.json")))
    content = json.loads(config.baseline.read_text())
    config.baseline.write_text(json.dumps({**content, "schema_version": 1}))
    with pytest.raises(ArtifactError, match=r"schema version 1.*run `smp-pipeline bench` again"):
        check(config)
    write_benchmark(config.baseline, dataclasses.replace(measured, models=measured.models[::-1]))
    with pytest.raises(DataError, match="the first model must be inverted"):
        check(config)


def test_update_replaces_the_baseline_whatever_the_verdict(config: CheckConfig) -> None:
    result = check(dataclasses.replace(config, update=True))
    assert (result.verdict, result.passed) == ("updated", True)
    assert [j.quantity for j in result.of_verdict("failed")] == ["size in MB"]
    assert config.baseline.read_bytes() == config.bench.read_bytes()
    assert check(config).verdict == "passed"


def test_update_writes_a_first_baseline(config: CheckConfig) -> None:
    config.baseline.unlink()
    result = check(dataclasses.replace(config, update=True))
    assert result.judgements == ()
    assert result.notes == (f"{config.baseline} is the first baseline.",)
    assert read_benchmark(config.baseline) == read_benchmark(config.bench)


def test_update_accepts_other_data_and_an_older_schema(
    config: CheckConfig, measured: Benchmark
) -> None:
    update = dataclasses.replace(config, update=True)
    write_benchmark(config.baseline, dataclasses.replace(measured, models=measured.models[::-1]))
    assert "the first model must be inverted" in check(update).notes[0]
    assert check(config).verdict == "passed"
    content = json.loads(config.bench.read_text())
    config.baseline.write_text(json.dumps({**content, "schema_version": 1}))
    assert "has schema version 1" in check(update).notes[0]
    assert check(config).verdict == "passed"


@pytest.mark.parametrize("content", ['{"kind": "smp-model", "schema_version": 1}', "notes"])
def test_update_overwrites_nothing_but_benchmarks(config: CheckConfig, content: str) -> None:
    config.baseline.write_text(content)
    with pytest.raises(ArtifactError):
        check(dataclasses.replace(config, update=True))
    assert config.baseline.read_text() == content


def test_update_refuses_a_benchmark_that_cannot_be_read_or_was_not_measured(
    config: CheckConfig, measured: Benchmark
) -> None:
    before = config.baseline.read_bytes()
    write_benchmark(config.bench, unusable(measured, 0))
    with pytest.raises(MachineError, match="is no baseline: the timing of 1 text of 16 tokens"):
        check(dataclasses.replace(config, update=True))
    config.bench.write_text("{}")
    with pytest.raises(ArtifactError):
        check(dataclasses.replace(config, update=True))
    assert config.baseline.read_bytes() == before
    write_benchmark(config.bench, unusable(measured, 0))
    assert check(dataclasses.replace(config, update=True, allow_unmeasured=True)).passed
    assert sorted(path.name for path in config.bench.parent.iterdir()) == [
        "baseline.json",
        "bench.json",
    ]


def test_exit_codes(gate: Any, config: CheckConfig, measured: Benchmark) -> None:
    result = gate()
    assert (result.code, result.err) == (1, "")
    assert result.out.splitlines()[-1] == "failed: 1 of 6 comparisons"
    assert gate("--max-size-ratio", 1.1).code == 0
    write_benchmark(config.bench, unusable(edited(measured, 1, size(1000)), 0))
    result = gate()
    assert result.code == 2
    assert "unusable timing" in " ".join(result.out.split())
    assert result.err == (
        f"error: {config.bench} could not be judged: 1 of 6 comparisons; run `smp-pipeline bench` "
        "again on a quieter machine, or give --allow-unmeasured\n"
    )
    assert gate("--allow-unmeasured").code == 0
    config.baseline.write_text("{}")
    result = gate()
    assert (result.code, result.out) == (2, "")
    assert result.err.count("\n") == 1


def test_update_through_the_command(gate: Any, config: CheckConfig) -> None:
    result = gate("--update")
    assert result.code == 0
    assert result.err == f"wrote {config.baseline}\n"
    assert "1.1" in result.out
    assert result.out.splitlines()[-1] == "updated"
    assert gate().code == 0
    assert "--update judges nothing" in gate("--update", "--junit", "gate.xml").err


def test_json_holds_everything(gate: Any, config: CheckConfig) -> None:
    result = gate("--json", "--github")
    content = json.loads(result.out)
    assert content["verdict"] == "failed"
    assert content["confidence"] == 0.95
    (failed,) = [j for j in content["judgements"] if j["verdict"] == "failed"]
    assert (failed["model"], failed["kind"], failed["change"]) == ("inverted", "size", 1.1)
    assert "::error title=smp-pipeline check::inverted: size in MB went from" in result.err


def test_quiet_keeps_the_annotations(gate: Any, config: CheckConfig) -> None:
    (line,) = gate("--quiet", "--github").err.splitlines()
    assert line.startswith("::error title=smp-pipeline check::inverted: size in MB")
    config.baseline.unlink()
    annotation, error = gate("--quiet", "--github").err.splitlines()
    assert annotation.startswith("::error title=smp-pipeline check::")
    assert error.startswith("error: ")


def test_junit_through_the_command(gate: Any, config: CheckConfig, tmp_path: Path) -> None:
    result = gate("--junit", tmp_path / "reports" / "gate.xml")
    assert result.code == 1
    suite = ElementTree.parse(tmp_path / "reports" / "gate.xml").getroot()[0]
    assert suite.attrib["failures"] == "1"


def test_on_github_a_refusal_is_an_annotation_too(
    gate: Any, config: CheckConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    config.baseline.unlink()
    assert "::" not in gate().err
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    annotation, error = gate().err.splitlines()
    assert annotation.startswith("::error title=smp-pipeline check::")
    assert "baseline.json is missing" in annotation
    assert error.startswith("error: ")
    assert "::" not in gate("--no-github").err
