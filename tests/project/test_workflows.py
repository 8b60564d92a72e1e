"""What .github/workflows and cibuildwheel's settings name is there."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
WORKFLOWS = ROOT / ".github" / "workflows"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def jobs(name: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((WORKFLOWS / name).read_text(encoding="utf-8"))["jobs"]
    return content


@pytest.mark.parametrize("path", sorted(WORKFLOWS.glob("*.yml")), ids=lambda path: path.name)
def test_a_workflow_calls_what_exists(path: Path) -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    for job in jobs(path.name).values():
        rows = job.get("strategy", {}).get("matrix", {}).get("include", [{}])
        commands = [step["run"] for step in job["steps"] if "run" in step]
        for command in commands:
            for row in rows:
                for key, value in row.items():
                    command = command.replace(f"${{{{ matrix.{key} }}}}", value)
                if target := re.search(r"\bmake ([^\s]+)", command):
                    assert target[1] in targets, command
            for script in re.findall(r"\.ci/\w+", command):
                assert (ROOT / script).is_file(), command


def test_the_versions_that_are_tested_begin_with_the_oldest_python() -> None:
    rows = {row["versions"]: row["python"] for row in versions_matrix()}
    assert f">={rows['lowest']}" == PROJECT["project"]["requires-python"]
    assert set(rows) == {"lowest", "highest"}


def versions_matrix() -> list[dict[str, str]]:
    rows: list[dict[str, str]] = jobs("test.yml")["versions"]["strategy"]["matrix"]["include"]
    return rows


def test_only_a_tag_is_published_and_only_with_all_that_was_built() -> None:
    release = jobs("release.yml")
    publish = release.pop("publish")
    assert publish["if"] == "github.event_name == 'push'"
    assert publish["permissions"] == {"id-token": "write"}
    assert set(publish["needs"]) == set(release)
    triggers = yaml.safe_load((WORKFLOWS / "release.yml").read_text(encoding="utf-8"))[True]  # `on`
    assert triggers["push"] == {"tags": ["v*"]}


def test_cibuildwheel_starts_with_the_oldest_python_and_tries_what_it_built() -> None:
    settings = PROJECT["tool"]["cibuildwheel"]
    first = settings["build"][0].removesuffix("-*")
    assert f">={first[2]}.{first[3:]}" == PROJECT["project"]["requires-python"]
    assert set(settings["test-extras"]) <= set(PROJECT["project"]["optional-dependencies"])
    scripts = re.findall(r"\{project\}/(\S+)", " ".join(settings["test-command"]))
    assert [Path(script).name for script in scripts] == ["smoke_model.py", "smoke.py"]
    assert all((ROOT / script).is_file() for script in scripts)
