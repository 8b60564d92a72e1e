"""Child process of the benchmark: open one model, run one batch, print load time and memory.

Run as ``python -m serve.probe DIRECTORY THREADS BATCH_SIZE SEQUENCE_LENGTH``; prints one line of
JSON. A fresh process, because memory that an earlier model freed would hide the peak of the next.
"""

import json
import sys
from pathlib import Path

import numpy as np
import psutil

from pipeline.errors import PipelineError
from serve.session import import_onnxruntime, open_session

__all__ = ["main"]

_STATUS = Path("/proc/self/status")


def main(arguments: list[str]) -> int:
    """Measure and print; 2 with one line on stderr for an error of the user's."""
    directory, threads, batch_size, sequence_length = arguments
    try:
        import_onnxruntime()
        baseline_rss_bytes = psutil.Process().memory_info().rss
        session = open_session(Path(directory), threads=int(threads))
        shape = (int(batch_size), int(sequence_length))
        ids = np.arange(shape[0] * shape[1], dtype=np.int64).reshape(shape)
        inputs = {name: np.zeros(shape, dtype=np.int64) for name in session.manifest.inputs}
        inputs["input_ids"] = ids % session.vocabulary_size
        if "attention_mask" in inputs:
            inputs["attention_mask"] = np.ones(shape, dtype=np.int64)
        session.run(inputs)
    except PipelineError as error:
        print(error, file=sys.stderr)
        return 2
    measured = {
        "load_ms": session.load_ms,
        "baseline_rss_bytes": baseline_rss_bytes,
        "peak_rss_bytes": _peak_rss_bytes(),
    }
    print(json.dumps(measured))
    return 0


def _peak_rss_bytes() -> int:
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
    sys.exit(main(sys.argv[1:]))
