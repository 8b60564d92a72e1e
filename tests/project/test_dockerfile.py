import dataclasses
import fnmatch
import json
import re
import subprocess
import sys
import threading
import tomllib
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from pipeline.config import ServeConfig

ROOT = Path(__file__).parents[2]


def instructions() -> list[tuple[str, str]]:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = (line.strip() for line in text.splitlines())
    pairs = (line.partition(" ") for line in lines if line and not line.startswith("#"))
    return [(name, rest) for name, _, rest in pairs]


def stages() -> dict[str, list[tuple[str, str]]]:
    """The instructions by stage; the last one, which has no name, is called final."""
    found: dict[str, list[tuple[str, str]]] = {"": []}
    current = ""
    for name, rest in instructions():
        if name == "FROM":
            current = rest.partition(" AS ")[2] or "final"
            found[current] = []
        found[current].append((name, rest))
    return found


def copied_paths() -> list[str]:
    copies = [rest.split()[:-1] for name, rest in instructions() if name == "COPY"]
    return [path for words in copies if not words[0].startswith("--") for path in words]


def test_what_is_copied_exists_and_reaches_the_build() -> None:
    ignore = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert "*" in ignore
    kept = [line[1:] for line in ignore if line.startswith("!")]
    for path in copied_paths():
        assert (ROOT / path).exists(), path
        assert any(fnmatch.fnmatch(path, pattern) for pattern in kept), path


def test_every_installed_package_is_copied() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert set(project["tool"]["scikit-build"]["wheel"]["packages"]) <= set(copied_paths())


def test_the_extras_exist_and_each_image_has_one_onnx_runtime() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    known = set(project["project"]["optional-dependencies"])
    installed = {}
    for stage, content in stages().items():
        for name, rest in content:
            if name == "RUN" and (match := re.search(r'"\.\[([\w,]+)\]"', rest)):
                installed[stage] = set(match[1].split(","))
    assert installed == {
        "install-runtime": {"cpu", "serve"},
        "install-bench": {"cpu", "bench"},
        "install-train": {"train", "gpu"},
    }
    assert set.union(*installed.values()) <= known


def test_an_image_without_the_native_library_is_not_built() -> None:
    found = stages()
    assert any(
        name == "RUN" and "install" in rest and "g++" in rest for name, rest in found["base"]
    )
    for stage in ("install-runtime", "install-bench", "install-train"):
        assert found[stage][-1][1].endswith("&& smp-pipeline info --native")


def test_the_build_argument_names_a_stage_and_images_run_without_root() -> None:
    (default,) = [rest for name, rest in instructions() if rest.startswith("VARIANT=")]
    found = stages()
    assert found["final"] == [("FROM", "${VARIANT}")]
    for variant in ("runtime", "bench", "train"):
        assert found[variant][0] == ("FROM", f"user AS {variant}")
    assert default.removeprefix("VARIANT=") == "runtime"
    assert ("USER", "smp") in found["user"]


def health_command() -> list[str]:
    (rest,) = [rest for name, rest in stages()["runtime"] if name == "HEALTHCHECK"]
    command = json.loads(rest.partition("CMD ")[2])
    assert command[0] == "python"
    return [sys.executable, *command[1:]]


def test_the_ports_are_those_that_serve_listens_on() -> None:
    defaults = {field.name: field.default for field in dataclasses.fields(ServeConfig)}
    ports = [str(defaults["port"]), str(defaults["grpc_port"])]
    assert ("EXPOSE", " ".join(ports)) in stages()["runtime"]
    assert re.findall(r"\b\d{4,5}\b", " ".join(health_command()[1:])) == ports[:1]


@pytest.mark.parametrize(("status", "healthy"), [(200, True), (503, False), (404, False)])
def test_the_health_check_asks_whether_the_server_is_ready(status: int, healthy: bool) -> None:
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        command = [word.replace("8080", str(server.server_port)) for word in health_command()]
        result = subprocess.run(command, capture_output=True, timeout=60)
        server.shutdown()
    assert (asked, result.returncode == 0) == (["/v2/health/ready"], healthy)


def test_without_a_server_the_image_is_not_healthy() -> None:
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        port = str(server.server_port)
    command = [word.replace("8080", port) for word in health_command()]
    assert subprocess.run(command, capture_output=True, timeout=60).returncode != 0
