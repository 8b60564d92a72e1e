"""One YAML file for the stages ``train``, ``export``, ``bench``, ``report`` and ``gate``.

Each key holds one stage's settings, or a list of them to run that stage several times. A stage's
keys are its flags without the dashes; those of ``gate`` are the flags of ``smp-pipeline check``.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from pipeline.closest import closest
from pipeline.config import BenchConfig, CheckConfig, ExportConfig, ReportConfig, TrainConfig
from pipeline.config.fields import build, key_name
from pipeline.errors import ConfigurationError

__all__ = ["STAGES", "read_recipe", "resolve"]

Stage = TrainConfig | ExportConfig | BenchConfig | ReportConfig | CheckConfig

STAGES: Mapping[str, type[Stage]] = {
    "train": TrainConfig,
    "export": ExportConfig,
    "bench": BenchConfig,
    "report": ReportConfig,
    "gate": CheckConfig,
}
# A stage's earlier name -> its name.
_RENAMED = {"check": "gate"}


def read_recipe(path: Path) -> dict[str, list[dict[str, Any]]]:
    """Read a recipe's values, unchecked but for their form.

    Returns:
        stage name -> the settings of each run of the stage, in the file's order.

    Raises:
        ConfigurationError: no file, no YAML, or not of the form above.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigurationError(f"RECIPE {path}: no such file") from error
    except (UnicodeDecodeError, yaml.YAMLError, IsADirectoryError) as error:
        reason = " ".join(str(error).split())
        raise ConfigurationError(f"RECIPE {path}: not valid YAML ({reason})") from error
    if not isinstance(content, dict) or not content:
        raise ConfigurationError(f"RECIPE {path}: give at least one of {', '.join(STAGES)}")
    stages: dict[str, list[dict[str, Any]]] = {}
    for key, value in content.items():
        name = _RENAMED.get(str(key), str(key))
        if name in stages:
            raise ConfigurationError(
                f"RECIPE {path}: {name} is there twice, once under its earlier name; keep one"
            )
        if name not in STAGES:
            raise ConfigurationError(
                f"RECIPE {path}: unknown stage {name!r}; stages are {', '.join(STAGES)}"
            )
        runs = value if isinstance(value, list) else [value]
        if not runs or not all(isinstance(run, dict) for run in runs):
            raise ConfigurationError(
                f"RECIPE {path}: {name} must be a mapping of settings, or a list of mappings"
            )
        stages[name] = [{str(key): item for key, item in run.items()} for run in runs]
    return stages


def resolve(
    recipe: Mapping[str, Sequence[Mapping[str, Any]]],
    flags: Sequence[str],
    *,
    source: str,
    own_flags: Sequence[str] = (),
) -> list[tuple[str, Stage]]:
    """Check a recipe's settings and put them in the order in which they run.

    Args:
        recipe: what :func:`read_recipe` gave.
        flags: further words of the command line, which win over the file: ``--key value`` where
            only one stage of the recipe has the key, else ``--stage.key value``, or
            ``--stage.2.key value`` for the second run of a stage. Values are read as YAML; a key
            without a value is true, and false after ``no-``; a key given several times makes a
            list.
        source: the recipe's path, for messages.
        own_flags: flags of the command itself, which may have been meant by an unknown one.

    Returns:
        (stage name, configuration), first train, then export, bench, report, gate.

    Raises:
        ConfigurationError: an unknown key, a value of the wrong type or out of bounds.
    """
    runs = {name: [dict(run) for run in recipe[name]] for name in STAGES if name in recipe}
    for (stage, number, key), value in _read_flags(flags, runs, own_flags).items():
        chosen = runs[stage] if number is None else [runs[stage][number - 1]]
        for run in chosen:
            run[key] = value
    return [
        (name, build(STAGES[name], run, source=f"{source}: {name}"))
        for name, stage_runs in runs.items()
        for run in stage_runs
    ]


def _read_flags(
    words: Sequence[str], runs: Mapping[str, Sequence[Any]], own_flags: Sequence[str]
) -> dict[tuple[str, int | None, str], Any]:
    values: dict[tuple[str, int | None, str], Any] = {}
    position = 0
    while position < len(words):
        flag, equals, text = words[position].partition("=")
        position += 1
        if not flag.startswith("--"):
            raise ConfigurationError(f"{flag!r} is no flag; flags start with --")
        positive = _positive(flag, runs)
        if not equals and positive is not None:
            flag, text = positive, "false"
        elif not equals:
            has_value = position < len(words) and not words[position].startswith("--")
            text = words[position] if has_value else "true"
            position += has_value
        target = _target(flag, runs, own_flags)
        value = _yaml_value(flag, text)
        if target in values:
            earlier = values[target]
            value = [*earlier, value] if isinstance(earlier, list) else [earlier, value]
        values[target] = value
    return values


def _positive(flag: str, runs: Iterable[str]) -> str | None:
    """``--stage.key`` for ``--stage.no-key``; None for a flag of another form."""
    path, dot, key = flag.removeprefix("--").rpartition(".")
    positive = key.removeprefix("no-")
    is_negative = positive != key and any(positive in _keys(stage) for stage in runs)
    return f"--{path}{dot}{positive}" if is_negative else None


def _target(
    flag: str, runs: Mapping[str, Sequence[Any]], own_flags: Sequence[str]
) -> tuple[str, int | None, str]:
    *path, key = flag.removeprefix("--").split(".")
    holders = [name for name in runs if key in _keys(name)]
    if not path:
        if len(holders) == 1:
            return holders[0], None, key
        if holders:
            choices = " or ".join(f"--{name}.{key}" for name in holders)
            raise ConfigurationError(f"{flag} is a flag of several stages; write {choices}")
        known = [*own_flags, *(f"--{name}" for stage in runs for name in _keys(stage))]
        meant = closest(flag, known)
        hint = f"; did you mean {meant}?" if meant else "; see --help of each stage"
        raise ConfigurationError(f"{flag} is a flag of no stage in the recipe{hint}")
    stage = _RENAMED.get(path[0], path[0])
    number = path[1] if len(path) > 1 else None
    if stage not in runs or key not in _keys(stage) or len(path) > 2:
        meant = closest(flag, [f"--{name}.{key}" for name in runs for key in _keys(name)])
        raise ConfigurationError(
            f"{flag}: write --stage.key with one of {', '.join(runs)} and a flag of that stage"
            + (f"; did you mean {meant}?" if meant else "")
        )
    if number is not None and not (number.isdigit() and 1 <= int(number) <= len(runs[stage])):
        raise ConfigurationError(f"{flag}: the recipe has {len(runs[stage])} runs of {stage}")
    return stage, None if number is None else int(number), key


def _keys(stage: str) -> list[str]:
    return [key_name(field) for field in dataclasses.fields(STAGES[stage])]


def _yaml_value(flag: str, text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{flag}: {text!r} is not valid YAML") from error
