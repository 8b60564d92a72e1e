"""The table of the methods' comparison."""

import csv
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from statistics import mean

from benchmarks.methods_data import METHODS, TASKS, Cell
from benchmarks.table_head import head, write_lines
from pipeline.artifacts.manifest import to_json
from pipeline.artifacts.run import RunManifest, read_run
from pipeline.environment import package_versions
from pipeline.intervals import share_estimate
from pipeline.machine import describe_machine
from pipeline.markdown import markdown_table

__all__ = ["write_table"]

# Density, method, start, second moment, whether it has a teacher.
_Group = tuple[float, str, str, str, bool]
_TITLES = {"sst2": "SST-2", "mrpc": "MRPC"}


def write_table(work_dir: Path, output: Path) -> None:
    """Write what the working directory has so far: all finished runs, whoever asked for them."""
    found: dict[Cell, RunManifest] = {}
    for task in TASKS:
        for directory in sorted((work_dir / task).glob("*-seed-*")):
            # Beside a finished run there may be an unfinished one, <name>.partial.
            if directory.suffix != ".partial":
                run = read_run(directory)
                found[_cell(task, run)] = run
    write_lines(_lines(found, work_dir), output)


def _cell(task: str, run: RunManifest) -> Cell:
    settings = run.settings
    return Cell(
        task,
        run.method,
        settings["density"],
        settings["teacher"] is not None,
        settings["seed"],
        settings["score_init"],
        # Runs from before the option had Adam's.
        settings.get("second_moment", "weight"),
    )


def _lines(found: dict[Cell, RunManifest], work_dir: Path) -> Iterator[str]:
    content = {
        "machine": to_json(describe_machine()),
        "versions": package_versions(("torch", "transformers", "accelerate", "numpy")),
    }
    yield from head("Methods, densities and distillation on a small encoder", "methods", content)
    yield "Accuracy on the validation data. In brackets the 95 % score interval over the examples,"
    yield "at the mean over the seeds: what another validation set of this size could give. It says"
    yield "nothing of the spread over seeds, which is the column beside it: smallest to largest."
    yield ""
    for task in dict.fromkeys(cell.task for cell in found):
        runs = {cell: run for cell, run in found.items() if cell.task == task}
        first = next(iter(runs.values()))
        rows = first.validation_data.rows
        validation = (work_dir / task / TASKS[task].validation).with_suffix(".csv")
        steps = {run.training["steps"] for run in runs.values()}
        yield f"## {_TITLES[task]}"
        yield ""
        yield (
            f"{first.train_data.rows:,} training examples, {rows:,} validation examples "
            f"({_largest_class(validation):.3f} of them in the largest class), "
            f"{' or '.join(map(str, sorted(steps)))} steps of {first.settings['batch_size']}."
        )
        rates = {run.settings["learning_rate"] for cell, run in runs.items() if cell.shares_moment}
        if rates:
            listed = " or ".join(f"{rate:g}" for rate in sorted(rates))
            yield f"With one second moment a matrix the learning rate is {listed}."
        yield ""
        yield markdown_table(
            ("density", "method", "start", "second moment", "teacher", "accuracy", "seeds"),
            list(_rows(runs, rows)),
            numeric_from=5,
        )
        yield ""


def _largest_class(path: Path) -> float:
    """What always giving the same answer scores on the validation data."""
    with path.open(encoding="utf-8", newline="") as file:
        labels = Counter(row["label"] for row in csv.DictReader(file))
    return max(labels.values()) / labels.total()


def _rows(runs: dict[Cell, RunManifest], examples: int) -> Iterator[tuple[str, ...]]:
    groups: dict[_Group, list[RunManifest]] = {}
    for cell, run in runs.items():
        key = cell.density, cell.method, cell.start, cell.moment, cell.distilled
        groups.setdefault(key, []).append(run)
    for (density, method, start, moment, distilled), members in sorted(groups.items(), key=_place):
        learns_scores = method not in ("finetune", "magnitude")
        scores = [run.metrics["accuracy"] for run in members]
        value = share_estimate(round(mean(scores) * examples), examples)
        spread = f"{min(scores):.3f} to {max(scores):.3f}" if len(scores) > 1 else ""
        yield (
            f"{density:g}",
            method,
            start if learns_scores else "",
            moment if learns_scores else "",
            "finetune" if distilled else "",
            f"{mean(scores):.3f} ({value.low:.3f} to {value.high:.3f})",
            f"{len(scores)}{': ' if spread else ''}{spread}",
        )


def _place(group: tuple[_Group, object]) -> tuple[float, bool, bool, bool, int]:
    density, method, start, moment, distilled = group[0]
    place = ("finetune", *METHODS).index(method)
    return -density, distilled, start != "magnitude", moment != "weight", place
