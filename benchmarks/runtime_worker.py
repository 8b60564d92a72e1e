"""One engine in a process of its own: takes commands as lines of JSON, answers in lines of JSON.

Run as ``PYTHON runtime_worker.py KIND`` by benchmarks/runtime_engines.py. PYTHON may be that of an
environment with nothing of this project, so this file needs numpy and the engine's package alone.

Commands, each an object with ``do``: ``open`` (model, threads, vocabulary, shape), ``shape``
(shape), ``time`` (warmup, runs), ``logits`` (inputs, output), ``report``, ``memory``. An answer is
an object; with ``error``, one line, if the command failed.
"""

import gc
import importlib.metadata
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, TextIO

import numpy as np

INPUTS = 3  # of the graph that DeepSparse gets, which must know them before it reads the graph


class Backend:
    """An engine that has one model open.

    Attributes:
        package: whose version is reported.
        static_shapes: whether a model is compiled for one shape.
        names: the inputs of the open model.
    """

    package: str
    static_shapes = False
    names: list[str]

    def open(self, model: str, threads: int, shape: tuple[int, int]) -> None:
        """Open a model file for inputs of a shape, [batch, sequence]."""
        raise NotImplementedError

    def run(self, inputs: dict[str, Any]) -> Any:
        """Run once on int64 inputs, [batch, sequence]; returns the logits."""
        raise NotImplementedError

    def report(self) -> dict[str, Any]:
        """Plan, and seconds by stage since the last report; empty if it knows of none."""
        return {}


class OnnxRuntime(Backend):
    """ONNX Runtime as it comes: its own graph optimisations and its threads' usual waiting."""

    package = "onnxruntime"

    def __init__(self) -> None:
        import onnxruntime

        self._module = onnxruntime

    def options(self, threads: int) -> Any:
        """Settings of the session."""
        options = self._module.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        return options

    def open(self, model: str, threads: int, shape: tuple[int, int]) -> None:
        """Open it for any shape."""
        self._session = self._module.InferenceSession(
            model, self.options(threads), providers=["CPUExecutionProvider"]
        )
        self.names = [entry.name for entry in self._session.get_inputs()]

    def run(self, inputs: dict[str, Any]) -> Any:
        """Run once."""
        return self._session.run(None, inputs)[0]


class Engine(OnnxRuntime):
    """ONNX Runtime with this project's operators."""

    def __init__(self) -> None:
        super().__init__()
        from pipeline import native

        self._native = native

    def options(self, threads: int) -> Any:
        """The same, with the operators."""
        options = super().options(threads)
        self._native.register(options)
        return options

    def report(self) -> dict[str, Any]:
        """What the native library says of the open model."""
        content = dict(self._native.report())
        self._native.reset_profile()
        return content


class OpenVino(Backend):
    """OpenVINO, compiled for one shape, with the settings that it recommends for latency."""

    package = "openvino"
    static_shapes = True

    def __init__(self) -> None:
        import openvino

        self._core = openvino.Core()

    def open(self, model: str, threads: int, shape: tuple[int, int]) -> None:
        """Compile it."""
        graph = self._core.read_model(model)
        self.names = [entry.get_any_name() for entry in graph.inputs]
        graph.reshape({name: list(shape) for name in self.names})
        settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
        self._request = self._core.compile_model(graph, "CPU", settings).create_infer_request()

    def run(self, inputs: dict[str, Any]) -> Any:
        """Run once."""
        return self._request.infer(inputs)[0]


class DeepSparse(Backend):
    """DeepSparse, compiled for one shape."""

    package = "deepsparse"
    static_shapes = True

    def __init__(self) -> None:
        os.environ["NM_DISABLE_ANALYTICS"] = "True"  # read when the package is imported
        import deepsparse  # type: ignore[import-not-found]

        self._module = deepsparse

    def open(self, model: str, threads: int, shape: tuple[int, int]) -> None:
        """Compile a copy of it: compile_model writes the shape into the file that it is given."""
        with tempfile.TemporaryDirectory() as directory:
            copy = shutil.copy(model, directory)
            self._engine = self._module.compile_model(
                copy, batch_size=shape[0], num_cores=threads, input_shapes=[list(shape)] * INPUTS
            )
        self.names = list(self._engine.input_names)

    def run(self, inputs: dict[str, Any]) -> Any:
        """Run once."""
        return self._engine.run([inputs[name] for name in self.names])[0]


KINDS = {
    "onnxruntime": OnnxRuntime,
    "engine": Engine,
    "openvino": OpenVino,
    "deepsparse": DeepSparse,
}


class Worker:
    """What one engine does for each command."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._engine: Any = KINDS[kind]()
        self._shape = (0, 0)

    def do_open(self, model: str, threads: int, vocabulary: int, shape: list[int]) -> Any:
        """Open a model; answers with the load time and the memory before and after."""
        self._model, self._threads, self._vocabulary = model, threads, vocabulary
        before = memory()
        load_ms = self._open((shape[0], shape[1]))
        self._fill()
        return {
            "load_ms": load_ms,
            "before": before,
            "loaded": memory(),
            "version": importlib.metadata.version(self._engine.package),
        }

    def do_shape(self, shape: list[int]) -> Any:
        """Take inputs of another shape from now on."""
        if self._engine.static_shapes and (shape[0], shape[1]) != self._shape:
            self._engine = None  # free the old one first: two are large
            gc.collect()
            self._engine = KINDS[self._kind]()
            self._open((shape[0], shape[1]))
        self._shape = (shape[0], shape[1])
        self._fill()
        return {}

    def do_time(self, warmup: int, runs: int) -> Any:
        """Milliseconds of each run."""
        for _ in range(warmup):
            self._engine.run(self._inputs)
        times = []
        for _ in range(runs):
            start = time.perf_counter_ns()
            self._engine.run(self._inputs)
            times.append((time.perf_counter_ns() - start) / 1e6)
        return {"ms": times}

    def do_logits(self, inputs: str, output: str) -> Any:
        """``inputs``: a .npz file with ``NAME/0``, ``NAME/1`` ..., each int64 [batch, sequence]."""
        arrays = np.load(inputs)
        rows = []
        for batch in range(len({name.partition("/")[2] for name in arrays})):
            batch_inputs = {name: arrays[f"{name}/{batch}"] for name in self._engine.names}
            rows.append(np.array(self._engine.run(batch_inputs)))
        np.save(output, np.concatenate(rows))
        return {}

    def do_report(self) -> Any:
        """What the engine says of its plan and stages; its times start anew."""
        return self._engine.report()

    def do_memory(self) -> Any:
        """Memory of the process."""
        return memory()

    def _open(self, shape: tuple[int, int]) -> float:
        start = time.perf_counter()
        self._engine.open(self._model, self._threads, shape)
        self._shape = shape
        return (time.perf_counter() - start) * 1000.0

    def _fill(self) -> None:
        ids = np.random.default_rng(0).integers(0, self._vocabulary, self._shape, dtype=np.int64)
        self._inputs = {name: np.zeros_like(ids) for name in self._engine.names}
        self._inputs["input_ids"] = ids
        if "attention_mask" in self._inputs:
            self._inputs["attention_mask"] = np.ones_like(ids)


def memory() -> dict[str, int]:
    """Bytes that the process holds: resident, resident and not of a file, and the peak."""
    names = {"VmRSS": "resident", "RssAnon": "anonymous", "VmHWM": "peak"}
    found = {}
    for line in Path("/proc/self/status").read_text().splitlines():
        key, _, value = line.partition(":")
        if key in names:
            found[names[key]] = int(value.split()[0]) * 1024
    return found


def serve(kind: str, commands: TextIO, answers: TextIO) -> None:
    worker: Any = None
    for line in commands:
        command = json.loads(line)
        try:
            if worker is None:
                worker = Worker(kind)
            answer = getattr(worker, f"do_{command.pop('do')}")(**command)
        except Exception as error:  # each engine has its own exceptions
            text = (str(error).strip().splitlines() or [""])[0]
            answer = {"error": f"{type(error).__name__}: {text}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    # Engines print on stdout too, some from C++: the pipe to the parent gets a number of its own.
    pipe = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    serve(sys.argv[1], sys.stdin, pipe)
