"""Where models lie: model directories, and directories of them."""

import errno
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.artifacts.exported import DATA_FILE, MANIFEST_FILE, MODEL_FILE, TOKENIZER_FILE

__all__ = ["Place", "Stamp", "find_models", "stamp"]

# What can stand in a URL's path as it is, and is no hidden directory.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_FILES = (MANIFEST_FILE, MODEL_FILE, DATA_FILE, TOKENIZER_FILE)

# Of each of _FILES: size in bytes, time of change in ns, and inode; None where it is not there.
Stamp = tuple[tuple[int, int, int] | None, ...]


@dataclass(frozen=True)
class Place:
    """Where a model lies.

    Attributes:
        name: what requests call it: the name of its directory, if the command line gives no other.
        directory: the model directory.
        is_direct: whether the command line names it, and not the directory above it.
    """

    name: str
    directory: Path
    is_direct: bool


def find_models(paths: Sequence[Path]) -> tuple[list[Place], list[str]]:
    """Find the model directories in what the command line names.

    A path that has a manifest is a model directory, and NAME=PATH gives it another name; any other
    is a directory of models, whose hidden subdirectories, and those without a manifest, are passed
    over.

    Returns:
        The models, and a line for each that cannot be one.
    """
    places: dict[str, Place] = {}
    problems = []
    for path in paths:
        try:
            found = _models_in(path)
        except OSError as error:
            problems.append(
                f"MODELS: {path} cannot be read ({error.strerror}); give what `smp-pipeline "
                "export --output-dir` wrote, or a directory of such directories"
            )
            continue
        for place in found:
            former = places.get(place.name)
            if not _NAME.fullmatch(place.name):
                problems.append(
                    f"MODELS: {place.directory} gives the model a name that cannot stand in a "
                    "URL; rename it to letters, digits, dots, dashes and underscores"
                )
            elif former is not None:
                problems.append(
                    f"MODELS: {former.directory} and {place.directory} would both be the model "
                    f"{place.name}; rename one or leave it out"
                )
            else:
                places[place.name] = place
    return list(places.values()), problems


def stamp(directory: Path) -> Stamp:
    """What tells whether the files of a model directory were changed or replaced."""
    return tuple(_file_stamp(directory / name) for name in _FILES)


def _models_in(path: Path) -> list[Place]:
    name, separator, named = str(path).partition("=")
    if separator and not path.exists():
        if "/" in name or not (Path(named) / MANIFEST_FILE).exists():
            raise FileNotFoundError(errno.ENOENT, "no model directory is there", named)
        return [Place(name, Path(named), is_direct=True)]
    if (path / MANIFEST_FILE).exists():
        # A name such as `current` stays the link's; `.` and `..` have none of their own.
        name = path.name if path.name not in ("", "..") else path.resolve().name
        return [Place(name, path, is_direct=True)]
    return [
        Place(entry.name, entry, is_direct=False)
        for entry in sorted(path.iterdir())
        if not entry.name.startswith(".") and (entry / MANIFEST_FILE).exists()
    ]


def _file_stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns, status.st_ino
