"""Command-line flags made from the fields of a configuration.

Typer builds a command from a function's signature. The signature here comes from the dataclass,
so a stage's flags, recipe keys and configuration fields are one list. Typer takes all values as
texts: the configuration checks them, with the same messages as a recipe's.
"""

import contextlib
import dataclasses
import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.config.fields import flag_name, key_name
from pipeline.help_pages import COMMON
from pipeline.quiet import only_errors

__all__ = ["DryRun", "given_values", "with_common_flags", "with_flags"]

Command = Callable[..., None]

DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        help="Print the settings that would be used (for train the estimated cost too), and stop.",
        rich_help_panel=COMMON,
    ),
]
_Json = Annotated[
    bool,
    typer.Option("--json", help="Print the result as JSON on stdout.", rich_help_panel=COMMON),
]
_Quiet = Annotated[
    bool,
    typer.Option(
        "--quiet",
        help="Print the result and errors only: no progress, no notes.",
        rich_help_panel=COMMON,
    ),
]


def with_common_flags(command: Command) -> Command:
    """Give a command the flags that all commands have: ``--json`` and ``--quiet``.

    The command receives ``json`` as a keyword argument. With ``--quiet`` it runs with nothing but
    errors on stderr, and needs to know nothing of it.
    """

    def run(*, quiet: bool, **values: Any) -> None:
        with only_errors() if quiet else contextlib.nullcontext():
            command(**values)

    common = [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=annotation
        )
        for name, annotation in (("json", _Json), ("quiet", _Quiet))
    ]
    return _with_signature(run, command, [*_own_parameters(command, but="json"), *common])


def with_flags(cls: type) -> Callable[[Command], Command]:
    """Give a command one flag a field of the configuration, and those that all commands have.

    The command receives the values as keyword arguments; what the user left out is None (an empty
    list for several).

    Args:
        cls: the configuration.
    """

    def decorate(command: Command) -> Command:
        def run(**values: Any) -> None:
            command(**values)

        hints = typing.get_type_hints(cls)
        made = [_parameter(field, hints[field.name]) for field in dataclasses.fields(cls)]
        return with_common_flags(_with_signature(run, command, [*made, *_own_parameters(command)]))

    return decorate


def _own_parameters(command: Command, but: str = "") -> list[inspect.Parameter]:
    return [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for parameter in inspect.signature(command).parameters.values()
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD and parameter.name != but
    ]


def _with_signature(
    run: Command, command: Command, parameters: Sequence[inspect.Parameter]
) -> Command:
    """Name a function as a command, and have typer see these parameters of it."""
    run.__name__, run.__doc__ = command.__name__, command.__doc__
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    return run


def given_values(cls: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values that the user gave on the command line, by recipe key.

    Whole numbers are read; other texts are left to :func:`pipeline.config.fields.build`.
    """
    hints = typing.get_type_hints(cls)
    given = {}
    for field in dataclasses.fields(cls):
        value = values[field.name]
        if value is None or value == [] or value == ():
            continue
        if _base_type(hints[field.name])[0] is int:
            value = (
                [_whole_number(x) for x in value]
                if isinstance(value, list)
                else _whole_number(value)
            )
        given[key_name(field)] = value
    return given


def _whole_number(text: str) -> int | str:
    """The number, or the text where it is none, which the configuration then refuses."""
    with contextlib.suppress(ValueError):
        return int(text)
    return text


def _parameter(field: "dataclasses.Field[Any]", hint: Any) -> inspect.Parameter:
    required = field.default is dataclasses.MISSING
    base, several = _base_type(hint)
    item = bool if base is bool else str
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
            autocompletion=_completion(base),
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


def _completion(base: Any) -> Callable[[str], list[str]] | None:
    """What a shell offers for a value; where nothing is known, it offers files."""
    if typing.get_origin(base) is not typing.Literal:
        return None
    choices = list(typing.get_args(base))

    def complete(incomplete: str) -> list[str]:
        return [choice for choice in choices if choice.startswith(incomplete)]

    return complete


def _metavar(base: Any) -> str | None:
    # Choices stand in the help text: in the narrow column of flags they would be out of place.
    if typing.get_origin(base) is typing.Literal:
        return "CHOICE"
    return {bool: None, int: "INT", float: "NUMBER", Path: "PATH"}.get(base, "TEXT")


def _facts(field: "dataclasses.Field[Any]", base: Any, several: bool) -> str:
    """Choices, default, and whether it is needed or can be repeated, in brackets after the text."""
    facts = []
    if typing.get_origin(base) is typing.Literal:
        facts.append(", ".join(map(str, typing.get_args(base))))
    if several:
        facts.append("repeat the flag for several")
    if field.default is dataclasses.MISSING:
        facts.append("required")
    elif (default := _default_text(field.default)) is not None:
        facts.append(f"default: {default}")
    return f" ({'; '.join(facts)})" if facts else ""


def _default_text(default: Any) -> str | None:
    """A default as the command line takes it; None where there is none to name."""
    if isinstance(default, tuple):
        return " ".join(map(str, default)) or None
    if default is None or default is False or default == "":
        return None
    if default is True:
        return "on"
    return f"{default:g}" if isinstance(default, float) else str(default)
