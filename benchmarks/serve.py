"""The server's throughput and latency, beside the bare session's and the KServe SDK's.

    python -m benchmarks.serve --validation-file CSV [--run RUN] [--model DIR_OR_HUB_ID]
        [--models DIR...] [--kserve-python PATH]

Models: --run, a run directory of `smp-pipeline train`, exported for the engine; BERT-base with
random weights under random masks of density 0.1, for which --model gives the tokenizer; and
--models, model directories that are there already.

Each text is a request of its own, in random order, from 1, 8 and 32 clients that keep their
connections and send the next request when the last one is answered (wrk for HTTP, a Python process
for gRPC). The bound is the session without a server: the same texts in the same order, in batches
of several sizes, of which the best counts. All ways to serve a model take turns, in a new random
order each round. Generator, server and session share the cores of one machine.

Results go to --work-dir/serve.json, and to the table --output.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.entry import run
from benchmarks.serve_load import need_wrk
from benchmarks.serve_measure import measure_model, read_texts
from benchmarks.serve_table import write_table
from pipeline.artifacts.manifest import to_json
from pipeline.environment import package_versions
from pipeline.errors import ConfigurationError
from pipeline.machine import describe_machine

ROOT = Path(__file__).parent.parent
DENSITY = 0.1
PACKAGES = ("onnxruntime", "tokenizers", "uvicorn", "starlette", "msgspec", "grpcio")
KSERVE_NEEDS = "kserve onnxruntime tokenizers psutil"
KSERVE_PYTHON = ROOT / ".venv-kserve" / "bin" / "python"


def main() -> int:
    return run(measure, parse_arguments)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--validation-file", type=Path, required=True, help="csv with columns text and label")
    add("--models", nargs="*", type=Path, default=[], help="exported model directories")
    add("--run", type=Path, help="a run directory of `smp-pipeline train`")
    add("--model", help="a pretrained encoder, for the tokenizer of BERT-base")
    add("--clients", nargs="+", type=int, default=[1, 8, 32])
    add("--batches", nargs="+", type=int, default=[1, 4, 8, 16, 32])
    add("--delays", nargs="*", type=float, default=[2.0, 5.0], help="--max-batch-delay-ms")
    add("--tries", nargs="*", default=[], metavar="FLAGS", help="further flags of `serve` to try")
    add("--kserve-python", type=Path, help="an interpreter with kserve; .venv-kserve has one")
    add("--rounds", type=int, default=4)
    add("--seconds", type=int, default=2, help="of a turn of load")
    add("--loop-seconds", type=float, default=0.5, help="of a turn of the session alone")
    add("--seed", type=int, default=0)
    add("--work-dir", type=Path, default=Path("runs/serve"))
    add("--output", type=Path, default=Path("benchmarks/results/serve.md"))
    arguments = parser.parse_args()
    if not (arguments.models or arguments.run or arguments.model):
        parser.error("give at least one of --run, --model and --models")
    return arguments


def measure(arguments: argparse.Namespace) -> None:
    need_wrk()
    kserve_python = find_kserve(arguments.kserve_python)
    texts = read_texts(arguments.validation_file, arguments.seed)
    arguments.work_dir.mkdir(parents=True, exist_ok=True)
    content: dict[str, Any] = {
        "machine": to_json(describe_machine()),
        "versions": package_versions(PACKAGES),
        "kserve": kserve_python is not None,
        "rounds": arguments.rounds,
        "seconds": arguments.seconds,
        "models": [],
    }
    results = arguments.work_dir / "serve.json"
    for directory in model_directories(arguments):
        content["models"].append(measure_model(directory, texts, arguments, kserve_python))
        results.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        write_table(content, arguments.output)
    print(f"wrote {results}, {arguments.output}", file=sys.stderr)


def find_kserve(given: Path | None) -> Path | None:
    """The interpreter of the peer; None where it is not installed and nobody asked for it.

    Raises:
        ConfigurationError: the one that was given lacks what the peer needs.
    """
    python = given or KSERVE_PYTHON
    command = [str(python), "-c", "import kserve, onnxruntime, psutil, tokenizers"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        reason = str(error)
    else:
        if done.returncode == 0:
            return python
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
    message = f"{python} cannot serve with the KServe SDK ({reason}); pip install {KSERVE_NEEDS}"
    if given is not None:
        raise ConfigurationError(f"--kserve-python {message}")
    print(f"the KServe SDK is left out: {message}, or see --kserve-python", file=sys.stderr)
    return None


def model_directories(arguments: argparse.Namespace) -> list[Path]:
    """The models to serve; they are made if need be."""
    directories = []
    if arguments.run or arguments.model:
        # Making models needs torch; serving them does not.
        from benchmarks.size import export
        from benchmarks.size_models import make_base_model, make_random_run

        flags = ["--format", "engine", "--embeddings", "int8"]
        work_dir = arguments.work_dir
        if arguments.run:
            directories.append(export(work_dir, arguments.run, flags, quick=False))
        if arguments.model:
            base = make_base_model(work_dir, None, arguments.model, arguments.seed)
            run = make_random_run(base, DENSITY, arguments.validation_file, arguments.seed)
            directories.append(export(work_dir, run, flags, quick=True))
    return directories + list(arguments.models)


if __name__ == "__main__":
    sys.exit(main())
