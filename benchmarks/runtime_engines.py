"""The engines that benchmarks/runtime.py compares, and the worker processes that run them."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import MachineError

ROOT = Path(__file__).parent.parent
WORKER = Path(__file__).with_name("runtime_worker.py")
REQUIREMENTS = ROOT / "requirements"


@dataclass(frozen=True)
class Engine:
    """A way to run a model.

    Attributes:
        name: as in ``--engines``.
        kind: the worker's kind.
        file: the model file that it runs, below the model's directory.
        sparse: whether its speed depends on the zeros in the weights.
        title: for the report.
    """

    name: str
    kind: str
    file: str
    sparse: bool
    title: str


ENGINES = {
    engine.name: engine
    for engine in (
        Engine("ort-fp32", "onnxruntime", "dense.onnx", False, "ONNX Runtime fp32"),
        Engine("ort-int8", "onnxruntime", "dynamic-int8.onnx", False, "ONNX Runtime dynamic int8"),
        Engine("openvino-int8", "openvino", "static-qdq.onnx", False, "OpenVINO int8"),
        Engine("deepsparse-fp32", "deepsparse", "dense.onnx", True, "DeepSparse fp32"),
        Engine("deepsparse-int8", "deepsparse", "static-qoperator.onnx", True, "DeepSparse int8"),
        Engine("engine-fp32", "engine", "engine-fp32/model.onnx", True, "engine fp32"),
        Engine("engine-int8", "engine", "engine-int8/model.onnx", True, "engine int8"),
    )
}
OPTIONAL = ("openvino", "deepsparse")


@dataclass(frozen=True)
class Subject:
    """An engine with a model: what is timed.

    Attributes:
        engine: the engine.
        model: the model's name in the report, for instance ``density 0.1``; None if the engine's
            speed is the same for all models of the measurement.
        path: the model file.
        vocabulary: number of token ids to draw from.
    """

    engine: Engine
    model: str | None
    path: Path
    vocabulary: int

    @property
    def key(self) -> str:
        """How results name it."""
        return self.engine.name if self.model is None else f"{self.engine.name}@{self.model}"


def find_python(kind: str, *, install: bool) -> Path | None:
    """The interpreter for a kind of worker; None if its environment is not there.

    Args:
        kind: the worker's kind.
        install: make the environment of an optional engine if it is not there.

    Raises:
        MachineError: the environment cannot be made.
    """
    if kind not in OPTIONAL:
        return Path(sys.executable)
    directory = ROOT / f".venv-{kind}"
    python = directory / "bin" / "python"
    mark = directory / ".installed"
    if mark.is_file():
        return python
    if not install:
        return None
    requirements = REQUIREMENTS / f"{kind}.txt"
    print(f"installing {kind} into {directory.name}", file=sys.stderr, flush=True)
    quiet = ("--quiet", "--disable-pip-version-check", "--no-input")
    for command in (
        [sys.executable, "-m", "venv", str(directory)],
        [str(python), "-m", "pip", "install", *quiet, "--requirement", str(requirements)],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise MachineError(
                f"requirements/{requirements.name} cannot be installed ({reason}); "
                f"leave the engines of {kind} out of --engines"
            )
    mark.touch()
    return python


class WorkerProcess:
    """One engine with one model in a process of its own; stopped whenever it is not asked."""

    def __init__(self, subject: Subject, python: Path, log: Path) -> None:
        self.subject = subject
        self._log = log
        environment = dict(os.environ)
        if subject.engine.kind == "engine":
            environment["PYTHONPATH"] = str(ROOT)
        environment.pop("OMP_NUM_THREADS", None)  # the command `open` says how many
        with log.open("w") as errors:
            self._process = subprocess.Popen(
                [str(python), str(WORKER), subject.engine.kind],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=environment,
            )

    def open(self, threads: int, shape: tuple[int, int]) -> dict[str, Any]:
        """Open the model; returns load time, memory before and after, and the version."""
        return self.ask(
            "open",
            model=str(self.subject.path),
            threads=threads,
            vocabulary=self.subject.vocabulary,
            shape=shape,
        )

    def time(self, warmup: int, runs: int) -> list[float]:
        """Milliseconds of each of ``runs`` runs, after ``warmup`` others."""
        times: list[float] = self.ask("time", warmup=warmup, runs=runs)["ms"]
        return times

    def logits(self, inputs: Path, output: Path) -> NDArray[np.float32]:
        """Logits, float32 [texts, outputs], of the batches in a .npz file."""
        self.ask("logits", inputs=str(inputs), output=str(output))
        found: NDArray[np.float32] = np.load(output)
        return found

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Send a command and wait for its answer.

        Raises:
            MachineError: the command failed, or the process died.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.send_signal(signal.SIGCONT)
        try:
            self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            code = self._process.wait()
            raise MachineError(
                f"the worker of {self.subject.key} died (exit code {code}); see {self._log}"
            )
        # Whatever threads of the engine still spin would take time from the next one.
        self._process.send_signal(signal.SIGSTOP)
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise MachineError(
                f"{self.subject.key} cannot {do} {self.subject.path}: {answer['error']}; "
                f"see {self._log}, or leave it out of --engines"
            )
        return answer

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()


@contextmanager
def worker_processes(
    subjects: Sequence[Subject], pythons: dict[str, Path], logs: Path
) -> Iterator[list[WorkerProcess]]:
    """One process a subject; all are ended at the end, whatever happens."""
    logs.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        workers = []
        for subject in subjects:
            log = logs / f"{subject.key.replace(' ', '-')}.log"
            worker = WorkerProcess(subject, pythons[subject.engine.kind], log)
            stack.callback(worker.close)
            workers.append(worker)
        yield workers
