"""Every field of a configuration is a flag and a recipe key, and nothing else is."""

import dataclasses
import inspect
import sys
import typing

import pytest
import typer
from typer.testing import CliRunner

from pipeline.config import (
    BenchConfig,
    CheckConfig,
    ExportConfig,
    ReportConfig,
    ServeConfig,
    TrainConfig,
)
from pipeline.config.fields import build, flag_name, key_name
from pipeline.errors import ConfigurationError
from pipeline.flags import DryRun, given_values, with_common_flags, with_flags

CONFIGS = [TrainConfig, ExportConfig, BenchConfig, ReportConfig, CheckConfig, ServeConfig]
FIELDS = [(cls, field) for cls in CONFIGS for field in dataclasses.fields(cls)]
EXAMPLES = {str: "text", int: "7", float: "0.5", bool: None}


def parse(cls, *words):
    """The values that a command over the configuration receives for these words."""
    seen = {}

    @with_flags(cls)
    def command(json, **values):
        seen.update(values)

    app = typer.Typer()
    app.command()(command)
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return seen


def words_of(field, hint):
    """Words that set one field, and the recipe value that says the same."""
    parts = [part for part in typing.get_args(hint) if part is not type(None)]
    if typing.get_origin(hint) is typing.Literal:
        text = value = parts[-1]
    elif typing.get_origin(hint) is tuple:
        words, value = words_of(field, parts[0])
        return words, [value]
    elif parts:
        return words_of(field, parts[0])
    elif hint is bool:
        return [flag_name(field)], True
    else:
        text = EXAMPLES.get(hint, "some/path")
        value = {int: int, float: float}.get(hint, str)(text)
    return ([text] if field.metadata["positional"] else [flag_name(field), text]), value


def required_words(cls, but):
    hints = typing.get_type_hints(cls)
    words = []
    for field in dataclasses.fields(cls):
        if field.default is dataclasses.MISSING and field.name != but.name:
            words += words_of(field, hints[field.name])[0]
    return words


@pytest.mark.parametrize(("cls", "field"), FIELDS, ids=lambda x: getattr(x, "name", None))
def test_a_flag_and_its_recipe_key_give_the_same_value(cls, field):
    words, value = words_of(field, typing.get_type_hints(cls)[field.name])
    given = given_values(cls, parse(cls, *required_words(cls, field), *words))
    got = given[key_name(field)]
    values, expected = (x if isinstance(x, list) else [x] for x in (got, value))
    assert list(map(str, values)) == list(map(str, expected))


@pytest.mark.parametrize("cls", CONFIGS)
def test_what_is_not_given_is_left_to_the_recipe(cls):
    nothing = dataclasses.fields(cls)[0]
    words = (
        required_words(cls, nothing)
        + words_of(nothing, typing.get_type_hints(cls)[nothing.name])[0]
    )
    given = given_values(cls, parse(cls, *words))
    required = [f for f in dataclasses.fields(cls) if f.default is dataclasses.MISSING]
    assert set(given) <= {key_name(field) for field in required} | {key_name(nothing)}


def test_a_list_flag_is_repeated_and_a_boolean_has_its_negation():
    seen = parse(
        BenchConfig, "a", "b", "--validation-file", "v.csv", "--batch-sizes", 1, "--batch-sizes", 4
    )
    assert [str(model) for model in seen["models"]] == ["a", "b"]
    assert given_values(BenchConfig, seen)["batch-sizes"] == [1, 4]
    train = ("--model", "m", "--output-dir", "o")
    assert parse(TrainConfig, *train)["resume"] is None
    assert parse(TrainConfig, *train, "--no-resume")["resume"] is False


def test_flags_build_the_configuration():
    words = ("run", "--output-dir", "model", "--format", "packed", "--tolerance", "1e-3")
    config = build(ExportConfig, given_values(ExportConfig, parse(ExportConfig, *words)), source="")
    assert (config.format, config.tolerance, config.opset) == ("packed", 1e-3, 20)


def test_a_number_that_is_none_is_refused_as_a_recipe_would_refuse_it():
    seen = parse(BenchConfig, "a", "--validation-file", "v.csv", "--batch-sizes", "1,4")
    with pytest.raises(ConfigurationError, match=r"got '1,4'; repeat the flag for several"):
        build(BenchConfig, given_values(BenchConfig, seen), source="", name=flag_name)


def test_the_command_keeps_its_name_its_page_and_its_own_parameters():
    @with_flags(CheckConfig)
    def check(json: bool, dry_run: DryRun = False, **values: object) -> None:
        """The page."""

    assert (check.__name__, check.__doc__) == ("check", "The page.")
    names = [field.name for field in dataclasses.fields(CheckConfig)]
    assert list(inspect.signature(check).parameters) == [*names, "dry_run", "json", "quiet"]


def test_quiet_silences_a_command_that_knows_nothing_of_it():
    @with_common_flags
    def command(json: bool) -> None:
        print("result", json)
        print("note", file=sys.stderr)

    app = typer.Typer()
    app.command()(command)
    assert CliRunner().invoke(app, ["--json"]).stderr == "note\n"
    result = CliRunner().invoke(app, ["--quiet"])
    assert (result.stdout, result.stderr) == ("result False\n", "")
