"""The workflow that users copy: it parses, the page shows it, and its commands run."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

ROOT = Path(__file__).parents[2]
WORKFLOW = ROOT / "examples" / "github-actions" / "smp-gate.yml"


def steps() -> list[dict[str, Any]]:
    content = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))
    assert set(content) == {"name", True, "permissions", "jobs"}  # YAML 1.1 reads `on` as true
    (job,) = content["jobs"].values()
    assert all(("run" in step) != ("uses" in step) for step in job["steps"])
    return list(job["steps"])


def test_the_page_shows_the_workflow() -> None:
    page = (ROOT / "docs" / "ci-gate.md").read_text(encoding="utf-8")
    shown = re.findall(r"^```yaml\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)
    comment, _, workflow = WORKFLOW.read_text(encoding="utf-8").partition("\n")
    assert comment.startswith("# ")
    assert workflow in shown


@pytest.mark.slow
def test_its_commands_run(
    make_model: Callable[..., Path], reviews: tuple[Path, Path], tmp_path: Path
) -> None:
    for name in ("finetune", "reviews"):
        make_model(tmp_path / "models" / name, positions=128)
    (tmp_path / "validation.csv").write_bytes(reviews[1].read_bytes())
    scripts = Path(sys.executable).parent
    environment = {
        **os.environ,
        "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}",
        "GITHUB_ACTIONS": "true",
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"),
    }

    def run(command: str) -> "subprocess.CompletedProcess[str]":
        # As GitHub's runner does.
        return subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", command],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=550,
        )

    install, measure, check = [step["run"] for step in steps() if "run" in step]
    assert shlex.split(install) == ["pip", "install", "smp-pipeline[cpu,bench]"]
    done = run(measure.replace("bench", "bench --startups 1 --repetitions 5", 1))
    assert done.returncode == 0, done.stderr
    # The benchmark is its own baseline: nothing that this machine does can change the verdict.
    accept = "smp-pipeline check bench.json --baseline baseline.json --update --allow-unmeasured"
    assert run(accept).returncode == 0
    done = run(check)
    bench = json.loads((tmp_path / "bench.json").read_text(encoding="utf-8"))
    unusable = sum(cell["steadiness"]["verdict"] == "unusable" for cell in bench["cells"])
    assert done.returncode == (2 if unusable else 0), done.stderr
    assert done.stderr.count("::error ") == unusable
    suite = ElementTree.parse(tmp_path / "gate.xml").getroot()[0]
    assert int(suite.attrib["errors"]) == unusable
    assert int(suite.attrib["tests"]) == 2 * 2 + 4
    assert "smp-pipeline check:" in (tmp_path / "summary.md").read_text(encoding="utf-8")
