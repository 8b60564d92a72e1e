"""Typer's commands with pages of our own: plain, in 80 columns, with examples to copy, at once."""

import textwrap
from collections.abc import Sequence
from typing import Any

from typer.core import TyperCommand, TyperGroup

__all__ = ["COMMON", "Command", "Commands"]

# The heading over what every command has; it stands last.
COMMON = "Common options"

Rows = list[tuple[str, str]]

# Longer names stand on a line of their own, so that they leave room to the texts beside the others.
_NAME_WIDTH = 26

# A shell shows the flag beside it; typer wraps what is longer than the terminal, and fish takes the
# next line for another flag.
_COMPLETION_WIDTH = 50


class Command(TyperCommand):
    """A command whose page has its flags under headings and its examples as they are typed.

    The epilog holds the examples, and is printed line by line as it is.
    """

    def get_params(self, ctx: Any) -> list[Any]:
        """Arguments and flags, --help among them."""
        return _without_conversion(super().get_params(ctx))

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
        """What a shell offers, each with a text that stays on its line."""
        items = super().shell_complete(ctx, incomplete)
        for item in items:
            item.help = textwrap.shorten(item.help or "", _COMPLETION_WIDTH, placeholder=" ...")
        return items

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments and flags, each under its heading."""
        _write_parameters(self.get_params(ctx), formatter, last=COMMON)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the examples."""
        if self.epilog:
            _write_examples(self.epilog, formatter)


class Commands(TyperGroup):
    """The program's own page."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Arguments and flags, --help among them."""
        return _without_conversion(super().get_params(ctx))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command, or say which one may have been meant."""
        if self.get_command(ctx, args[0]) is None and not ctx.resilient_parsing:
            from pipeline.usage_errors import no_such

            ctx.fail(no_such("command", args[0], self.commands))
        return super().resolve_command(ctx, args)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the commands, each with the first line of its page, and the program's flags."""
        pages = {name: self.commands[name].help or "" for name in self.list_commands(ctx)}
        rows = [(name, page.partition("\n\n")[0]) for name, page in pages.items()]
        _write_rows("Commands", rows, formatter)
        _write_parameters(self.get_params(ctx), formatter, last="Options")

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the examples."""
        if self.epilog:
            _write_examples(self.epilog, formatter)


def _without_conversion(parameters: list[Any]) -> list[Any]:
    """Give flags that are not typed the value False.

    Typer imports pydantic to convert None, which takes longer than all the rest of a page.
    """
    for parameter in parameters:
        is_flag = getattr(parameter, "is_flag", False) and not parameter.secondary_opts
        if is_flag and parameter.default is None:
            parameter.default = False
    return parameters


def _write_parameters(parameters: Sequence[Any], formatter: Any, last: str) -> None:
    """Write parameters under their headings, the last of them that of --help."""
    sections: dict[str, Rows] = {}
    for parameter in parameters:
        sections.setdefault(_heading(parameter, last), []).append(_row(parameter))
    sections[last] = sections.pop(last)
    for heading, rows in sections.items():
        _write_rows(heading, rows, formatter)


def _heading(parameter: Any, default: str) -> str:
    if parameter.param_type_name == "argument":
        return "Arguments"
    return getattr(parameter, "rich_help_panel", None) or default


def _row(parameter: Any) -> tuple[str, str]:
    """A parameter's names with what kind of value it takes, and its text."""
    if parameter.param_type_name == "argument":
        return parameter.metavar, parameter.help or ""
    names = ", ".join(sorted(parameter.opts, key=len))
    if parameter.secondary_opts:
        names += " / " + ", ".join(parameter.secondary_opts)
    return names if parameter.is_flag else f"{names} {parameter.metavar}", parameter.help or ""


def _write_rows(heading: str, rows: Rows, formatter: Any) -> None:
    """Write names with their texts beside them.

    Not the formatter's own list, which breaks lines at hyphens, and so flags and choices in two.
    """
    left = max(len(name) for name, _ in rows if len(name) <= _NAME_WIDTH)
    with formatter.section(heading):
        indent = " " * formatter.current_indent
        for name, text in rows:
            lines = textwrap.wrap(
                text, formatter.width - len(indent) - left - 2, break_on_hyphens=False
            )
            if len(name) > left:
                formatter.write(f"{indent}{name}\n")
                name = ""
            for line in lines:
                formatter.write(f"{indent}{name:{left}}  {line}\n")
                name = ""


def _write_examples(epilog: str, formatter: Any) -> None:
    with formatter.section("Examples"):
        for line in epilog.splitlines():
            formatter.write(f"{'':{formatter.current_indent}}{line}\n")
