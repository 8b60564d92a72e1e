"""SST-2 on a small encoder: dense fine-tuning against SMP-S at densities 0.5, 0.1 and 0.03.

One command does the whole measurement: it trains each model, exports it, benchmarks all exported
graphs in one interleaved run, and writes the table.

    python -m benchmarks.sst2 --data DIR --model DIR_OR_HUB_ID --work-dir runs/sst2

DIR holds train.tsv and dev.tsv, lines of ``text<TAB>label`` without a header. Models are trained
on train and measured on dev. Within a run nothing is chosen by dev: the last masks count, not the
best. But the defaults of the learning rate and of the scores' start were compared on this same dev
set. A run directory that is there already is used again, so a stopped measurement goes on.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any, Literal

from benchmarks.earlier_runs import check_same
from benchmarks.entry import run
from benchmarks.methods_data import prepare
from pipeline.artifacts.run import read_run
from pipeline.config import BenchConfig, ExportConfig, TrainConfig
from pipeline.stages import run_stage
from smp.unfinished import unfinished_directory

DENSITIES = (0.5, 0.1, 0.03)


def main() -> int:
    return run(measure, parse_arguments)


def measure(arguments: argparse.Namespace) -> None:
    train_file, validation_file = prepare("sst2", arguments.data, arguments.work_dir)
    models = []
    for name, settings in configurations(arguments).items():
        directory = arguments.work_dir / f"{name}-run"
        if not directory.exists():
            config = TrainConfig(
                model=arguments.model,
                output_dir=directory,
                train_file=train_file,
                validation_file=validation_file,
                seed=arguments.seed,
                resume=unfinished_directory(directory).exists(),
                **settings,
            )
            show("train", config)
        same = {"seed": arguments.seed, "model": arguments.model}
        check_same(directory, {**settings, **same})
        form: Literal["dense", "packed"] = "dense" if name == "finetune" else "packed"
        exported = arguments.work_dir / f"{name}-{form}"
        if not exported.exists():
            show("export", ExportConfig(run=directory, output_dir=exported, format=form))
        models.append(exported)
    bench = BenchConfig(
        models=tuple(models),
        validation_file=validation_file,
        output=arguments.work_dir / "bench.json",
        batch_sizes=(1,),
        sequence_lengths=(32,),
    )
    show("bench", bench)
    write_table(arguments, models, bench.output)


def show(name: str, config: TrainConfig | ExportConfig | BenchConfig) -> None:
    """Run a stage and print its result."""
    result = run_stage(name, config)
    assert result is not None
    result.show()


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--work-dir", type=Path, default=Path("runs/sst2"))
    parser.add_argument("--epochs", type=float, default=10.0, help="epochs of each SMP run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/sst2.md"))
    return parser.parse_args()


def configurations(arguments: argparse.Namespace) -> dict[str, dict[str, Any]]:
    pruned = {
        f"smp-s-{density:g}": {
            "density": density,
            "epochs": arguments.epochs,
        }
        for density in DENSITIES
    }
    return {"finetune": {"method": "finetune"}, **pruned}


def write_table(arguments: argparse.Namespace, models: list[Path], bench: Path) -> None:
    content = json.loads(bench.read_text(encoding="utf-8"))
    lines = [
        "| model | density | dev accuracy (95 % interval) | bytes | zipped | steps | training s |",
        "| --- | ---: | --- | ---: | ---: | ---: | ---: |",
    ]
    for directory, model in zip(models, content["models"], strict=True):
        run = read_run(arguments.work_dir / f"{directory.name.rpartition('-')[0]}-run")
        score = model["quality"]["metrics"]["accuracy"]
        lines.append(
            f"| {directory.name} | {run.density:.4f} "
            f"| {score['value']:.4f} ({score['low']:.4f} to {score['high']:.4f}) "
            f"| {model['size']['model_bytes']:,} | {model['size']['zipped_bytes']:,} "
            f"| {run.training['steps']} | {run.training['seconds']:.0f} |"
        )
    machine = content["machine"]
    lines += ["", f"Machine: {json.dumps(machine)}", ""]
    for directory in models:
        run = read_run(arguments.work_dir / f"{directory.name.rpartition('-')[0]}-run")
        chosen = {key: run.settings[key] for key in SETTINGS}
        lines.append(f"- {directory.name}: {json.dumps(chosen)}, {run.hardware['precision']}")
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines[: 2 + len(models)]))
    print(f"wrote {arguments.output}")


SETTINGS = (
    "epochs",
    "batch_size",
    "learning_rate",
    "lambda",
    "score_init",
    "score_init_scale",
    "density_fraction",
    "head",
    "seed",
)


if __name__ == "__main__":
    sys.exit(main())
