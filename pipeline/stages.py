"""Calls a stage with its configuration; the heavy imports happen here."""

import dataclasses
import importlib.util
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.artifacts.manifest import to_json
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
from pipeline.config.fields import key_name
from pipeline.environment import is_main_process
from pipeline.errors import MachineError, PipelineError
from pipeline.status import status_line

__all__ = ["Result", "plan_stage", "pytorch_loader", "run_serve", "run_stage"]

_TRAINING_PACKAGES = ("torch", "transformers", "accelerate", "datasets", "onnx", "onnxscript")
_BENCH_PACKAGES = ("datasets",)
_SERVING_PACKAGES = (
    "uvicorn",
    "httptools",
    "starlette",
    "msgspec",
    "grpc",
    "grpc_health",
    "tritonclient",
    "prometheus_client",
)

Config = (
    TrainConfig
    | ExportConfig
    | BenchConfig
    | ReportConfig
    | ServeConfig
    | CheckConfig
    | ImportMasksConfig
    | ExportMasksConfig
)


@dataclass(frozen=True)
class Result:
    """What a stage gave.

    Attributes:
        facts: for machines, as plain JSON types.
        show: prints the same for people, on stdout.
        passed: False for a check that found a regression.
        failure: what ends the command once the result is shown.
    """

    facts: Any
    show: Callable[[], None]
    passed: bool = True
    failure: PipelineError | None = None


def run_stage(name: str, config: Config) -> Result | None:
    """Run one stage. What it has to say beside its result goes to stderr.

    Args:
        name: the stage's command.
        config: its configuration, of all stages but serve.

    Returns:
        What it gave; None in a process whose main process tells it (training on several devices).

    Raises:
        PipelineError: whatever the stage raises; MachineError if its packages are missing.
    """
    match config:
        case TrainConfig():
            _need_packages(name, _TRAINING_PACKAGES, extras="train")
            with status_line("loading PyTorch"):
                _quiet_transformers()
                import torch

                from pipeline.info import describe, print_description
                from smp.train import train
                from smp.unfinished import unfinished_directory

            try:
                manifest = train(config)
            except torch.OutOfMemoryError as error:
                raise MachineError(
                    "the GPU has too little memory; lower --batch-size (and raise "
                    "--gradient-accumulation-steps) or --max-length, add --gradient-checkpointing, "
                    "or use --device cpu"
                ) from error
            except KeyboardInterrupt:
                unfinished = unfinished_directory(config.output_dir)
                if unfinished.exists():
                    print(f"{unfinished} is kept: go on with --resume", file=sys.stderr)
                raise
            if not is_main_process():
                return None
            print(f"wrote {config.output_dir}", file=sys.stderr)
            return Result(to_json(manifest), lambda: print_description(describe(config.output_dir)))
        case ExportConfig():
            _need_packages(name, _TRAINING_PACKAGES, extras="train")
            with status_line("loading PyTorch"):
                _quiet_transformers()
                from serve.session import import_onnxruntime

                import_onnxruntime()
                from export import convert_file, export_delta, export_run
                from pipeline.info import print_exported

            if config.format == "delta":
                delta = export_delta(config)
                print(f"wrote {config.output_dir}\n{delta.summary()}", file=sys.stderr)
                return Result(to_json(delta), lambda: print_exported(config.output_dir, {}))
            exported = export_run(config) if config.from_onnx is None else convert_file(config)
            print(f"wrote {config.output_dir}", file=sys.stderr)
            if exported.engine is not None:
                print(exported.engine.summary(), file=sys.stderr)
            facts = to_json(exported)
            return Result(facts, lambda: print_exported(config.output_dir, facts))
        case BenchConfig():
            if config.validation_file is not None:
                _need_packages(name, _BENCH_PACKAGES, extras="cpu,bench")
            with status_line("loading ONNX Runtime"):
                from pipeline.report import print_benchmark, write_benchmark_files
                from serve.bench import run_benchmark

            benchmark = run_benchmark(config, load_pytorch=pytorch_loader(config))
            written = write_benchmark_files(benchmark, config.output)
            print("wrote " + ", ".join(map(str, written)), file=sys.stderr)
            return Result(to_json(benchmark), lambda: print_benchmark(benchmark))
        case ReportConfig():
            from pipeline.report import write_report

            written = write_report(config)
            print("wrote " + ", ".join(map(str, written)), file=sys.stderr)
            return Result({"files": to_json(written)}, lambda: None)
        case CheckConfig():
            return _check(config)
        case ImportMasksConfig():
            _need_packages(name, _TRAINING_PACKAGES, extras="train")
            with status_line("loading PyTorch"):
                _quiet_transformers()
                from pipeline.info import describe, print_description
                from smp.import_masks import import_masks

            imported = import_masks(config)
            print(f"wrote {config.output_dir}", file=sys.stderr)
            return Result(to_json(imported), lambda: print_description(describe(config.output_dir)))
        case ExportMasksConfig():
            from pipeline.export_masks import export_masks

            masks = export_masks(config)
            print(f"wrote {config.output}\n{masks.summary()}", file=sys.stderr)
            return Result(to_json(masks), lambda: None)
    raise TypeError(f"{type(config).__name__} is no stage's that ends with a result")


def _check(config: CheckConfig) -> Result:
    from pipeline.gate import check, print_gate, report_to_github, wants_github, write_junit
    from pipeline.gate.github import annotate

    on_github = wants_github(config)
    try:
        result = check(config)
        if config.junit is not None:
            write_junit(config.junit, result)
            print(f"wrote {config.junit}", file=sys.stderr)
        if on_github:
            report_to_github(result)
    except PipelineError as error:
        if on_github:
            annotate("error", str(error))
        raise
    failure = None
    if result.verdict == "updated":
        print(f"wrote {config.baseline}", file=sys.stderr)
    if result.verdict == "unmeasured":
        failure = MachineError(
            f"{config.bench} {result.summary}; run `smp-pipeline bench` again on a quieter "
            "machine, or give --allow-unmeasured"
        )
    return Result(to_json(result), lambda: print_gate(result), result.passed, failure)


def run_serve(config: ServeConfig, *, as_json: bool) -> None:
    """Serve until told to stop; says on stdout where.

    Raises:
        PipelineError: whatever the server raises; MachineError if its packages are missing.
    """
    _need_packages("serve", _SERVING_PACKAGES, extras="cpu,serve")
    with status_line("starting the server"):
        from serve.server.server import run_server

    run_server(config, as_json=as_json)


def pytorch_loader(config: BenchConfig) -> Any:
    """What loads the model of PyTorch's peers; `serve` does not import PyTorch."""
    peers = [peer for peer in config.peers if peer.startswith("pytorch")]
    if not peers:
        return None
    _need_packages(f"bench --peers {peers[0]}", _TRAINING_PACKAGES, extras="train")
    # OpenMP's threads spin on after a parallel part, as a rule for milliseconds, and would slow
    # down what is timed next; this leaves them time to go on from one operator to the next.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    if "pytorch-compiled" in peers:
        print("compiling with torch.compile, which can take minutes", file=sys.stderr)
    with status_line("loading PyTorch"):
        _quiet_transformers()
        from export.pytorch import load_pytorch

    return load_pytorch


def plan_stage(name: str, config: Config) -> Result:
    """The resolved configuration and, for training, what it would cost."""
    if isinstance(config, TrainConfig):
        _need_packages(name, _TRAINING_PACKAGES, extras="train")
        with status_line("reading the model and the data"):
            _quiet_transformers()
            from smp.estimate import estimate

            config = config.resolved()
            plan = to_json(estimate(config))
    else:
        plan = {}
    settings = _settings(config)
    return Result(
        {"stage": name, "settings": settings, **plan}, lambda: _print_plan(name, settings, plan)
    )


def _print_plan(name: str, settings: Mapping[str, Any], plan: Mapping[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    for title, values, text in (
        ("settings", settings, lambda _, value: _text(value)),
        ("estimate", plan, _rounded),
    ):
        table = Table(title=f"{name}: {title}", title_justify="left", show_header=False)
        for key, value in values.items():
            table.add_row(key, text(key, value))
        if table.row_count:
            Console().print(table)


def _settings(config: Config) -> dict[str, Any]:
    fields = dataclasses.fields(config)
    return {key_name(field): to_json(getattr(config, field.name)) for field in fields}


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "" if value is None else str(value)


def _rounded(name: str, value: Any) -> str:
    """A figure of an estimate for people: in MB and minutes, as roughly as it is known."""
    if name.endswith("_bytes"):
        return f"about {value / 1e6:,.3g} MB"
    if name == "seconds":
        return f"about {value:.0f} s" if value < 120 else f"about {value / 60:.0f} min"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _need_packages(name: str, packages: Sequence[str], *, extras: str) -> None:
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        raise MachineError(
            f"smp-pipeline {name} needs {', '.join(missing)}; "
            f"install them with: pip install 'smp-pipeline[{extras}]'"
        )


def _quiet_transformers() -> None:
    from transformers.utils import logging

    # Its load reports and bars say nothing that ours do not.
    logging.set_verbosity_error()
    logging.disable_progress_bar()
