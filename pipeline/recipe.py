"""One YAML file for all stages: ``train``, ``export``, ``bench`` and ``check``.

Each key holds one stage's settings, or a list of them to run that stage several times. A stage's
keys are its flags without the dashes.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from pipeline.config import BenchConfig, CheckConfig, ExportConfig, TrainConfig
from pipeline.config.fields import build
from pipeline.errors import ConfigurationError

__all__ = ["STAGES", "read_recipe", "resolve"]

Stage = TrainConfig | ExportConfig | BenchConfig | CheckConfig

STAGES: Mapping[str, type[Stage]] = {
    "train": TrainConfig,
    "export": ExportConfig,
    "bench": BenchConfig,
    "check": CheckConfig,
}


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
    stages = {}
    for name, value in content.items():
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
    recipe: Mapping[str, Iterable[Mapping[str, Any]]],
    overrides: Iterable[str],
    *,
    source: str,
) -> list[tuple[str, Stage]]:
    """Check a recipe's settings and put them in the order in which they run.

    Args:
        recipe: what :func:`read_recipe` gave.
        overrides: ``stage.key=value``, the value in YAML; they win over the file and hold for
            every run of the stage.
        source: the recipe's path, for messages.

    Returns:
        (stage name, configuration), first train, then export, bench, check.

    Raises:
        ConfigurationError: an unknown key, a value of the wrong type or out of bounds.
    """
    changes = [_parse_override(text) for text in overrides]
    for stage, key, _ in changes:
        if stage not in recipe:
            raise ConfigurationError(
                f"--set {stage}.{key}: the recipe has no stage {stage!r}; "
                f"it has {', '.join(recipe)}"
            )
    resolved: list[tuple[str, Stage]] = []
    for name, cls in STAGES.items():
        for run in recipe.get(name, ()):
            values = dict(run)
            values.update({key: value for stage, key, value in changes if stage == name})
            resolved.append((name, build(cls, values, source=f"{source}: {name}")))
    return resolved


def _parse_override(text: str) -> tuple[str, str, Any]:
    target, equals, value = text.partition("=")
    stage, dot, key = target.partition(".")
    if not equals or not dot or not key:
        raise ConfigurationError(
            f"--set {text!r}: give stage.key=value, for instance train.density=0.1"
        )
    try:
        return stage, key, yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ConfigurationError(f"--set {text!r}: the value is not valid YAML") from error
