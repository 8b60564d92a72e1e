"""What the graph passes of `export` bring: fusions, empty structure, a smaller vocabulary.

    python -m benchmarks.passes --run RUN --validation-file CSV [--corpus TXT]

Exports the run once with each pass, dense and in fp32 so that nothing else differs, and measures
all of them in one interleaved `smp-pipeline bench`: bytes, accuracy and, per cell, the ratio of the
median latency to the export without passes. --corpus (a text a line) adds pruned vocabularies: all
of its lines, and its first 2,000, 500 and 100. What --work-dir holds is used again.
"""

import argparse
import itertools
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.command import smp_pipeline
from benchmarks.entry import run
from pipeline.artifacts.benchmark import ModelResult, Timing, read_benchmark
from pipeline.artifacts.exported import ExportManifest, read_exported
from pipeline.artifacts.manifest import to_json
from pipeline.markdown import markdown_table

FUSIONS = ("attention", "skip-layer-norm", "gelu", "embed-layer-norm")
CORPUS_LINES = (2000, 500, 100)


def main() -> int:
    return run(measure, parse_arguments)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--run", type=Path, required=True, help="a run directory of `smp-pipeline train`")
    add("--validation-file", type=Path, required=True, help="labelled texts")
    add("--corpus", type=Path, help="a text a line, for pruned vocabularies")
    add("--batch-sizes", nargs="+", default=["1", "8"])
    add("--sequence-lengths", nargs="+", default=["32", "128"])
    add("--repetitions", default="60")
    add("--threads", default="1")
    add("--work-dir", type=Path, default=Path("runs/passes"))
    add("--output", type=Path, default=Path("benchmarks/results/passes.md"))
    return parser.parse_args()


def measure(arguments: argparse.Namespace) -> None:
    arguments.work_dir.mkdir(parents=True, exist_ok=True)
    directories = []
    for name, flags in variants(arguments):
        directory = arguments.work_dir / f"{arguments.run.name}-{name}"
        if not directory.exists():
            print(f"making {directory}", file=sys.stderr, flush=True)
            smp_pipeline("export", str(arguments.run), *flags, "--output-dir", str(directory))
        directories.append(directory)
    results = arguments.work_dir / f"{arguments.run.name}.json"
    smp_pipeline(
        *("bench", *map(str, directories)),
        *("--validation-file", str(arguments.validation_file), "--output", str(results)),
        *("--repetitions", arguments.repetitions, "--threads", arguments.threads),
        *repeated("--batch-sizes", arguments.batch_sizes),
        *repeated("--sequence-lengths", arguments.sequence_lengths),
    )
    write_table(arguments, directories, results)
    print(f"wrote {arguments.output}", file=sys.stderr)


def variants(arguments: argparse.Namespace) -> Iterator[tuple[str, list[str]]]:
    """Name and flags of each export; the first is the reference."""
    yield "plain", []
    for fusion in FUSIONS:
        yield fusion, ["--fuse", fusion]
    yield "all-fusions", repeated("--fuse", FUSIONS)
    yield "attention-opset-23", ["--opset", "23"]
    yield "structure", ["--remove-structure"]
    if arguments.corpus is not None:
        with arguments.corpus.open(encoding="utf-8") as file:
            total = sum(1 for _ in file)
        for count in (total, *(lines for lines in CORPUS_LINES if lines < total)):
            part = arguments.work_dir / f"{arguments.corpus.stem}-{count}.txt"
            with arguments.corpus.open(encoding="utf-8") as file:
                part.write_text("".join(itertools.islice(file, count)), encoding="utf-8")
            yield f"vocabulary-{count}", ["--prune-vocabulary", str(part)]


def repeated(flag: str, values: Sequence[str]) -> list[str]:
    return [word for value in values for word in (flag, value)]


def write_table(arguments: argparse.Namespace, directories: Sequence[Path], results: Path) -> None:
    benchmark = read_benchmark(results)
    cells = [f"{m.cell.batch_size} x {m.cell.sequence_length}" for m in benchmark.cells]
    headers = ["export", "bytes", "accuracy", *cells, "what was found"]
    rows = [
        row(directory, model)
        for directory, model in zip(directories, benchmark.models, strict=True)
    ]
    lines = [
        "# Graph passes",
        "",
        "Written by `python -m benchmarks.passes`.",
        "",
        f"Run {arguments.run.name}, dense, fp32. Cells are batch x tokens: ratio of the median "
        "latency to the first row's, with its 95 % interval, all exports timed in turn "
        f"({arguments.repetitions} times, {arguments.threads} thread).",
        "",
        "Pruned vocabularies change only a table that is looked up, so their latencies show what "
        "chance (where memory lies) does: a ratio no further from 1 than theirs is no gain.",
        "",
        f"Machine: {json.dumps(to_json(benchmark.machine))}",
        "",
        markdown_table(headers, rows),
        "",
    ]
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text("\n".join(lines), encoding="utf-8")


def row(directory: Path, model: ModelResult) -> list[str]:
    assert model.size is not None and model.quality is not None
    accuracy = next(iter(model.quality.metrics.values()))
    return [
        directory.name,
        f"{model.size.model_bytes:,}",
        f"{accuracy.value:.4f}",
        *(ratio(timing) for timing in model.timings),
        found(read_exported(directory)),
    ]


def ratio(timing: Timing) -> str:
    if timing.summary is None:
        return "unusable"
    ratio = timing.summary.ratio
    return f"{ratio.value:.2f} ({ratio.low:.2f} to {ratio.high:.2f})"


def found(manifest: ExportManifest) -> str:
    parts = [f"{name} {count}" for name, count in manifest.fusions.items()]
    if manifest.structure is not None:
        parts.append(manifest.structure.summary())
    if manifest.vocabulary is not None:
        parts.append(manifest.vocabulary.summary())
    return "; ".join(parts)


if __name__ == "__main__":
    sys.exit(main())
