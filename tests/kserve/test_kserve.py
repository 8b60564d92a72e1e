"""The KServe SDK and us: its models of our manifests, its clients with our server.

The SDK is in an environment of its own, as it brings half a gigabyte with it.
"""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tests.serve.server.running import ServerProcess

HERE = Path(__file__).parent
DEPLOY = HERE.parents[1] / "deploy"
TEXTS = ["good film", "a bad and dull and awful plot was good", "the actor"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        "SMP_KSERVE_PYTHON" not in os.environ,
        reason="SMP_KSERVE_PYTHON names no interpreter with requirements/kserve.txt",
    ),
]


def run_script(name: str, *arguments: object) -> Any:
    process = subprocess.run(
        [os.environ["SMP_KSERVE_PYTHON"], HERE / name, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=550,
    )
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout)


def without_image(container: dict[str, Any]) -> None:
    container["imag"] = container.pop("image")


def without_name(container: dict[str, Any]) -> None:
    del container["name"]


def with_port_as_text(container: dict[str, Any]) -> None:
    container["ports"] = [{"containerPort": "8080"}]


def with_a_snake(container: dict[str, Any]) -> None:
    container["livenessProbe"]["period_seconds"] = container["livenessProbe"].pop("periodSeconds")


MISTAKES: dict[str, Callable[[dict[str, Any]], None]] = {
    "has no 'imag'": without_image,
    "name\n  Field required": without_name,
    "expected int, got '8080'": with_port_as_text,
    "has no 'period_seconds'": with_a_snake,
}


def test_the_manifests_fit_the_models_and_mistakes_do_not(tmp_path: Path) -> None:
    files = sorted(DEPLOY.glob("*/*.yaml"))
    spoiled = {}
    for directory, name in (("kubernetes", "deployment"), ("kserve", "runtime")):
        for number, (expected, spoil) in enumerate(MISTAKES.items()):
            manifest = yaml.safe_load((DEPLOY / directory / f"{name}.yaml").read_text("utf-8"))
            spec = manifest["spec"]
            spoil(spec.get("template", {"spec": spec})["spec"]["containers"][0])
            path = tmp_path / f"{name}-{number}.yaml"
            path.write_text(yaml.safe_dump(manifest), encoding="utf-8")
            spoiled[str(path)] = expected
    found = run_script("manifests.py", *files, *spoiled)
    assert [line for file in files for line in found[str(file)]] == []
    for path, expected in spoiled.items():
        (line,) = found[path]
        assert expected in line


def test_the_clients_of_the_sdk_work_unchanged(server: ServerProcess, tmp_path: Path) -> None:
    texts = tmp_path / "texts.json"
    texts.write_text(json.dumps(TEXTS), encoding="utf-8")
    found = run_script("clients.py", server.port, server.grpc_port, "words", texts)
    logits = np.array([[-1.0, 1.0], [2.0, -2.0], [0.0, 0.0]])
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    for protocol, kinds in (("http", ("json", "binary")), ("grpc", ("typed", "binary"))):
        answers = found[protocol]
        assert answers["live"] is answers["ready"] is answers["model_ready"] is True
        for kind in kinds:
            answer = answers[kind]
            assert (answer["id"], answer["model"]) == ("7", "words")
            assert answer["names"] == ["label", "probabilities"]
            assert answer["labels"] == ["1", "0", "0"]
            np.testing.assert_allclose(answer["probabilities"], expected, rtol=1e-6)
    assert found["http"]["unknown_ready"] is False
    assert "404" in found["http"]["refused"]
    assert found["grpc"]["refused"].startswith("NOT_FOUND: ")
