"""The command line: parses, calls a stage, prints its result, and turns errors into one line."""

import json
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from pipeline import __version__
from pipeline.config import BenchConfig, CheckConfig, ExportConfig, ServeConfig, TrainConfig
from pipeline.config.fields import build
from pipeline.errors import ConfigurationError, PipelineError
from pipeline.flags import given_values, with_flags
from pipeline.stages import plan_stage, run_stage

__all__ = ["app", "main"]

PROGRAM = "smp-pipeline"
EXIT_REGRESSION = 1
EXIT_BAD_INPUT = 2
EXIT_CRASHED = 70
EXIT_INTERRUPTED = 130

# The base of all that typer finds wrong with a command line. It comes from click, or from typer's
# own copy of it, by version.
_UsageError = cast(type[Exception], typer.BadParameter.__base__)

app = typer.Typer(
    name=PROGRAM,
    help="Prune a pretrained transformer without fine-tuning, export it to ONNX, measure it.\n\n"
    "train learns masks, export writes a verified ONNX model directory, bench measures it, "
    "serve answers requests with it, check compares two benchmarks, run does train, export, bench "
    "and check from one recipe. Nothing is sent anywhere.",
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="Print the resolved configuration and an estimate, and stop."),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]


def _print_version(asked: bool) -> None:
    if asked:
        print(__version__)
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version and stop.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    pass


def _stage(name: str, cls: type, values: dict[str, Any], *, dry_run: bool, as_json: bool) -> None:
    config: Any = build(cls, given_values(cls, values), source=f"smp-pipeline {name}")
    _run([(name, config)], dry_run=dry_run, as_json=as_json)


def _run(stages: Sequence[tuple[str, Any]], *, dry_run: bool, as_json: bool) -> None:
    for name, config in stages:
        if len(stages) > 1:
            print(f"== {name}", file=sys.stderr, flush=True)
        if dry_run:
            plan_stage(name, config, as_json=as_json)
        elif not run_stage(name, config, as_json=as_json):
            raise typer.Exit(EXIT_REGRESSION)


@app.command()
@with_flags(TrainConfig)
def train(dry_run: DryRun = False, json: Json = False, **values: Any) -> None:
    """Learn masks for a pretrained encoder on labelled texts; its weights stay frozen.

    Writes a small run directory: masks (one bit a weight), head, tokenizer and manifest. A run
    that was stopped goes on with --resume.

    Example: smp-pipeline train --model DIR_OR_HUB_ID --train-file train.csv
    --validation-file validation.csv --density 0.1 --output-dir runs/reviews
    """
    _stage("train", TrainConfig, values, dry_run=dry_run, as_json=json)


@app.command()
@with_flags(ExportConfig)
def export(dry_run: DryRun = False, json: Json = False, **values: Any) -> None:
    """Bake a run's masks into the frozen weights and write a verified ONNX model directory.

    ONNX Runtime is compared with PyTorch on real texts first; if they differ beyond --tolerance,
    nothing is written. With --from-onnx, an ONNX file with sparse weights is converted instead.

    Example: smp-pipeline export runs/reviews --format engine --output-dir models/reviews

    Example: smp-pipeline export --from-onnx model.onnx --format engine --output-dir models/fast
    """
    _stage("export", ExportConfig, values, dry_run=dry_run, as_json=json)


@app.command()
@with_flags(BenchConfig)
def bench(dry_run: DryRun = False, json: Json = False, **values: Any) -> None:
    """Measure size, load time, memory, latency and accuracy of exported models, interleaved.

    Writes JSON, and a Markdown report and a plot beside it.

    Example: smp-pipeline bench models/dense models/reviews --validation-file validation.csv
    """
    _stage("bench", BenchConfig, values, dry_run=dry_run, as_json=json)


@app.command()
@with_flags(CheckConfig)
def check(json: Json = False, **values: Any) -> None:
    """Fail (exit code 1) if a benchmark is worse than a baseline, and not by chance.

    Exit code 0: passed. 1: a regression. 2: the two cannot be compared, or a latency could not be
    judged.

    Example: smp-pipeline check bench.json --baseline baseline.json --max-accuracy-drop 0.5

    Example: smp-pipeline check bench.json --baseline baseline.json --update
    """
    _stage("check", CheckConfig, values, dry_run=False, as_json=json)


@app.command()
@with_flags(ServeConfig)
def serve(dry_run: DryRun = False, **values: Any) -> None:
    """Answer requests over HTTP and gRPC with the Open Inference Protocol, until told to stop.

    A page to try the models by hand is at /. SIGTERM or Ctrl-C finishes what was accepted.

    Example: smp-pipeline serve models/reviews --port 8080 --grpc-port 8081
    """
    _stage("serve", ServeConfig, values, dry_run=dry_run, as_json=False)


@app.command(
    context_settings={
        "allow_extra_args": True,
        "ignore_unknown_options": True,
        "allow_interspersed_args": True,
    }
)
def run(
    context: typer.Context,
    recipe: Annotated[Path, typer.Argument(help="The YAML recipe.", metavar="RECIPE")],
    dry_run: DryRun = False,
    skip_existing: Annotated[
        bool,
        typer.Option(
            "--skip-existing",
            help="Pass over train and export stages whose output directory exists, "
            "to go on after an interruption (with --train.resume).",
        ),
    ] = False,
) -> None:
    """Do the stages of a YAML recipe: train, export, bench, gate (the flags of check).

    Each key of the recipe is a stage, each key below it a flag of that stage without the dashes.
    A stage may hold a list, to run it several times. Flags given here win over the file:
    --density 0.05, or --train.seed 1 where several stages have the flag, or --train.2.density 0.05
    for the second run of a stage.

    Example: smp-pipeline run recipes/demo.yaml --dry-run
    """
    from pipeline.recipe import read_recipe, resolve

    if str(recipe).startswith("-"):
        raise ConfigurationError(f"give RECIPE before flags that go to its stages, got {recipe}")
    stages = resolve(read_recipe(recipe), context.args, source=str(recipe))
    if skip_existing:
        stages = [stage for stage in stages if not _is_done(stage[1])]
    _run(stages, dry_run=dry_run, as_json=False)


def _is_done(config: Any) -> bool:
    """Whether the stage's output directory is there; only complete ones ever are."""
    output = getattr(config, "output_dir", None)
    done = output is not None and output.is_dir() and any(output.iterdir())
    if done:
        print(f"skipped: {output} exists", file=sys.stderr)
    return done


@app.command()
def info(
    path: Annotated[
        Path | None, typer.Argument(help="A run directory, a model directory or a bench.json.")
    ] = None,
    native: Annotated[
        bool,
        typer.Option(
            "--native", help="Print the path of the shared library that --format engine needs."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Say what a run directory, a model directory or a bench.json holds.

    Example: smp-pipeline info runs/reviews
    """
    from pipeline.info import describe, describe_native, print_description

    if native == (path is not None):
        raise ConfigurationError("info takes PATH or --native; give one of the two")
    if path is None:
        library = describe_native()
        print(json.dumps(library, indent=2) if as_json else library["path"])
        return
    description = describe(path)
    if as_json:
        print(json.dumps(description, indent=2))
    else:
        print_description(description)


def main() -> None:
    """Run the command line and exit.

    0 done, 1 a regression, 2 bad input, 70 a crash, 130 interrupted.
    """
    code = EXIT_INTERRUPTED
    try:
        code = app(prog_name=PROGRAM, standalone_mode=False) or 0
    except PipelineError as error:
        _fail(str(error))
    except OSError as error:
        _fail(_reason(error))
    except (KeyboardInterrupt, typer.Abort):
        pass
    except _UsageError as error:
        _fail(_usage(error))
    except Exception:
        # A defect of ours, or of a package; 1 is a verdict of `check`, so it has a code of its own.
        traceback.print_exc()
        code = EXIT_CRASHED
    if code == EXIT_INTERRUPTED:
        print("interrupted; nothing half-written was left", file=sys.stderr)
    sys.exit(code)


def _usage(error: Any) -> str:
    """What is wrong with the command line, in one line; nothing where help was printed instead."""
    message = " ".join(error.format_message().replace("Value error, ", "").split()).rstrip(".")
    path = PROGRAM if error.ctx is None else error.ctx.command_path
    return f"{message}; see {path} --help" if message else ""


def _reason(error: OSError) -> str:
    """What the operating system said, in one line, with the file."""
    if error.strerror is None:
        return str(error).partition("\n")[0] or type(error).__name__
    return f"{error.filename}: {error.strerror}" if error.filename else error.strerror


def _fail(message: str) -> None:
    if message:
        print(f"error: {message}", file=sys.stderr)
    sys.exit(EXIT_BAD_INPUT)
