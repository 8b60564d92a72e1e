"""Try an installed smp-pipeline: python tests/project/smoke.py MODEL_DIRECTORY

The model is what smoke_model.py writes. Needs `smp-pipeline[cpu,serve]` and nothing else; run by
the interpreter of the environment that it is installed in, and best in one that has nothing else.
"""

import json
import subprocess
import sys
import sysconfig
import urllib.request
from importlib.metadata import version
from pathlib import Path

SCRIPT = Path(sysconfig.get_path("scripts"), "smp-pipeline").with_suffix(
    ".exe" if sys.platform == "win32" else ""
)


def command(*words: object, code: int = 0) -> str:
    """The output of `smp-pipeline WORDS...`, which must end with this exit code."""
    done = subprocess.run([SCRIPT, *map(str, words)], capture_output=True, text=True, timeout=60)
    assert done.returncode == code, (words, done.returncode, done.stdout, done.stderr)
    return done.stdout + done.stderr


def ask(port: int, path: str, body: object = None) -> bytes:
    """The answer to a GET, or to a POST of this body as JSON."""
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", data, timeout=30) as answer:
        content: bytes = answer.read()
        return content


def check_commands(model: Path) -> None:
    """The command line is there, and what is not installed is named."""
    assert command("--version").strip() == version("smp-pipeline")
    assert "serve" in command("--help")
    library = Path(command("info", "--native").splitlines()[0])
    assert library.is_relative_to(sysconfig.get_path("platlib")), library
    assert json.loads(command("info", model, "--json"))["format"] == "engine"
    train = ("train", "--model", model, "--train-file", "t.csv", "--validation-file", "v.csv")
    told = command(*train, "--output-dir", "run", "--density", "0.5", code=2)
    assert "pip install 'smp-pipeline[train]'" in told, told
    told = command("bench", model, "--validation-file", "v.csv", code=2)
    assert "pip install 'smp-pipeline[cpu,bench]'" in told, told


def check_server(model: Path) -> None:
    """A text goes in, its label comes out, and the page is there."""
    words = [str(SCRIPT), "serve", str(model), "--port", "0", "--grpc-port", "0"]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stderr is not None
            events = (json.loads(line) for line in server.stderr)
            port = 0
            for event in events:
                port = event.get("port", port)
                if event["event"] == "ready":
                    break
            text = {"name": "text", "datatype": "BYTES", "shape": [2], "data": ["good", "bad"]}
            answer = ask(port, f"/v2/models/{model.name}/infer", {"inputs": [text]})
            outputs = {output["name"]: output for output in json.loads(answer)["outputs"]}
            assert outputs["label"]["data"] == ["positive", "negative"], outputs
            assert b"<html" in ask(port, "/")
        finally:
            server.terminate()
            server.communicate(timeout=60)


if __name__ == "__main__":
    check_commands(Path(sys.argv[1]))
    check_server(Path(sys.argv[1]))
    print(f"smp-pipeline {version('smp-pipeline')} works")
