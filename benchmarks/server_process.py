"""`smp-pipeline serve` as a process of its own, on free ports."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

# Generous: only a server that never starts or stops waits so long.
PATIENCE_S = 60.0


class ServerProcess:
    """A server; use it as a context manager, so that it never outlives its user.

    Attributes:
        process: the process.
        events: its log so far, one JSON object a line.
        lines: what else it wrote to stderr.
    """

    def __init__(
        self,
        models: Sequence[Path],
        flags: Sequence[str] = (),
        *,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        command = [sys.executable, "-m", "pipeline", "serve", *map(str, models)]
        given = " ".join(flags)
        command += [f"{flag}=0" for flag in ("--port", "--grpc-port") if f"{flag}=" not in given]
        self.process = subprocess.Popen(
            [*command, *flags],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **(environment or {})},
        )
        self.events: list[dict[str, Any]] = []
        self.lines: list[str] = []
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reader.join()

    @property
    def port(self) -> int:
        """The HTTP port, once it is open."""
        return int(self.wait_for("listening")["port"])

    @property
    def grpc_port(self) -> int:
        """The gRPC port, once it is open."""
        return int(self.wait_for("listening")["grpc_port"])

    @property
    def rss_bytes(self) -> int:
        """Memory of the process."""
        return int(psutil.Process(self.process.pid).memory_info().rss)

    def wait_for(self, event: str) -> dict[str, Any]:
        """The first log entry of this event, once it is there.

        Raises:
            RuntimeError: the process ended, or said nothing of the kind for a minute.
        """
        end = time.monotonic() + PATIENCE_S
        with self._changed:
            while True:
                for entry in self.events:
                    if entry["event"] == event:
                        return entry
                if not self._reader.is_alive() or time.monotonic() > end:
                    raise RuntimeError(f"no event {event!r}: {self.events[-5:]} {self.lines[-20:]}")
                self._changed.wait(0.1)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def wait(self) -> int:
        """The exit code, once the process has ended by itself."""
        code = self.process.wait(PATIENCE_S)
        self._reader.join()
        return code

    def stop(self) -> int:
        """Ask it to stop, and wait; returns the exit code."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._changed:
                try:
                    self.events.append(json.loads(line))
                except ValueError:
                    self.lines.append(line.rstrip("\n"))
                self._changed.notify_all()
