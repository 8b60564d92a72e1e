"""The runtime against its peers: latency, memory, load time, size and exactness.

    python -m benchmarks.runtime [--install] [--run RUN --validation-file CSV]

First part: BERT-base with random weights under uniformly random masks, by default at densities 0.5,
0.1 and 0.03, batch 1, 8, 16 and 32, sequence 32, 128 and 384, on 1 and 2 threads, in ONNX Runtime
fp32 and dynamic int8, OpenVINO int8, DeepSparse fp32 and int8, and this project's engine in fp32
and int8. Second part, with --run: a model that `smp-pipeline train` made, with its accuracy on a
labelled file.

Each engine runs in a process of its own, and all engines and densities of one cell are timed in
turn, in a new random order each time; processes whose turn it is not are stopped (SIGSTOP), so
that each engine may keep its threads' usual habits. OpenVINO and DeepSparse are compiled for each
shape, which suits them best and takes DeepSparse about 15 seconds each. They need environments of
their own, .venv-openvino and .venv-deepsparse, which --install makes; without them they are left
out.

Results go to --work-dir/runtime.json after every cell, and to the table --output. With --resume,
cells that runtime.json has are not measured again.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.entry import run
from benchmarks.runtime_engines import ENGINES, Engine, Subject, find_python
from benchmarks.runtime_models import ModelFiles, make_file, make_random, make_trained
from benchmarks.runtime_parts import Part
from benchmarks.runtime_results import Results
from benchmarks.runtime_table import write_table
from pipeline.errors import ConfigurationError

DENSITIES = (0.5, 0.1, 0.03)
TRAINED_ENGINES = ("ort-fp32", "ort-int8", "engine-fp32", "engine-int8")


def main() -> int:
    return run(measure, parse_arguments)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--engines", nargs="+", choices=list(ENGINES), default=list(ENGINES), metavar="ENGINE")
    add("--densities", nargs="*", type=float, default=list(DENSITIES))
    add("--batches", nargs="+", type=int, default=[1, 8, 16, 32])
    add("--sequences", nargs="+", type=int, default=[32, 128, 384])
    add("--threads", nargs="+", type=int, default=[2, 1])
    add("--seconds-per-cell", type=float, default=60.0)
    add("--processes", type=int, default=3, help="fresh processes for load time and memory")
    add("--config", type=Path, help="a BERT config.json; BERT-base if not given")
    add("--run", type=Path, help="a run directory of `smp-pipeline train`")
    add("--validation-file", type=Path, help="labelled texts for the accuracy of --run")
    add("--install", action="store_true", help="make the environments of optional engines")
    add("--resume", action="store_true", help="keep the cells that runtime.json has")
    add("--seed", type=int, default=0)
    add("--work-dir", type=Path, default=Path("runs/runtime"))
    add("--output", type=Path, default=Path("benchmarks/results/runtime.md"))
    arguments = parser.parse_args()
    if (arguments.run is None) != (arguments.validation_file is None):
        parser.error("--run and --validation-file go together")
    if not all(0.0 < density <= 1.0 for density in arguments.densities):
        parser.error("--densities are shares of weights that are kept, over 0 and at most 1")
    return arguments


def measure(arguments: argparse.Namespace) -> None:
    arguments.work_dir.mkdir(parents=True, exist_ok=True)
    pythons, left_out = interpreters(arguments)
    engines = [ENGINES[name] for name in arguments.engines if ENGINES[name].kind in pythons]
    results = Results(arguments, left_out)
    if arguments.densities:
        models = [
            make_random(arguments.work_dir, arguments.config, density, arguments.seed)
            for density in sorted(arguments.densities, reverse=True)
        ]
        names = [f"density {files.density:g}" for files in models]
        part = Part(arguments, results, "random", pythons)
        part.measure(subjects(engines, models, names), models, names)
    if arguments.run is not None:
        files, exported = make_trained(arguments.work_dir, arguments.run)
        chosen = [engine for engine in engines if engine.name in TRAINED_ENGINES]
        part = Part(arguments, results, "trained", pythons)
        trained = subjects(chosen, [files], [f"density {files.density:.3g}"])
        part.measure(trained, [files], [f"density {files.density:.3g}"])
        part.accuracy(trained, files, exported, arguments.validation_file)
    write_table(results.content, arguments.output)
    print(f"wrote {arguments.output}", file=sys.stderr)


def interpreters(arguments: argparse.Namespace) -> tuple[dict[str, Path], list[str]]:
    """Kind of worker -> its interpreter, and the kinds that are not installed."""
    pythons, left_out = {}, []
    for kind in dict.fromkeys(ENGINES[name].kind for name in arguments.engines):
        python = find_python(kind, install=arguments.install)
        if python is not None:
            pythons[kind] = python
        else:
            left_out.append(kind)
            print(f"{kind} is left out: not installed, see --install", file=sys.stderr)
    if not pythons:
        raise ConfigurationError("none of --engines is installed; try --install")
    return pythons, left_out


def subjects(
    engines: Sequence[Engine], models: Sequence[ModelFiles], names: Sequence[str]
) -> list[Subject]:
    """What to time: engines that gain from zeros with every model, the others with the first."""
    found = []
    for engine in engines:
        for files, name in zip(models, names, strict=True):
            path = make_file(files, engine.file)
            found.append(Subject(engine, name if engine.sparse else None, path, files.vocabulary))
            if not engine.sparse:
                break
    return found


if __name__ == "__main__":
    sys.exit(main())
