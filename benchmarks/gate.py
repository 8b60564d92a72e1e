"""The gate itself: how often `check` fails without cause, and how often it finds what is worse.

    python -m benchmarks.gate --model DIR --validation-file CSV

Latency is measured: a small BERT with random weights, dense as the reference and pruned for the
engine as the model, both opened anew for every benchmark, are timed as `bench` does it. Each
benchmark is held against the one before it. The same turns time the model with a fifth of its time
added, which the gate should find. Accuracy, F1 and size are made up: examples
broken and mended at random. Everything goes through the gate as `check` runs it.
"""

import argparse
import json
import sys
from pathlib import Path

from benchmarks.command import smp_pipeline
from benchmarks.entry import run
from benchmarks.gate_latency import measure_latency
from benchmarks.gate_quality import measure_accuracy, measure_f1, measure_size
from benchmarks.gate_table import report
from benchmarks.size_models import make_base_model, make_random_run
from benchmarks.table_head import write_lines
from pipeline.artifacts.manifest import to_json
from pipeline.environment import package_versions
from pipeline.machine import describe_machine

PACKAGES = ("smp-pipeline", "numpy", "onnxruntime")
FORMATS = ("dense", "engine")
# The smallest of the published BERT models (Turc et al. 2019): its runs take less than a
# scheduler's time slice, so that other work on the machine delays few of them.
SHAPE = {
    "model_type": "bert",
    "num_hidden_layers": 2,
    "hidden_size": 128,
    "num_attention_heads": 2,
    "intermediate_size": 512,
}


def main() -> int:
    return run(measure, parse_arguments)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--model", type=Path, required=True, help="a pretrained encoder, for its tokenizer")
    add("--validation-file", type=Path, required=True, help="csv with columns text and label")
    add("--config", type=Path, help="a BERT config.json; 2 layers of 128 if not given")
    add("--density", type=float, default=0.1)
    add("--batch-size", type=int, default=1)
    add("--sequence-length", type=int, default=32)
    add("--repetitions", type=int, default=30, help="timed runs a benchmark")
    add("--checks", type=int, default=200, help="checks of real benchmarks")
    add("--minutes", type=float, default=10.0, help="no new benchmark begins after so long")
    add("--simulations", type=int, default=500, help="made-up checks of accuracy in each case")
    add("--examples", type=int, default=872, help="made-up labelled texts")
    add("--seed", type=int, default=0)
    add("--work-dir", type=Path, default=Path("runs/gate"))
    add("--output", type=Path, default=Path("benchmarks/results/gate.md"))
    return parser.parse_args()


def measure(arguments: argparse.Namespace) -> None:
    machine = describe_machine()
    directories = make_models(arguments)
    content = {
        "machine": to_json(machine),
        "versions": package_versions(PACKAGES),
        "settings": {key: str(value) for key, value in vars(arguments).items()},
        "shape": "BERT with 2 layers of 128" if arguments.config is None else arguments.config,
        "latency": measure_latency(directories, arguments, machine),
        "accuracy": measure_accuracy(arguments, machine),
        "f1": measure_f1(arguments, machine),
        "size": measure_size(machine),
    }
    write_lines(report(content), arguments.output)
    print(f"wrote {arguments.output}", file=sys.stderr)


def make_models(arguments: argparse.Namespace) -> list[Path]:
    """The reference and the model; what --work-dir holds is used again."""
    arguments.work_dir.mkdir(parents=True, exist_ok=True)
    config = arguments.config
    if config is None:
        config = arguments.work_dir / "config.json"
        config.write_text(json.dumps(SHAPE), encoding="utf-8")
    base = make_base_model(arguments.work_dir, config, str(arguments.model), arguments.seed)
    pruned = make_random_run(
        base, arguments.density, arguments.validation_file, arguments.seed, max_length=64
    )
    directories = []
    for form in FORMATS:
        directory = pruned.with_name(f"{pruned.name}-{form}")
        if not directory.exists():
            print(f"making {directory}", file=sys.stderr, flush=True)
            smp_pipeline("export", str(pruned), "--format", form, "--output-dir", str(directory))
        directories.append(directory)
    return directories


if __name__ == "__main__":
    sys.exit(main())
