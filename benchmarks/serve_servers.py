"""The servers that benchmarks/serve.py compares, each in a process of its own."""

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import psutil

from pipeline.errors import MachineError

ROOT = Path(__file__).parent.parent
_Found = TypeVar("_Found")

_START_S = 60
_STOP_S = 30


@dataclass(frozen=True)
class Variant:
    """A way to serve a model.

    Attributes:
        key: how results name it.
        title: for the report.
        clients: the numbers of clients that it is measured with.
        flags: of `smp-pipeline serve`.
        kserve: whether it is the KServe SDK's server.
        grpc: whether it is asked over gRPC, at the process of the variant `http`.
    """

    key: str
    title: str
    clients: tuple[int, ...]
    flags: tuple[str, ...] = ()
    kserve: bool = False
    grpc: bool = False


class Server:
    """A server with one model.

    Attributes:
        variant: what it is.
        model: the name of its model.
        url: where it takes inference requests.
        grpc_target: host and port for gRPC; None if it has none.
    """

    def __init__(self, variant: Variant, directory: Path, log: Path, kserve_python: Path) -> None:
        self.variant = variant
        self.model = directory.name
        self.grpc_target: str | None = None
        self._log = log
        if variant.kserve:
            port = _free_port()
            command = [str(kserve_python), "-m", "benchmarks.serve_kserve", str(directory)]
            command += [self.model, str(port)]
        else:
            command = [sys.executable, "-m", "pipeline", "serve", str(directory)]
            command += ["--port", "0", "--grpc-port", "0", *variant.flags]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        environment.pop("OMP_NUM_THREADS", None)
        with log.open("w") as errors, log.with_suffix(".out").open("w") as output:
            process = subprocess.Popen(
                command, stdout=output, stderr=errors, env=environment, cwd=ROOT
            )
        self._process = psutil.Process(process.pid)
        self._popen = process
        try:
            base = f"http://127.0.0.1:{port}" if variant.kserve else self._announced()
            self.url = f"{base}/v2/models/{self.model}/infer"
            self._wait(lambda: _is_ready(f"{base}/v2/models/{self.model}/ready") or None)
        except BaseException:
            self.close()
            raise

    def infer(self, body: str) -> dict[str, Any]:
        """One request's outputs: name -> data."""
        request = urllib.request.Request(
            self.url, body.encode(), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=_STOP_S) as response:
                outputs = json.load(response)["outputs"]
        except (OSError, ValueError, KeyError) as error:
            raise MachineError(
                f"{self.variant.title} did not answer a request ({error}); see {self._log}"
            ) from error
        return {output["name"]: output["data"] for output in outputs}

    def cpu_s(self) -> float:
        """CPU time that the process has taken so far."""
        times = self._process.cpu_times()
        return float(times.user + times.system)

    def rss_bytes(self) -> int:
        """Memory of the process now."""
        return int(self._process.memory_info().rss)

    def close(self) -> None:
        """Stop it."""
        self._popen.terminate()
        try:
            self._popen.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()

    def _announced(self) -> str:
        """The HTTP address that `smp-pipeline serve` prints; notes the one for gRPC."""

        def find() -> re.Match[str] | None:
            text = self._log.with_suffix(".out").read_text(encoding="utf-8")
            return re.search(r"serving at (http://\S+?)/(?:, gRPC at (\S+?))?;", text)

        found = self._wait(find)
        self.grpc_target = found[2]
        return str(found[1])

    def _wait(self, condition: Callable[[], _Found | None]) -> _Found:
        """What a condition gives as soon as it gives something."""
        deadline = time.monotonic() + _START_S
        while not (found := condition()):
            if self._popen.poll() is not None or time.monotonic() > deadline:
                lines = self._log.read_text(encoding="utf-8").strip().splitlines()
                raise MachineError(
                    f"{self.variant.title} did not start "
                    f"({lines[-1] if lines else 'no message'}); see {self._log}"
                )
            time.sleep(0.05)
        return found


def start_servers(
    variants: Sequence[Variant], directory: Path, logs: Path, kserve_python: Path
) -> dict[str, Server]:
    """One process a variant that needs one: key -> server."""
    logs.mkdir(parents=True, exist_ok=True)
    servers: dict[str, Server] = {}
    try:
        for variant in variants:
            if not variant.grpc:
                log = logs / f"{directory.name}-{variant.key}.log"
                servers[variant.key] = Server(variant, directory, log, kserve_python)
    except BaseException:
        stop_servers(servers)
        raise
    return servers


def stop_servers(servers: dict[str, Server]) -> None:
    """Stop all."""
    for server in servers.values():
        server.close()


def _is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return bool(response.status == 200)
    except urllib.error.HTTPError:
        return False
    except OSError:
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
