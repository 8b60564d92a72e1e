"""The command line: parses, calls a stage, prints its result, and turns errors into one line."""

import json
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from pipeline import __version__
from pipeline.config import (
    BenchConfig,
    CheckConfig,
    ExportConfig,
    ExportMasksConfig,
    ImportMasksConfig,
    ReportConfig,
    ServeConfig,
    TrainConfig,
)
from pipeline.config.fields import build, flag_name
from pipeline.errors import ConfigurationError, PipelineError
from pipeline.flags import DryRun, given_values, with_common_flags, with_flags
from pipeline.help_pages import Command, Commands

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
    cls=Commands,
    help="Prune a pretrained transformer without fine-tuning, export it to ONNX, measure it. "
    "Nothing is sent anywhere.",
    epilog="smp-pipeline train --help\nsmp-pipeline --install-completion",
    invoke_without_command=True,
    add_completion=True,
    rich_markup_mode=None,  # rich's tables leave no room in 80 columns, and take a while to import
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(asked: bool) -> None:
    if asked:
        print(__version__)
        raise typer.Exit


@app.callback()
def _common(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version and stop.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())
        raise typer.Exit(EXIT_BAD_INPUT)


def _stage(name: str, cls: type, values: dict[str, Any], *, dry_run: bool, as_json: bool) -> None:
    config = _config(cls, values)
    _run([(name, config)], dry_run=dry_run, as_json=as_json)


def _config(cls: type, values: dict[str, Any]) -> Any:
    return build(cls, given_values(cls, values), source="", name=flag_name)


def _run(
    stages: Sequence[tuple[str, Any]],
    *,
    dry_run: bool,
    as_json: bool,
    as_list: bool = False,
) -> None:
    """Run or plan stages, and print what they give: tables as they come, JSON when all is done.

    Args:
        stages: name and configuration of each.
        dry_run: only plan them.
        as_json: print JSON.
        as_list: the JSON is a list of ``{"stage": name, "result": ...}``, also for one stage.

    Raises:
        PipelineError: what a stage gave as its failure; stages after it do not run.
        typer.Exit: with code 1 after a check that found a regression; stages after it do not run.
    """
    from pipeline.stages import plan_stage, run_stage

    results = []
    passed, failure = True, None
    for name, config in stages:
        if len(stages) > 1:
            print(f"== {name}", file=sys.stderr, flush=True)
        result = plan_stage(name, config) if dry_run else run_stage(name, config)
        if result is None:
            continue
        results.append({"stage": name, "result": result.facts})
        if not as_json:
            result.show()
        passed, failure = result.passed, result.failure
        if failure is not None or not passed:
            break
    if as_json and (results or as_list):
        _print_json(results if as_list else results[0]["result"])
    if failure is not None:
        raise failure
    if not passed:
        raise typer.Exit(EXIT_REGRESSION)


def _print_json(content: Any) -> None:
    print(json.dumps(content, indent=2))


@app.command(
    cls=Command,
    epilog="""\
smp-pipeline train --model DIR_OR_HUB_ID --train-file train.csv \\
    --validation-file validation.csv --density 0.1 --output-dir runs/reviews""",
)
@with_flags(TrainConfig)
def train(json: bool, dry_run: DryRun = False, **values: Any) -> None:
    """Learn masks for a pretrained encoder on labelled texts; its weights stay frozen.

    Writes a small run directory: masks (one bit a weight), head, tokenizer and manifest. A run
    that was stopped goes on with --resume.
    """
    _stage("train", TrainConfig, values, dry_run=dry_run, as_json=json)


@app.command(
    cls=Command,
    epilog="""\
smp-pipeline export runs/reviews --format engine --output-dir models/reviews
smp-pipeline export --from-onnx model.onnx --format engine \\
    --output-dir models/fast""",
)
@with_flags(ExportConfig)
def export(json: bool, dry_run: DryRun = False, **values: Any) -> None:
    """Bake a run's masks into the frozen weights and write a verified ONNX model directory.

    ONNX Runtime is compared with PyTorch on real texts first; if they differ beyond --tolerance,
    nothing is written. With --from-onnx, an ONNX file with sparse weights is converted instead.
    """
    _stage("export", ExportConfig, values, dry_run=dry_run, as_json=json)


@app.command(
    cls=Command,
    epilog="""\
smp-pipeline bench models/dense models/reviews \\
    --validation-file validation.csv""",
)
@with_flags(BenchConfig)
def bench(json: bool, dry_run: DryRun = False, **values: Any) -> None:
    """Measure size, load time, memory, latency and accuracy of exported models, interleaved.

    Writes JSON, and a Markdown report and a chart beside it.
    """
    _stage("bench", BenchConfig, values, dry_run=dry_run, as_json=json)


@app.command(cls=Command, epilog="smp-pipeline report bench.json --output report.html")
@with_flags(ReportConfig)
def report(json: bool, dry_run: DryRun = False, **values: Any) -> None:
    """Draw one or more benchmarks: one HTML file that needs nothing else, and Markdown."""
    _stage("report", ReportConfig, values, dry_run=dry_run, as_json=json)


@app.command(
    cls=Command,
    epilog="""\
smp-pipeline check bench.json --baseline baseline.json --max-accuracy-drop 0.5
smp-pipeline check bench.json --baseline baseline.json --update""",
)
@with_flags(CheckConfig)
def check(json: bool, dry_run: DryRun = False, **values: Any) -> None:
    """Fail (exit code 1) if a benchmark is worse than a baseline, and not by chance.

    Exit code 0: passed. 1: a regression. 2: the two cannot be compared, or a latency could not be
    judged.
    """
    _stage("check", CheckConfig, values, dry_run=dry_run, as_json=json)


@app.command(
    cls=Command,
    epilog="""\
smp-pipeline serve models/reviews --port 8080 --grpc-port 8081""",
)
@with_flags(ServeConfig)
def serve(json: bool, dry_run: DryRun = False, **values: Any) -> None:
    """Answer requests over HTTP and gRPC with the Open Inference Protocol, until told to stop.

    A page to try the models by hand is at /. SIGTERM or Ctrl-C finishes what was accepted. With
    --json, one line says the addresses and the models once they are loaded.
    """
    if dry_run:
        _stage("serve", ServeConfig, values, dry_run=True, as_json=json)
        return
    config = _config(ServeConfig, values)
    from pipeline.stages import run_serve

    run_serve(config, as_json=json)


@app.command(
    cls=Command,
    context_settings={
        "allow_extra_args": True,
        "ignore_unknown_options": True,
        "allow_interspersed_args": True,
    },
    epilog="""\
smp-pipeline run recipes/demo.yaml --dry-run
smp-pipeline run recipes/demo.yaml --density 0.05 --train.seed 1""",
)
@with_common_flags
def run(
    context: typer.Context,
    json: bool,
    recipe: Annotated[str, typer.Argument(help="The YAML recipe.", metavar="RECIPE")],
    dry_run: DryRun = False,
    skip_existing: Annotated[
        bool,
        typer.Option(
            "--skip-existing",
            help="Pass over train and export stages whose output directory exists, "
            "to go on after an interruption (with --train.resume).",
            rich_help_panel="Options",
        ),
    ] = False,
) -> None:
    """Do the stages of a YAML recipe: train, export, bench, report, gate (the flags of check).

    Each key of the recipe is a stage, each key below it a flag of that stage without the dashes.
    A stage may hold a list, to run it several times. Flags given here win over the file:
    --density 0.05, or --train.seed 1 where several stages have the flag, or --train.2.density 0.05
    for the second run of a stage.
    """
    from pipeline.recipe import read_recipe, resolve
    from pipeline.usage_errors import flags_of

    if recipe.startswith("-"):
        raise ConfigurationError(f"give RECIPE before flags that go to its stages, got {recipe}")
    own_flags = flags_of(context.command)
    stages = resolve(read_recipe(Path(recipe)), context.args, source=recipe, own_flags=own_flags)
    if skip_existing:
        stages = [stage for stage in stages if not _is_done(stage[1])]
    _run(stages, dry_run=dry_run, as_json=json, as_list=True)


def _is_done(config: Any) -> bool:
    """Whether the stage's output directory is there; only complete ones ever are."""
    output = getattr(config, "output_dir", None)
    done = output is not None and output.is_dir() and any(output.iterdir())
    if done:
        print(f"skipped: {output} exists", file=sys.stderr)
    return done


@app.command(
    cls=Command,
    epilog="""\
smp-pipeline info runs/reviews
smp-pipeline info runs/reviews --heat-map reviews.png""",
)
@with_common_flags
def info(
    json: bool,
    path: Annotated[
        str | None,
        typer.Argument(help="A run directory, a model directory or a bench.json.", metavar="PATH"),
    ] = None,
    native: Annotated[
        bool,
        typer.Option(
            "--native",
            help="Print the path of the shared library that --format engine needs.",
            rich_help_panel="Options",
        ),
    ] = False,
    heat_map: Annotated[
        str | None,
        typer.Option(
            "--heat-map",
            help="Draw the densities of a run's or model's matrices into a .png or .svg file.",
            metavar="FILE",
            rich_help_panel="Options",
        ),
    ] = None,
) -> None:
    """Say what a run directory, a model directory or a bench.json holds."""
    from pipeline.info import describe, describe_native, print_description

    if native and heat_map is not None:
        raise ConfigurationError("--heat-map needs PATH, the run or model to draw")
    if native == (path is not None):
        raise ConfigurationError("info takes PATH or --native; give one of the two")
    if path is None:
        library = describe_native()
        _print_json(library) if json else print(library["path"])
        return
    description = describe(Path(path))
    if heat_map is not None:
        from pipeline.heat_map import write_heat_map

        write_heat_map(Path(heat_map), description)
        print(f"wrote {heat_map}", file=sys.stderr)
    _print_json(description) if json else print_description(description)


@app.command(
    cls=Command,
    epilog="""\
smp-pipeline import-masks mnli_0.10_kd_mag.npy --model bert-base-uncased \\
    --task mnli --label-words Yes --label-words Maybe --label-words No \\
    --output-dir runs/mnli""",
)
@with_flags(ImportMasksConfig)
def import_masks(json: bool, dry_run: DryRun = False, **values: Any) -> None:
    """Make a run directory of a mask file as the authors of SMP published them, for a BERT.

    The file holds bits alone: which model they belong to, and which word scores which label, has to
    be said.
    """
    _stage("import-masks", ImportMasksConfig, values, dry_run=dry_run, as_json=json)


@app.command(cls=Command, epilog="smp-pipeline export-masks runs/mnli --output mnli_0.10_mag.npy")
@with_flags(ExportMasksConfig)
def export_masks(json: bool, dry_run: DryRun = False, **values: Any) -> None:
    """Write the masks of a run of BERT as a file like those that the authors of SMP published."""
    _stage("export-masks", ExportMasksConfig, values, dry_run=dry_run, as_json=json)


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
        from pipeline.usage_errors import usage_message

        _fail(usage_message(error))
    except SystemExit:
        raise
    except BaseException:  # a panic in Rust, as in tokenizers, is no Exception
        # A defect of ours, or of a package; 1 is a verdict of `check`, so it has a code of its own.
        traceback.print_exc()
        code = EXIT_CRASHED
    if code == EXIT_INTERRUPTED:
        print("interrupted; nothing half-written was left", file=sys.stderr)
    sys.exit(code)


def _reason(error: OSError) -> str:
    """What the operating system said, in one line, with the file."""
    if error.strerror is None:
        return str(error).partition("\n")[0] or type(error).__name__
    return f"{error.filename}: {error.strerror}" if error.filename else error.strerror


def _fail(message: str) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(EXIT_BAD_INPUT)
