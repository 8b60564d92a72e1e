"""Command-line flags made from the fields of a configuration.

Typer builds a command from a function's signature. The signature here comes from the dataclass,
so a stage's flags, recipe keys and configuration fields are one list.
"""

import dataclasses
import inspect
import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.config.fields import flag_name, key_name

__all__ = ["given_values", "with_flags"]

Command = Callable[..., None]


def with_flags(cls: type) -> Callable[[Command], Command]:
    """Give a command one flag a field of the configuration.

    The command receives the values as keyword arguments; what the user left out is None (an empty
    list for several).

    Args:
        cls: the configuration.
    """

    def decorate(command: Command) -> Command:
        parameters = [
            parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            for parameter in inspect.signature(command).parameters.values()
            if parameter.kind is not inspect.Parameter.VAR_KEYWORD
        ]
        hints = typing.get_type_hints(cls)
        made = [_parameter(field, hints[field.name]) for field in dataclasses.fields(cls)]
        everything = [*made, *parameters]

        def run(**values: Any) -> None:
            command(**values)

        run.__name__, run.__doc__ = command.__name__, command.__doc__
        run.__signature__ = inspect.Signature(everything)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in everything}
        return run

    return decorate


def given_values(cls: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values that the user gave on the command line, by recipe key."""
    given = {}
    for field in dataclasses.fields(cls):
        value = values[field.name]
        if value is not None and value != [] and value != ():
            given[key_name(field)] = value
    return given


def _parameter(field: "dataclasses.Field[Any]", hint: Any) -> inspect.Parameter:
    required = field.default is dataclasses.MISSING
    base, several = _base_type(hint)
    # Typer has no lists of choices: it takes texts, and `build` checks them.
    item = str if several and typing.get_origin(base) is typing.Literal else base
    annotation: Any = list[item] if several else item  # type: ignore[valid-type]
    if field.metadata["positional"]:
        info: Any = typer.Argument(help=field.metadata["help"], metavar=flag_name(field))
    else:
        names = [flag_name(field)]
        if base is bool:
            names = [f"{names[0]}/--no-{key_name(field)}"]
        info = typer.Option(
            *names,
            help=field.metadata["help"] + _facts(field, base, several),
            show_default=False,
            metavar=_metavar(base),
            rich_help_panel=field.metadata["group"],
        )
    if not required:
        annotation = annotation | None
    return inspect.Parameter(
        field.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=inspect.Parameter.empty if required else None,
        annotation=Annotated[annotation, info],
    )


def _base_type(hint: Any) -> tuple[Any, bool]:
    """The type of one value, and whether there can be several."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        (hint,) = (part for part in typing.get_args(hint) if part is not type(None))
    if typing.get_origin(hint) is tuple:
        return _base_type(typing.get_args(hint)[0])[0], True
    return hint, False


def _metavar(base: Any) -> str | None:
    # Choices stand in the help text: in this narrow column they would push long flags out of sight.
    if typing.get_origin(base) is typing.Literal:
        return "CHOICE"
    return {bool: None, int: "INT", float: "NUMBER", Path: "PATH"}.get(base, "TEXT")


def _facts(field: "dataclasses.Field[Any]", base: Any, several: bool) -> str:
    """Choices, default and whether the flag can be repeated, in brackets after the help text."""
    facts = []
    if typing.get_origin(base) is typing.Literal:
        facts.append(", ".join(map(str, typing.get_args(base))))
    if several:
        facts.append("repeat the flag for several")
    default = field.default
    if isinstance(default, tuple):
        default = " ".join(str(item) for item in default)
    if default not in (dataclasses.MISSING, None, "") and default is not False:
        facts.append(
            f"default: {default:g}" if isinstance(default, float) else f"default: {default}"
        )
    return f" ({'; '.join(facts)})" if facts else ""
