"""Load on a server of benchmarks/serve.py: so many clients, each with one request at a time."""

import json
import resource
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.serve_servers import Server
from pipeline.errors import MachineError

_SCRIPT = Path(__file__).with_name("serve_wrk.lua")


@dataclass(frozen=True)
class Load:
    """What one turn of load measured.

    Attributes:
        requests: answered requests.
        seconds: how long it took.
        p50_ms: median time of a request.
        p99_ms: its 99th percentile.
        client_cpu_s: CPU time of the load generator.
    """

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    client_cpu_s: float


def need_wrk() -> None:
    """Check that the HTTP load generator is there.

    Raises:
        MachineError: it is not.
    """
    if shutil.which("wrk") is None:
        raise MachineError("wrk, the HTTP load generator, is missing; apt-get install wrk")


def http_load(url: str, bodies: Path, first: int, clients: int, seconds: int) -> Load:
    """Post bodies with wrk, over connections that stay open.

    Args:
        url: what to post to.
        bodies: one body a line.
        first: number of the line before the one to begin with.
        clients: connections, each with one request at a time.
        seconds: how long.

    Raises:
        MachineError: wrk failed, or a request got another answer than 200, or none.
    """
    command = ["wrk", "--threads", "1", "--connections", str(clients), "--duration", f"{seconds}s"]
    before = _children_cpu_s()
    answer = _run([*command, "--script", str(_SCRIPT), url, "--", str(bodies), str(first)], url)
    return _load({**answer, "client_cpu_s": _children_cpu_s() - before}, url)


def grpc_load(server: Server, texts: Path, first: int, clients: int, seconds: int) -> Load:
    """Call ModelInfer from a Python process, over one connection a client.

    Args:
        server: the server.
        texts: a JSON list of texts.
        first: number of the text to begin with.
        clients: connections, each with one request at a time.
        seconds: how long.

    Raises:
        MachineError: the client failed, or a request was not answered.
    """
    target = f"{server.grpc_target}"
    command = [sys.executable, "-m", "benchmarks.serve_grpc", target, server.model, str(texts)]
    command += map(str, (first, clients, seconds))
    return _load(_run(command, target), target)


def _run(command: Sequence[str], target: str) -> dict[str, float]:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise MachineError(f"{command[0]} cannot send requests to {target}: {reason}")
    answer: dict[str, float] = json.loads(lines[-1])
    return answer


def _load(answer: dict[str, float], target: str) -> Load:
    refused, lost = answer.pop("refused"), answer.pop("lost")
    if refused or lost or not answer["requests"]:
        raise MachineError(
            f"{target} answered {answer['requests']} requests, refused {refused} and lost {lost}; "
            "see its log in --work-dir"
        )
    return Load(**answer)  # type: ignore[arg-type]


def _children_cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
