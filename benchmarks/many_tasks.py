"""Many tasks pruned from one encoder in one process: memory, load time, routing latency.

    python -m benchmarks.many_tasks --model DIR_OR_HUB_ID --validation-file CSV

BERT-base with random frozen weights; every task has uniformly random masks and a head of its own,
in the engine's format with int8 weights and embeddings. Compared are sessions that share what they
can, as the server opens them, the same sessions without sharing, and plain ONNX Runtime with the
dense model in fp32 and in dynamic int8. --model gives its tokenizer alone.

What --work-dir holds is used again; 50 tasks take 2 GB there.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.entry import run
from benchmarks.many_tasks_models import make_tasks
from benchmarks.many_tasks_table import further_task_bytes, write_table
from benchmarks.size import export
from benchmarks.size_measure import quantised
from benchmarks.size_models import make_base_model, make_random_run
from pipeline.artifacts.manifest import to_json
from pipeline.environment import package_versions
from pipeline.errors import MachineError, PipelineError
from pipeline.machine import describe_machine, usable_cores

PACKAGES = ("smp-pipeline", "numpy", "onnxruntime", "tokenizers")
SHARED, APART = "engine, shared", "engine, each for itself"


def main() -> int:
    return run(measure, parse_arguments)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--model", required=True, help="a pretrained encoder, for its tokenizer")
    add("--validation-file", type=Path, required=True, help="csv with columns text and label")
    add("--tasks", nargs="+", type=int, default=[1, 10, 50])
    add("--density", type=float, default=0.1)
    add("--config", type=Path, help="a BERT config.json; BERT-base if not given")
    add("--max-length", type=int, default=128, help="tokens after which a text is cut")
    add("--threads", type=int, default=0, help="of the sessions; 0 takes all cores")
    add("--requests", type=int, default=200, help="timed requests of each kind")
    add("--largest-memory-gb", type=float, default=8.0, help="of one process; more is left out")
    add("--seed", type=int, default=0)
    add("--work-dir", type=Path, default=Path("runs/size"))
    add("--output", type=Path, default=Path("benchmarks/results/many-tasks.md"))
    return parser.parse_args()


def measure(arguments: argparse.Namespace) -> None:
    machine = describe_machine()  # before the tasks are made, which keeps all cores busy
    work_dir = arguments.work_dir
    work_dir.mkdir(parents=True, exist_ok=True)
    base = make_base_model(work_dir, arguments.config, arguments.model, arguments.seed)
    run = make_random_run(
        base,
        arguments.density,
        arguments.validation_file,
        arguments.seed,
        arguments.max_length,
    )
    engine = export(work_dir, run, ["--format", "engine", "--embeddings", "int8"], quick=True)
    dense = export(
        work_dir,
        run,
        ["--format", "dense", "--embeddings", "fp32", "--values", "fp32"],
        quick=True,
    )
    largest = max(arguments.tasks)
    tasks = make_tasks(engine, base, arguments.density, largest, arguments.seed)
    subjects = {
        SHARED: tasks,
        APART: tasks,
        "ONNX Runtime, dense dynamic int8": [quantised(dense)] * largest,
        "ONNX Runtime, dense fp32": [dense] * largest,
    }
    content: dict[str, Any] = {
        "machine": to_json(machine),
        "versions": package_versions(PACKAGES),
        "density": arguments.density,
        "threads": arguments.threads or usable_cores(),
        "requests": arguments.requests,
        "found": [],
        "left_out": [],
    }
    for name, directories in subjects.items():
        each = 0.0
        for count in sorted(arguments.tasks):
            if count * each > arguments.largest_memory_gb * 1e9:
                content["left_out"].append((name, count))
                continue
            found = _measure(name == SHARED, directories[:count], content)
            content["found"].append({"name": name, **found})
            each = further_task_bytes(found) or float(found["memory"]["run"]["uss"])
            print(f"{name}: {count} tasks, {each / 1e6:.1f} MB each", file=sys.stderr, flush=True)
    _check_logits(content["found"])
    results = work_dir / "many-tasks.json"
    results.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    write_table(content, arguments.output)
    print(f"wrote {results}, {arguments.output}", file=sys.stderr)


def _measure(shared: bool, directories: Sequence[Path], content: dict[str, Any]) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.many_tasks_worker", str(int(shared))]
    command += [str(content["threads"]), str(content["requests"]), *map(str, directories)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise MachineError(f"measuring {len(directories)} tasks failed: {reason}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _check_logits(found: Sequence[dict[str, Any]]) -> None:
    """Sharing must not change a bit."""
    apart = {entry["tasks"]: entry["logits"] for entry in found if entry["name"] == APART}
    for entry in found:
        if entry["name"] == SHARED and entry["logits"] != apart[entry["tasks"]]:
            raise PipelineError(f"{entry['tasks']} tasks give other logits when they share")


if __name__ == "__main__":
    sys.exit(main())
