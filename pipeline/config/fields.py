"""Fields of a configuration: help text, bounds, and how a recipe's values become field values.

A configuration is a frozen dataclass whose fields are made with :func:`option`. From the same
fields come the command's flags (pipeline.flags), the recipe's keys (pipeline.recipe) and the
checks, so that none of the three can lack what another has.
"""

import contextlib
import dataclasses
import math
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pipeline.closest import closest
from pipeline.errors import ConfigurationError

__all__ = [
    "build",
    "check_bounds",
    "check_output_directory",
    "flag_name",
    "key_name",
    "option",
]

T = TypeVar("T")

_REQUIRED = object()


def option(
    default: Any = _REQUIRED,
    *,
    help: str,
    minimum: float | None = None,
    maximum: float | None = None,
    exclusive_minimum: bool = False,
    positional: bool = False,
    group: str = "Options",
) -> Any:
    """A field of a configuration.

    Args:
        default: the value if neither flag nor recipe gives one; none makes the field required.
        help: one line for ``--help``, with the unit.
        minimum: smallest value that is allowed.
        maximum: largest value that is allowed.
        exclusive_minimum: the minimum itself is not allowed.
        positional: an argument of the command and not a flag.
        group: the heading that the flag stands under in ``--help``.
    """
    metadata = {
        "help": help,
        "minimum": minimum,
        "maximum": maximum,
        "exclusive_minimum": exclusive_minimum,
        "positional": positional,
        "group": group,
    }
    if default is _REQUIRED:
        return dataclasses.field(metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def key_name(field: "dataclasses.Field[Any]") -> str:
    """The recipe's key: the field's name (``lambda_`` is ``lambda``, which Python reserves)."""
    return field.name.rstrip("_").replace("_", "-")


def flag_name(field: "dataclasses.Field[Any]") -> str:
    """The command line's name for the field: ``--flag``, or ``NAME`` for a positional one."""
    name = key_name(field)
    return name.upper() if field.metadata["positional"] else f"--{name}"


def check_bounds(config: Any) -> None:
    """Check every number of a configuration against its field's bounds.

    Raises:
        ConfigurationError: a value is NaN or out of bounds.
    """
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        for item in value if isinstance(value, tuple) else (value,):
            if isinstance(item, int | float) and not isinstance(item, bool):
                _check_number(field, item)


def _check_number(field: "dataclasses.Field[Any]", value: float) -> None:
    low, high = field.metadata["minimum"], field.metadata["maximum"]
    exclusive = field.metadata["exclusive_minimum"]
    too_low = low is not None and (value <= low if exclusive else value < low)
    too_high = high is not None and value > high
    finite = isinstance(value, int) or math.isfinite(value)
    if finite and not too_low and not too_high:
        return
    bounds = []
    if low is not None:
        bounds.append(f"{'greater than' if exclusive else 'at least'} {low:g}")
    if high is not None:
        bounds.append(f"at most {high:g}")
    expected = " and ".join(bounds) or "a finite number"
    raise ConfigurationError(f"{flag_name(field)} must be {expected}, got {value}")


def check_output_directory(path: Path) -> None:
    """Check that a path names a directory, which can then be made beside its siblings.

    Raises:
        ConfigurationError: it is ``.``, ``..`` or ``/``.
    """
    if path.name in ("", ".."):
        raise ConfigurationError(f"--output-dir must be a new directory with a name, got {path}")


def build(
    cls: type[T],
    values: Mapping[str, Any],
    *,
    source: str,
    name: Callable[["dataclasses.Field[Any]"], str] = key_name,
) -> T:
    """Build a configuration from recipe values.

    Args:
        cls: the configuration.
        values: key (as :func:`key_name` gives it) -> value of the YAML type.
        source: where the values come from, for messages; empty for the command line.
        name: how a field is called there; on the command line :func:`flag_name`.

    Raises:
        ConfigurationError: an unknown or missing key, or a value of the wrong type or out of
            bounds.
    """
    place = f"{source}: " if source else ""
    fields = {key_name(field): field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for key in values:
        if key not in fields:
            raise ConfigurationError(
                f"{place}unknown key {key!r}{_suggestion(key, fields)}; "
                f"known keys are {', '.join(sorted(fields))}"
            )
    hints = typing.get_type_hints(cls)
    arguments = {}
    for key, field in fields.items():
        if key in values:
            arguments[field.name] = _convert(
                hints[field.name], values[key], f"{place}{name(field)}"
            )
        elif field.default is dataclasses.MISSING:
            raise ConfigurationError(f"{place}{flag_name(field)} is needed")
    return cls(**arguments)


def _suggestion(key: str, known: Iterable[str]) -> str:
    meant = closest(key.replace("_", "-"), known)
    return f" (did you mean {meant!r}?)" if meant else ""


def _convert_item(expected: Any, value: Any, where: str) -> Any:
    try:
        return _convert(expected, value, where)
    except ConfigurationError as error:
        if isinstance(value, str) and len(value.replace(",", " ").split()) > 1:
            raise ConfigurationError(f"{error}; repeat the flag for several") from None
        raise


def _convert(expected: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(expected), typing.get_args(expected)
    if origin in (typing.Union, types.UnionType):
        if value is None:
            return None
        (inner,) = (argument for argument in arguments if argument is not type(None))
        return _convert(inner, value, where)
    if origin is typing.Literal:
        if value in arguments:
            return value
        meant = _suggestion(value, arguments) if isinstance(value, str) else ""
        raise ConfigurationError(
            f"{where} must be one of {', '.join(arguments)}, got {value!r}{meant}"
        )
    if origin is tuple:
        items = value if isinstance(value, list | tuple) else [value]
        return tuple(_convert_item(arguments[0], item, where) for item in items)
    if expected is Path and isinstance(value, str | Path) and str(value):
        with contextlib.suppress(RuntimeError):  # ~name of nobody
            return Path(value).expanduser()
        return Path(value)
    if expected is float and isinstance(value, int | float | str) and not isinstance(value, bool):
        # YAML 1.1 reads 1e-2 as a text: it wants a point in a number with an exponent.
        with contextlib.suppress(ValueError, OverflowError):
            return float(value)
    if type(value) is expected:
        return value
    if expected is str and isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    names = {"str": "a text", "Path": "a path", "int": "a whole number", "float": "a number"}
    name = names.get(expected.__name__, "true or false")
    hint = "; put it in quotes" if expected is str and isinstance(value, bool) else ""
    raise ConfigurationError(f"{where} must be {name}, got {value!r}{hint}")
