"""One process that opens many tasks and measures what they take; prints one line of JSON.

Run as ``python -m benchmarks.many_tasks_worker SHARED THREADS REQUESTS DIRECTORY...`` by
benchmarks/many_tasks.py. SHARED is 1 or 0.
"""

import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from serve.child import made_up_inputs
from serve.session import Session, open_session
from serve.shared_runtime import SharedRuntime

REQUEST = (1, 24)  # texts, tokens
BATCH = (16, 128)
# Requests to one task in a row, then as many to any: what else the machine does meets both.
BLOCK = 10


def measure(
    shared: bool, threads: int, requests: int, directories: Sequence[Path]
) -> Mapping[str, Any]:
    """Open all, run all once, then time requests.

    Args:
        shared: whether the sessions share what they can.
        threads: of the sessions.
        requests: timed requests of each kind.
        directories: one a task; the same one may come again.
    """
    runtime = SharedRuntime(threads) if shared else None
    memory = {"start": _memory()}
    sessions: list[Session] = []
    open_seconds = []
    for directory in directories:
        start = time.perf_counter()
        sessions.append(open_session(directory, threads=threads, shared=runtime))
        open_seconds.append(time.perf_counter() - start)
        if len(sessions) == 1:
            memory["first_open"] = _memory()
    memory["open"] = _memory()
    inputs = _inputs(sessions[0], *REQUEST)
    logits = []
    for index, session in enumerate(sessions):
        logits.append(session.run(inputs)[0].tolist())
        session.run(_inputs(session, *BATCH))
        if index == 0:
            memory["first_run"] = _memory()
    memory["run"] = _memory()
    same, routed = _time_requests(sessions, inputs, requests)
    return {
        "tasks": len(sessions),
        "threads_of_process": psutil.Process().num_threads(),
        "open_seconds": open_seconds,
        "memory": memory,
        "logits": logits,
        "same_task_seconds": same,
        "any_task_seconds": routed,
        "idle_cpu_seconds": _idle_cpu_seconds(),
    }


def _inputs(session: Session, texts: int, tokens: int) -> Mapping[str, Any]:
    assert session.manifest is not None
    return made_up_inputs(session, texts, min(tokens, session.manifest.task.max_length))


def _memory() -> dict[str, int]:
    info = psutil.Process().memory_full_info()
    return {"rss": info.rss, "uss": info.uss}


def _time_requests(
    sessions: Sequence[Session], inputs: Mapping[str, Any], requests: int
) -> tuple[list[float], list[float]]:
    generator = np.random.default_rng(0)
    same: list[float] = []
    routed: list[float] = []
    while len(same) < requests:
        one = int(generator.integers(len(sessions)))
        sessions[one].run(inputs)  # so that the first of the block is no exception
        for times, order in (
            (same, [one] * BLOCK),
            (routed, generator.integers(len(sessions), size=BLOCK).tolist()),
        ):
            for index in order:
                start = time.perf_counter()
                sessions[index].run(inputs)
                times.append(time.perf_counter() - start)
    return same, routed


def _idle_cpu_seconds() -> float:
    """What the process burns in the second after its last request."""
    before = time.process_time()
    time.sleep(1.0)
    return time.process_time() - before


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    first, second, third, *paths = sys.argv[1:]
    print(
        json.dumps(measure(first == "1", int(second), int(third), [Path(path) for path in paths]))
    )
