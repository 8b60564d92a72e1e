"""SMP against other ways to prune, on a small encoder: one accuracy a task, method and density.

    python -m benchmarks.methods --model DIR_OR_HUB_ID --sst2 DIR --mrpc DIR

DIR of SST-2 holds train.tsv and dev.tsv, lines of ``text<TAB>label`` without a header; DIR of MRPC
holds train.tsv and val.tsv as Microsoft published them. Models are trained on train and measured on
dev (val): the last masks, chosen by nothing. Every method has the defaults of `train`, and all have
the same batches, schedule of densities and steps: a share (``--steps-share``) of the paper's.
SMP-S is also trained with one second moment a matrix, at the task's own learning rate.
Distilled runs learn from the fine-tuned run of the same seed.

A run directory that is there already is used again, so a stopped measurement goes on, and several
seeds can be added one by one. After each run the table is written anew, with all runs that the
working directory has.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from benchmarks.earlier_runs import check_same
from benchmarks.entry import run
from benchmarks.methods_data import METHODS, TASKS, Cell, prepare
from benchmarks.methods_table import write_table
from pipeline.config import TrainConfig
from pipeline.errors import ConfigurationError
from pipeline.machine import usable_cores

DISTILLED = ("smp-s", "movement")
STARTS = ("gradient", "fisher")
MOMENTS = ("matrix",)
DENSITIES = (0.1, 0.03, 0.5)


def main() -> int:
    return run(measure, parse_arguments)


def measure(arguments: argparse.Namespace) -> None:
    os.environ["OMP_NUM_THREADS"] = str(max(1, usable_cores() // arguments.jobs))
    tasks = [task for task in TASKS if getattr(arguments, task) is not None]
    if not tasks:
        raise ConfigurationError("give --sst2 or --mrpc, a directory with the task's data")
    data = {
        task: prepare(task, getattr(arguments, task), arguments.work_dir / task) for task in tasks
    }
    dense = [Cell(task, "finetune", 1.0, False, seed) for task in tasks for seed in arguments.seeds]
    cells = cells_of(arguments, tasks)
    # A fine-tuned run is a teacher: it comes before those that learn from it.
    for group in (dense, cells):
        train_all(arguments, data, group)


def cells_of(arguments: argparse.Namespace, tasks: Sequence[str]) -> list[Cell]:
    """The pruned runs, one seed after the other, the lowest densities first."""
    found = []
    for seed, density, task in product(arguments.seeds, arguments.densities, tasks):
        found += [Cell(task, method, density, False, seed) for method in arguments.methods]
        found += [Cell(task, method, density, True, seed) for method in arguments.taught]
        if "smp-s" in arguments.methods:
            found += [
                Cell(task, "smp-s", density, False, seed, start) for start in arguments.starts
            ]
            found += [
                Cell(task, "smp-s", density, False, seed, moment=moment)
                for moment in arguments.moments
            ]
    return found


def train_all(
    arguments: argparse.Namespace,
    data: dict[str, tuple[Path, Path]],
    cells: Sequence[Cell],
) -> None:
    """Train what is not there yet, ``--jobs`` at a time, and write the table after each."""
    missing = []
    for cell in cells:
        directory = arguments.work_dir / cell.task / cell.name
        settings = settings_of(arguments, data, cell)
        if directory.exists():
            check_same(directory, settings)
        else:
            missing.append(settings)
    # Not forked: torch's threads do not survive that.
    with ProcessPoolExecutor(arguments.jobs, mp_context=get_context("spawn")) as pool:
        started = [pool.submit(train_one, settings) for settings in missing]
        for done in as_completed(started):
            print(f"trained {done.result()}", flush=True)
            write_table(arguments.work_dir, arguments.output)
    write_table(arguments.work_dir, arguments.output)


def train_one(settings: dict[str, Any]) -> str:
    """Train one run; the name of its directory."""
    # Imported in the worker: training takes torch and transformers with it.
    from smp.train import train
    from smp.unfinished import unfinished_directory

    output = settings["output_dir"]
    train(TrainConfig(**settings, resume=unfinished_directory(output).exists()))
    return str(output)


def settings_of(
    arguments: argparse.Namespace, data: dict[str, tuple[Path, Path]], cell: Cell
) -> dict[str, Any]:
    """The settings of a run that are not the defaults."""
    root = arguments.work_dir / cell.task
    settings: dict[str, Any] = {
        "model": arguments.model,
        "output_dir": root / cell.name,
        "train_file": data[cell.task][0],
        "validation_file": data[cell.task][1],
        "method": cell.method,
        "steps": max(1, round(arguments.steps_share * TASKS[cell.task].paper_steps)),
        "evaluations": arguments.evaluations,
        "seed": cell.seed,
    }
    if cell.method != "finetune":
        settings["density"] = cell.density
    if cell.start != "magnitude":
        settings["score_init"] = cell.start
    if cell.shares_moment:
        settings["second_moment"] = cell.moment
        settings["learning_rate"] = TASKS[cell.task].matrix_learning_rate
    if cell.distilled:
        settings["teacher"] = root / Cell(cell.task, "finetune", 1.0, False, cell.seed).name
    return settings


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    for task in TASKS:
        parser.add_argument(f"--{task}", type=Path, help=f"directory of {task}")
    parser.add_argument("--work-dir", type=Path, default=Path("runs/methods"))
    parser.add_argument("--steps-share", type=float, default=0.1)
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
    parser.add_argument(
        "--taught", nargs="*", default=DISTILLED, choices=METHODS, help="learn from finetune, too"
    )
    parser.add_argument("--starts", nargs="*", default=STARTS, choices=STARTS, help="of smp-s")
    parser.add_argument(
        "--moments", nargs="*", default=MOMENTS, choices=MOMENTS, help="second moments of smp-s"
    )
    parser.add_argument("--densities", type=float, nargs="+", default=DENSITIES)
    parser.add_argument("--seeds", type=int, nargs="+", default=(0, 1, 2))
    parser.add_argument("--evaluations", type=int, default=5, help="during each run")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, sharing the cores")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/methods.md"))
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
