"""What is wrong with a command line, in one line that says what to type instead."""

import sys
from collections.abc import Iterable, Sequence
from typing import Any

from pipeline.closest import closest

__all__ = ["flags_of", "no_such", "usage_message"]


def no_such(kind: str, word: str, known: Iterable[str]) -> str:
    """The sentence for an unknown flag or command, with the one that was probably meant."""
    meant = closest(word, known)
    return f"no such {kind} {word}" + (f"; did you mean {meant}?" if meant else "")


def flags_of(command: Any) -> list[str]:
    """All flags of a command, with their dashes."""
    return [flag for parameter in command.params for flag in _names(parameter)] + ["--help"]


def usage_message(error: Any) -> str:
    """What typer found wrong, in one line.

    Args:
        error: typer's usage error. It comes from click, or from typer's own copy of it, by version,
            and so is told by its name.
    """
    context = error.ctx
    match type(error).__name__:
        case "NoSuchOption":
            message = _unknown_flag(error.option_name, context.command)
        case "MissingParameter" if error.param is not None:
            message = f"{_names(error.param)[0]} is needed"
        case _:
            message = " ".join(error.format_message().split()).rstrip(".")
            message = message[:1].lower() + message[1:]
    if context is None:
        return message
    return f"{message}{' ' if message.endswith('?') else '; '}see {context.command_path} --help"


def _unknown_flag(flag: str, command: Any) -> str:
    flag = _as_typed(flag)
    if any(flag in flags_of(other) for other in getattr(command, "commands", {}).values()):
        return f"{flag} is a flag of commands; put it after the command's name"
    return no_such("flag", flag, flags_of(command))


def _as_typed(flag: str) -> str:
    """The whole word of ``-density``, of which the parser reports ``-d`` alone."""
    if flag.startswith("--"):
        return flag
    words = (word.partition("=")[0] for word in sys.argv[1:])
    return next((word for word in words if word.startswith(flag)), flag)


def _names(parameter: Any) -> Sequence[str]:
    if parameter.param_type_name == "argument":
        return [parameter.metavar]
    return [*parameter.opts, *parameter.secondary_opts]
