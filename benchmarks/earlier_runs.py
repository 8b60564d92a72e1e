"""Runs that an earlier, stopped measurement left."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.artifacts.files import sha256_file
from pipeline.artifacts.run import read_run
from pipeline.errors import ConfigurationError

__all__ = ["check_same"]


def check_same(directory: Path, settings: Mapping[str, Any]) -> None:
    """A run counts only if it was made in the same way, of the same data wherever they lay.

    Args:
        directory: the run directory.
        settings: the settings that it should have, by the names of the configuration's fields.

    Raises:
        ConfigurationError: it has others.
    """
    run = read_run(directory)
    hashes = {"train_file": run.train_data.sha256, "validation_file": run.validation_data.sha256}
    for key, value in settings.items():
        if key == "output_dir":
            continue
        found, expected = run.settings.get(key), value
        if key in hashes:
            found, expected = hashes[key], sha256_file(value)
        elif key == "teacher":  # a run beside this one, which is checked, too
            found, expected = Path(str(found)).name, value.name
        elif isinstance(value, Path):
            expected = str(value)
        if found != expected:
            raise ConfigurationError(
                f"{directory} has {key} {found}, not {expected}; use another --work-dir"
            )
