"""Runs that an earlier, stopped measurement left."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.artifacts.run import read_run
from pipeline.errors import ConfigurationError

__all__ = ["check_same"]


def check_same(directory: Path, settings: Mapping[str, Any]) -> None:
    """A run counts only if it was made in the same way.

    Args:
        directory: the run directory.
        settings: the settings that it should have, by the names of the configuration's fields.

    Raises:
        ConfigurationError: it has others.
    """
    found = read_run(directory).settings
    for key, value in settings.items():
        if key == "output_dir":
            continue
        expected = str(value) if isinstance(value, Path) else value
        if found.get(key) != expected:
            raise ConfigurationError(
                f"{directory} has {key} {found.get(key)}, not {expected}; use another --work-dir"
            )
