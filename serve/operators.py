"""Which kernels a model runs, and the time by operator, measured in a process of its own.

Run as ``python -m serve.operators TASK``, a :class:`serve.child.ChildTask` as JSON. A fresh
process, because the native library reports on all sessions of a process, and because ONNX Runtime's
profiler would slow down what is timed elsewhere.
"""

import json
import sys
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline import native
from pipeline.artifacts.benchmark import OperatorProfile
from pipeline.artifacts.manifest import from_json
from serve.child import ChildTask, print_measured, run_child
from serve.session import Session

__all__ = ["RUNS", "measure_operators"]

RUNS = 10
_WARMUP = 3


def measure_operators(
    session: Session, *, batch_size: int, sequence_length: int
) -> OperatorProfile:
    """Profile one model.

    Args:
        session: the model; it is opened anew, as it is here.
        batch_size: texts a run.
        sequence_length: tokens a text.

    Raises:
        MachineError: the process died, for instance for want of memory.
    """
    task = ChildTask.of(session, batch_size, sequence_length)
    content = run_child("serve.operators", task, what="the time by operator")
    return from_json(OperatorProfile, content, source=task.source.path)


def _measure(task: ChildTask) -> Mapping[str, Any]:
    """An :class:`OperatorProfile` as JSON."""
    with tempfile.TemporaryDirectory() as temporary:
        session = task.open(profile_prefix=str(Path(temporary) / "profile"))
        inputs = task.inputs(session)
        native_operators = session.layout.format == "engine"
        for _ in range(_WARMUP):
            session.run(inputs)
        if native_operators:
            native.reset_profile()
        for _ in range(RUNS):
            session.run(inputs)
        report = native.report() if native_operators else {"isa": None, "nodes": []}
        events = json.loads(session.end_profiling().read_text(encoding="utf-8"))
    return {
        "batch_size": task.batch_size,
        "sequence_length": task.sequence_length,
        "runs": RUNS,
        "operators": _by_operator(events),
        "isa": report["isa"],
        "plan": [
            {"matrix": entry["name"], "kernel": entry["kernel"], "density": entry["density"]}
            for node in report["nodes"]
            for entry in node["plan"]
        ],
        "stages_ms": _by_stage(report["nodes"]),
    }


def _by_operator(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """ONNX Runtime's events of the last runs, summed by operator, the longest first."""
    runs = sorted(event["ts"] for event in events if event["name"] == "model_run")
    start = runs[-RUNS]
    counts: dict[str, int] = defaultdict(int)
    microseconds: dict[str, int] = defaultdict(int)
    for event in events:
        if event["cat"] == "Node" and event["ts"] >= start:
            counts[event["args"]["op_name"]] += 1
            microseconds[event["args"]["op_name"]] += event["dur"]
    return [
        {
            "operator": name,
            "calls": counts[name] / RUNS,
            "ms": microseconds[name] / RUNS / 1000.0,
        }
        for name in sorted(counts, key=lambda name: -microseconds[name])
    ]


def _by_stage(nodes: list[dict[str, Any]]) -> dict[str, float]:
    """Stage of our operators -> ms a run, over all of them, the longest first."""
    seconds: dict[str, float] = defaultdict(float)
    for node in nodes:
        for stage, value in node["profile"].items():
            seconds[stage] += value
    ordered = sorted(seconds.items(), key=lambda item: -item[1])
    return {stage: value / RUNS * 1000.0 for stage, value in ordered}


if __name__ == "__main__":
    sys.exit(print_measured(_measure, sys.argv[1]))
