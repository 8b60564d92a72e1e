"""The directory beside a run that holds its checkpoints until the run is complete."""

import dataclasses
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.artifacts.files import disk_errors, read_json, staged_file
from pipeline.artifacts.manifest import to_json
from pipeline.config import TrainConfig
from pipeline.config.fields import flag_name
from pipeline.environment import is_main_process
from pipeline.errors import ConfigurationError

__all__ = ["last_checkpoint", "mark_complete", "open_unfinished", "unfinished_directory"]

_SETTINGS_FILE = "settings.json"
_COMPLETE_FILE = "complete"
_KIND = "smp-unfinished-run"
_SCHEMA_VERSION = 1
# What may differ between the run that was stopped and the one that goes on.
_FREE = ("output_dir", "resume", "report_to")


def unfinished_directory(output_dir: Path) -> Path:
    """Where the checkpoints of a run lie until it is complete."""
    return output_dir.with_name(output_dir.name + ".partial")


def mark_complete(checkpoint: Path) -> None:
    """Mark a checkpoint as written to its end."""
    (checkpoint / _COMPLETE_FILE).touch()


def last_checkpoint(directory: Path) -> Path | None:
    """The last complete checkpoint of an unfinished run, None if there is none.

    What was being written when the run was killed is removed.
    """
    complete: dict[int, Path] = {}
    for path in directory.glob("checkpoint-*"):
        if (path / _COMPLETE_FILE).exists():
            complete[int(path.name.removeprefix("checkpoint-"))] = path
        elif is_main_process():
            shutil.rmtree(path)
    return complete[max(complete)] if complete else None


@contextmanager
def open_unfinished(config: TrainConfig, inputs: Mapping[str, str | None]) -> Iterator[Path]:
    """Make, or with ``--resume`` reopen, the directory for checkpoints.

    It stays if the run is stopped, for ``--resume``, unless it holds no checkpoint yet.

    Args:
        config: the configuration.
        inputs: flag -> hash of what it named, which must be the same on resuming.

    Raises:
        ConfigurationError: the output exists already, an unfinished run is there without
            ``--resume``, or it was started with other settings or inputs.
    """
    directory = unfinished_directory(config.output_dir)
    if not is_main_process():  # the first process checks and makes it for all
        yield directory
        return
    output = config.output_dir
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ConfigurationError(
            f"--output-dir {output} exists and is not empty; choose another or remove it"
        )
    if directory.exists() and not config.resume:
        raise ConfigurationError(
            f"an unfinished run is in {directory}; add --resume to go on with it, or remove it"
        )
    settings = {**to_json(config), "inputs": dict(inputs)}
    with disk_errors(directory):
        if (directory / _SETTINGS_FILE).exists():
            _compare(directory / _SETTINGS_FILE, settings, config)
        else:
            directory.mkdir(parents=True, exist_ok=True)
            with staged_file(directory / _SETTINGS_FILE) as path:
                content = {"kind": _KIND, "schema_version": _SCHEMA_VERSION, **settings}
                path.write_text(json.dumps(content, indent=2), encoding="utf-8")
        try:
            yield directory
        finally:
            if directory.exists() and not any(directory.glob("checkpoint-*")):
                shutil.rmtree(directory)


def _compare(path: Path, settings: dict[str, Any], config: TrainConfig) -> None:
    earlier = read_json(path, kind=_KIND, schema_version=_SCHEMA_VERSION)
    for field in dataclasses.fields(config):
        if field.name in _FREE or earlier.get(field.name) == settings[field.name]:
            continue
        raise ConfigurationError(
            f"--resume: {flag_name(field)} was {earlier.get(field.name)!r} when the run started "
            f"and is {settings[field.name]!r} now; give the same, or remove {path.parent}"
        )
    hashes = earlier.get("inputs")
    for flag, digest in settings["inputs"].items():
        if not isinstance(hashes, dict) or hashes.get(flag) != digest:
            raise ConfigurationError(
                f"--resume: what {flag} names has changed since the run started; "
                f"restore it, or remove {path.parent}"
            )
