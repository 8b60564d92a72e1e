"""Recipe values become field values of the right type, or one clear line."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.fields import build, check_bounds, flag_name, key_name, option
from pipeline.errors import ConfigurationError


@dataclass(frozen=True)
class Config:
    where: Path = option(help="", positional=True)
    share: float = option(0.5, help="", minimum=0, maximum=1, exclusive_minimum=True)
    steps: int | None = option(None, help="", minimum=1)
    any_number: float = option(0.0, help="")
    sizes: tuple[int, ...] = option((1,), help="", minimum=1)
    words: tuple[str, ...] = option((), help="")
    lambda_: float = option(1.0, help="", minimum=0)
    kind: Literal["a", "b"] = option("a", help="")
    resume: bool = option(False, help="")
    name: str | None = option(None, help="")

    def __post_init__(self):
        check_bounds(self)


def made(**values):
    values = {key.replace("_", "-"): value for key, value in values.items()}
    return build(Config, {"where": "x", **values}, source="recipe")


def test_names_of_keys_and_flags():
    by_name = {field.name: field for field in fields(Config)}
    assert key_name(by_name["any_number"]) == "any-number"
    assert key_name(by_name["lambda_"]) == "lambda"
    assert flag_name(by_name["lambda_"]) == "--lambda"
    assert flag_name(by_name["where"]) == "WHERE"


def test_values_of_the_yaml_types():
    config = build(
        Config,
        {
            "where": "a/b",
            "share": 1,
            "steps": None,
            "sizes": [4, 8],
            "words": "yes please",
            "lambda": "1e-2",  # YAML 1.1 reads 1e-2 as a text
            "kind": "b",
            "resume": True,
            "name": 2024,
        },
        source="recipe",
    )
    assert config == Config(
        where=Path("a/b"),
        share=1.0,
        steps=None,
        sizes=(4, 8),
        words=("yes please",),
        lambda_=0.01,
        kind="b",
        resume=True,
        name="2024",
    )
    assert isinstance(config.share, float)


def test_a_path_from_home(monkeypatch):
    # A shell expands it on the command line; nobody does in a recipe.
    monkeypatch.setenv("HOME", "/home/someone")
    assert made(where="~/data").where == Path("/home/someone/data")
    assert made(where="~no-such-user/x").where == Path("~no-such-user/x")


def test_one_value_stands_for_a_list_of_one():
    assert made(sizes=4).sizes == (4,)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"share": 0}, "--share must be greater than 0 and at most 1, got 0"),
        ({"share": 1.5}, "--share must be greater than 0 and at most 1, got 1.5"),
        ({"share": "10"}, "--share must be greater than 0 and at most 1, got 10.0"),
        ({"share": float("nan")}, "--share must be .*, got nan"),
        ({"share": "nan"}, "--share must be .*, got nan"),
        ({"share": -1e-9}, "--share must be greater than 0"),
        ({"any_number": float("inf")}, "--any-number must be a finite number, got inf"),
        ({"steps": 0}, "--steps must be at least 1, got 0"),
        ({"sizes": [4, 0]}, "--sizes must be at least 1, got 0"),
        ({"share": "much"}, "recipe: share must be a number, got 'much'"),
        ({"share": True}, "recipe: share must be a number, got True"),
        ({"share": None}, "recipe: share must be a number, got None"),
        ({"share": [0.5]}, "recipe: share must be a number"),
        ({"any_number": 10**400}, "recipe: any-number must be a number"),
        ({"steps": 1.5}, "recipe: steps must be a whole number, got 1.5"),
        ({"steps": "3"}, "recipe: steps must be a whole number, got '3'"),
        ({"steps": True}, "recipe: steps must be a whole number, got True"),
        ({"sizes": ["a"]}, "recipe: sizes must be a whole number, got 'a'"),
        ({"words": [True]}, "recipe: words must be a text, got True; put it in quotes"),
        ({"name": ["a"]}, "recipe: name must be a text"),
        ({"kind": "c"}, "recipe: kind must be one of a, b, got 'c'"),
        ({"kind": ["a"]}, "recipe: kind must be one of a, b"),
        ({"resume": "yes"}, "recipe: resume must be true or false, got 'yes'"),
        ({"resume": 1}, "recipe: resume must be true or false, got 1"),
        ({"where": 3}, "recipe: where must be a path, got 3"),
        ({"where": ""}, "recipe: where must be a path, got ''"),
    ],
)
def test_a_wrong_value_is_named(values, message):
    with pytest.raises(ConfigurationError, match=message):
        made(**values)


def test_bounds_themselves():
    assert made(share=1).share == 1
    assert made(steps=1).steps == 1
    assert made(steps=10**400).steps == 10**400
    assert build(Config, {"where": "x", "lambda": 0}, source="").lambda_ == 0


@given(st.floats())
def test_a_share_is_taken_exactly_if_it_is_in_bounds(value):
    if 0 < value <= 1:
        assert made(share=value).share == value
    else:
        with pytest.raises(ConfigurationError, match="--share must be"):
            made(share=value)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda children: st.lists(children) | st.dictionaries(st.text(), children),
        max_leaves=4,
    ),
    st.sampled_from([key_name(field) for field in fields(Config)]),
)
def test_any_yaml_value_builds_or_is_refused(value, key):
    try:
        config = build(Config, {"where": "x", key: value}, source="recipe")
    except ConfigurationError as error:
        assert key in str(error).lower()
    else:
        assert isinstance(config, Config)


def test_an_unknown_key_with_a_suggestion():
    with pytest.raises(ConfigurationError, match=r"unknown key 'any_number' \(did you mean 'any-n"):
        build(Config, {"where": "x", "any_number": 1}, source="recipe")
    with pytest.raises(ConfigurationError, match="unknown key 'zzz'; known keys are any-number,"):
        build(Config, {"where": "x", "zzz": 1}, source="recipe")


def test_a_missing_key():
    with pytest.raises(ConfigurationError, match="recipe: WHERE is needed"):
        build(Config, {}, source="recipe")
