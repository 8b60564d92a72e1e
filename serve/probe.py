"""Child process of the benchmark: open one model, run one batch, print load time and memory.

Run as ``python -m serve.probe TASK``, a :class:`serve.child.ChildTask` as JSON; prints one line of
JSON. A fresh process, because memory that an earlier model freed would hide the peak of the next.
"""

import sys
from collections.abc import Mapping
from pathlib import Path

import psutil

from serve.child import ChildTask, print_measured
from serve.session import import_onnxruntime

__all__ = ["peak_rss_bytes"]

_STATUS = Path("/proc/self/status")


def _measure(task: ChildTask) -> Mapping[str, float]:
    import_onnxruntime()
    baseline_rss_bytes = psutil.Process().memory_info().rss
    session = task.open()
    session.run(task.inputs(session))
    return {
        "load_ms": session.load_ms,
        "baseline_rss_bytes": baseline_rss_bytes,
        "peak_rss_bytes": peak_rss_bytes(),
    }


def peak_rss_bytes() -> int:
    """Highest resident set of this process so far."""
    # Not ru_maxrss where it can be helped: on Linux it survives exec and so knows the parent's.
    if _STATUS.is_file():
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


if __name__ == "__main__":
    sys.exit(print_measured(_measure, sys.argv[1]))
