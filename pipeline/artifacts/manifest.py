"""Frozen dataclasses to JSON and back, with every type checked on the way in."""

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pipeline.errors import ArtifactError

__all__ = ["from_json", "to_json"]

T = TypeVar("T")

# No count and no size is larger, and Python's own integers have no limit.
_LARGEST_INT = 2**63 - 1


def to_json(value: Any) -> Any:
    """A dataclass as plain JSON types; NaN and infinity, which JSON lacks, become null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = dataclasses.fields(value)
        return {field.name: to_json(getattr(value, field.name)) for field in fields}
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def from_json(cls: type[T], content: Mapping[str, Any], *, source: Path) -> T:
    """Build a dataclass from JSON; unknown keys are ignored (a newer writer may add some).

    A null where the dataclass says float reads as NaN, which :func:`to_json` wrote so.

    Args:
        cls: the dataclass.
        content: the JSON object.
        source: the file that it came from, for messages.

    Raises:
        ArtifactError: a key is missing or has another type than the dataclass says.
    """
    built = _convert(cls, content, source, "")
    return typing.cast(T, built)


def _convert(expected: Any, value: Any, source: Path, where: str) -> Any:
    if expected is Any:
        return value
    origin = typing.get_origin(expected)
    arguments = typing.get_args(expected)
    if origin in (typing.Union, types.UnionType):
        return _convert_union(arguments, value, source, where)
    if origin is typing.Literal:
        if value in arguments:
            return value
        raise _mismatch(source, where, f"one of {', '.join(map(str, arguments))}", value)
    if isinstance(expected, type) and dataclasses.is_dataclass(expected):
        return _convert_dataclass(expected, value, source, where)
    if origin is tuple:
        if not isinstance(value, list):
            raise _mismatch(source, where, "a list", value)
        return tuple(
            _convert(arguments[0], item, source, f"{where}[{index}]")
            for index, item in enumerate(value)
        )
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, dict):
            raise _mismatch(source, where, "an object", value)
        return {
            key: _convert(arguments[1], item, source, f"{where}.{key}")
            for key, item in value.items()
        }
    return _convert_scalar(expected, value, source, where)


def _convert_scalar(expected: Any, value: Any, source: Path, where: str) -> Any:
    if type(value) is int and abs(value) > _LARGEST_INT:
        raise _mismatch(source, where, "a number of at most 64 bits", value)
    if expected is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if expected is float and value is None:
        return math.nan  # as to_json writes it
    if expected is type(None) and value is None:
        return None
    if expected is Path and isinstance(value, str):
        return Path(value)  # as to_json writes it
    if type(value) is expected:
        return value
    raise _mismatch(source, where, getattr(expected, "__name__", str(expected)), value)


def _convert_union(choices: tuple[Any, ...], value: Any, source: Path, where: str) -> Any:
    if value is None and type(None) in choices:
        return None
    failures = []
    for choice in choices:
        if choice is type(None):
            continue
        try:
            return _convert(choice, value, source, where)
        except ArtifactError as error:
            failures.append(error)
    raise failures[0]


def _convert_dataclass(expected: type, value: Any, source: Path, where: str) -> Any:
    if not isinstance(value, dict):
        raise _mismatch(source, where, "an object", value)
    hints = typing.get_type_hints(expected)
    arguments = {}
    for field in dataclasses.fields(expected):
        path = f"{where}.{field.name}".lstrip(".")
        if field.name in value:
            arguments[field.name] = _convert(hints[field.name], value[field.name], source, path)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ArtifactError(f"{source} is corrupt: {path} is missing")
    return expected(**arguments)


def _mismatch(source: Path, where: str, expected: str, value: Any) -> ArtifactError:
    shown = repr(value)
    if len(shown) > 60:
        shown = shown[:57] + "..."
    place = where or "the file"
    return ArtifactError(f"{source} is corrupt: {place} must be {expected}, got {shown}")
