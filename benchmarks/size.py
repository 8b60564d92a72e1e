"""Small files: bytes, load time, memory and exactness of every format that `export` writes.

    python -m benchmarks.size --model DIR_OR_HUB_ID --validation-file CSV [--runs RUN...]

First part: BERT-base with random weights under uniformly random masks, by default at densities 0.5,
0.1 and 0.03; --model gives its tokenizer alone. Second part, with --runs: models that
`smp-pipeline train` made, with their accuracy on --validation-file (columns ``text`` and
``label``). Each model is exported in every format; load time and peak memory come from fresh
processes in random order, and all ratios are to the dense fp32 file of the same model in the same
session. The peer is ONNX Runtime's own dynamic int8 quantisation of the dense file.

What --work-dir holds is used again, so a stopped measurement goes on.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.command import smp_pipeline
from benchmarks.entry import run
from benchmarks.size_measure import measure_model
from benchmarks.size_models import make_base_model, make_random_run
from benchmarks.size_table import write_table
from pipeline.artifacts.manifest import to_json
from pipeline.environment import package_versions
from pipeline.machine import describe_machine

DENSITIES = (0.5, 0.1, 0.03)
PACKAGES = ("smp-pipeline", "numpy", "onnx", "onnxruntime", "torch", "transformers")
# Format, values, embeddings; the first is the reference.
VARIANTS = (
    ("dense", "fp32", "fp32"),
    ("dense", "fp16", "fp16"),
    ("dense", "int8", "int8"),
    ("sparse", "fp32", "fp32"),
    ("packed", "fp32", "fp32"),
    ("packed", "fp16", "fp16"),
    ("packed", "int8", "fp16"),
    ("packed", "int8", "int8"),
    ("engine", "int8", "int8"),
)


def main() -> int:
    return run(measure, parse_arguments)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--model", required=True, help="a pretrained encoder, for its tokenizer")
    add("--validation-file", type=Path, required=True, help="csv with columns text and label")
    add("--densities", nargs="*", type=float, default=list(DENSITIES))
    add("--config", type=Path, help="a BERT config.json; BERT-base if not given")
    add("--runs", nargs="*", type=Path, default=[], help="run directories of `train`")
    add("--samples", type=int, default=64, help="texts that random models are compared on")
    add("--seed", type=int, default=0)
    add("--work-dir", type=Path, default=Path("runs/size"))
    add("--output", type=Path, default=Path("benchmarks/results/size.md"))
    return parser.parse_args()


def measure(arguments: argparse.Namespace) -> None:
    arguments.work_dir.mkdir(parents=True, exist_ok=True)
    subjects = []
    if arguments.densities:
        base = make_base_model(
            arguments.work_dir, arguments.config, arguments.model, arguments.seed
        )
        for density in sorted(arguments.densities, reverse=True):
            run = make_random_run(base, density, arguments.validation_file, arguments.seed)
            subjects.append((run, "random", arguments.samples))
    subjects += [(run, "trained", None) for run in arguments.runs]
    parts = []
    for run, kind, samples in subjects:
        exports = export_all(arguments.work_dir, run, quick=kind == "random")
        found = measure_model(run, exports, arguments.validation_file, samples=samples)
        parts.append({"kind": kind, "run": run.name, **found})
    content: dict[str, Any] = {
        "machine": to_json(describe_machine()),
        "versions": package_versions(PACKAGES),
        "models": parts,
    }
    results = arguments.work_dir / "size.json"
    results.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    write_table(content, arguments.output)
    print(f"wrote {results}, {arguments.output}", file=sys.stderr)


def export_all(work_dir: Path, run: Path, *, quick: bool) -> dict[str, Path]:
    """Every variant of a run, the delta last: name -> model directory."""
    directories = {}
    for form, values, embeddings in VARIANTS:
        name = f"{form} {values}, embeddings {embeddings}"
        flags = ["--format", form, "--embeddings", embeddings]
        if form != "engine":
            flags += ["--values", values]
        directories[name] = export(work_dir, run, flags, quick=quick)
    directories["delta"] = export(work_dir, run, ["--format", "delta"], quick=quick)
    return directories


def export(work_dir: Path, run: Path, flags: Sequence[str], *, quick: bool) -> Path:
    """Export a run unless that was done before."""
    words = [flag for flag in flags if not flag.startswith("--")]
    directory = work_dir / "-".join([run.name, *words])
    if directory.exists():
        return directory
    print(f"making {directory}", file=sys.stderr, flush=True)
    # Large models: a few texts show that the file is right.
    fewer = ["--verification-samples", "4"] if quick else []
    smp_pipeline("export", str(run), *flags, *fewer, "--output-dir", str(directory))
    return directory


if __name__ == "__main__":
    sys.exit(main())
