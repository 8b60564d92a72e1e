"""Calls a stage with its configuration and prints its result; the heavy imports happen here."""

import dataclasses
import importlib.util
import json
import sys
from collections.abc import Sequence
from typing import Any

from pipeline.artifacts.manifest import to_json
from pipeline.config import BenchConfig, CheckConfig, ExportConfig, ServeConfig, TrainConfig
from pipeline.config.fields import key_name
from pipeline.environment import is_main_process
from pipeline.errors import MachineError, PipelineError

__all__ = ["plan_stage", "run_stage"]

_TRAINING_PACKAGES = ("torch", "transformers", "accelerate", "onnx", "onnxscript")
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

Config = TrainConfig | ExportConfig | BenchConfig | ServeConfig | CheckConfig


def run_stage(name: str, config: Config, *, as_json: bool) -> bool:
    """Run one stage and print its result.

    Args:
        name: the stage's command.
        config: its configuration.
        as_json: print JSON in place of a table.

    Returns:
        False if the stage is a check that found a regression.

    Raises:
        PipelineError: whatever the stage raises; MachineError if its packages are missing.
    """
    match config:
        case TrainConfig():
            _need_packages(name, _TRAINING_PACKAGES, extras="train")
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
                    "--gradient-accumulation-steps), lower --max-length, or use --device cpu"
                ) from error
            except KeyboardInterrupt:
                unfinished = unfinished_directory(config.output_dir)
                if unfinished.exists():
                    print(f"{unfinished} is kept: go on with --resume", file=sys.stderr)
                raise
            if not is_main_process():
                return True
            print(f"wrote {config.output_dir}", file=sys.stderr)
            _show(
                as_json, to_json(manifest), lambda: print_description(describe(config.output_dir))
            )
        case ExportConfig():
            _need_packages(name, _TRAINING_PACKAGES, extras="train")
            _quiet_transformers()
            from serve.session import import_onnxruntime

            import_onnxruntime()
            from export import convert_file, export_delta, export_run
            from pipeline.info import print_exported

            if config.format == "delta":
                delta = export_delta(config)
                print(f"wrote {config.output_dir}\n{delta.summary()}", file=sys.stderr)
                _show(as_json, to_json(delta), lambda: print_exported(config.output_dir, {}))
                return True
            exported = export_run(config) if config.from_onnx is None else convert_file(config)
            print(f"wrote {config.output_dir}", file=sys.stderr)
            if exported.engine is not None:
                print(exported.engine.summary(), file=sys.stderr)
            facts = to_json(exported)
            _show(as_json, facts, lambda: print_exported(config.output_dir, facts))
        case BenchConfig():
            from pipeline.report import print_benchmark, write_report
            from serve.bench import run_benchmark

            benchmark = run_benchmark(config)
            written = write_report(benchmark, config.output)
            _show(as_json, to_json(benchmark), lambda: print_benchmark(benchmark))
            print("wrote " + ", ".join(map(str, [config.output, *written])), file=sys.stderr)
        case ServeConfig():
            _need_packages(name, _SERVING_PACKAGES, extras="cpu,serve")
            from serve.server.server import run_server

            run_server(config)
        case CheckConfig():
            return _check(config, as_json=as_json)
    return True


def _check(config: CheckConfig, *, as_json: bool) -> bool:
    from pipeline.gate import check, print_gate, report_to_github, wants_github, write_junit
    from pipeline.gate.github import annotation

    on_github = wants_github(config)
    try:
        result = check(config)
        _show(as_json, to_json(result), lambda: print_gate(result))
        if config.junit is not None:
            write_junit(config.junit, result)
            print(f"wrote {config.junit}", file=sys.stderr)
        if on_github:
            report_to_github(result)
    except PipelineError as error:
        if on_github:
            print(annotation("error", str(error)), file=sys.stderr)
        raise
    if result.verdict == "updated":
        print(f"wrote {config.baseline}", file=sys.stderr)
    if result.verdict == "unmeasured":
        raise MachineError(
            f"{config.bench} {result.summary}; run `smp-pipeline bench` again on a quieter "
            "machine, or give --allow-unmeasured"
        )
    return result.passed


def plan_stage(name: str, config: Config, *, as_json: bool) -> None:
    """Print the resolved configuration and, for training, what it would cost."""
    if isinstance(config, TrainConfig):
        _need_packages(name, _TRAINING_PACKAGES, extras="train")
        _quiet_transformers()
        from smp.estimate import estimate

        config = config.resolved()
        plan = {"stage": name, "settings": _settings(config), **to_json(estimate(config))}
    else:
        plan = {"stage": name, "settings": _settings(config)}
    if as_json:
        print(json.dumps(plan, indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    for title, values in (("settings", plan.pop("settings")), ("estimate", plan)):
        table = Table(title=f"{name}: {title}", title_justify="left", show_header=False)
        for key, value in values.items():
            if key != "stage":
                table.add_row(key, _text(value) if title == "settings" else _rounded(key, value))
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


def _show(as_json: bool, content: Any, show: Any) -> None:
    if as_json:
        print(json.dumps(content, indent=2))
    else:
        show()


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
