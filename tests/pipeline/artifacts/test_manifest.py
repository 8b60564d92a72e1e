"""Dataclasses to JSON and back, every type checked on the way in."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.artifacts.manifest import from_json, to_json
from pipeline.errors import ArtifactError

SOURCE = Path("run/manifest.json")


@dataclass(frozen=True)
class Inner:
    size: int
    share: float = 0.5


@dataclass(frozen=True)
class Outer:
    name: str
    kind: Literal["a", "b"]
    on: bool
    inner: Inner
    hint: str | None
    sizes: tuple[int, ...]
    inners: Mapping[str, Inner]
    anything: Any
    place: Path
    notes: Mapping[str, Any] = field(default_factory=dict)


numbers = st.integers(-(2**63) + 1, 2**63 - 1)
inners = st.builds(Inner, numbers, st.floats(allow_nan=False, allow_infinity=False))
plain = st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.integers())
outers = st.builds(
    Outer,
    st.text(),
    st.sampled_from(["a", "b"]),
    st.booleans(),
    inners,
    st.none() | st.text(),
    st.lists(numbers).map(tuple),
    st.dictionaries(st.text(), inners),
    plain,
    st.text().map(Path),
    st.dictionaries(st.text(), plain),
)

GOOD = {
    "name": "x",
    "kind": "a",
    "on": True,
    "inner": {"size": 1},
    "hint": None,
    "sizes": [1, 2],
    "inners": {"k": {"size": 3, "share": 1}},
    "anything": [1, {"x": None}],
    "place": "a/b",
}


@given(outers)
def test_what_was_written_is_read(value):
    text = json.dumps(to_json(value), allow_nan=False)
    assert from_json(Outer, json.loads(text), source=SOURCE) == value


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_json_lacks_become_null_and_read_as_nan(value):
    written = to_json(Inner(1, value))
    assert written == {"size": 1, "share": None}
    assert math.isnan(from_json(Inner, written, source=SOURCE).share)


def test_paths_become_texts():
    assert to_json({"output": Path("a/b"), "models": (Path("c"),)}) == {
        "output": "a/b",
        "models": ["c"],
    }


def test_defaults_stand_in_and_unknown_keys_are_ignored():
    value = from_json(Outer, {**GOOD, "newer": 1}, source=SOURCE)
    assert value.inner == Inner(1, 0.5)
    assert value.inners["k"] == Inner(3, 1.0)
    assert value.notes == {}


@pytest.mark.parametrize("key", sorted(GOOD))
def test_a_missing_key_is_named(key):
    content = {name: value for name, value in GOOD.items() if name != key}
    with pytest.raises(ArtifactError, match=f"{SOURCE} is corrupt: {key} is missing"):
        from_json(Outer, content, source=SOURCE)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": 3}, "name must be str, got 3"),
        ({"name": None}, "name must be str, got None"),
        ({"kind": "c"}, "kind must be one of a, b, got 'c'"),
        ({"kind": ["a"]}, "kind must be one of a, b"),
        ({"on": 1}, "on must be bool, got 1"),
        ({"inner": []}, "inner must be an object, got"),
        ({"inner": {}}, "inner.size is missing"),
        ({"inner": {"size": True}}, "inner.size must be int, got True"),
        ({"inner": {"size": 1.0}}, "inner.size must be int, got 1.0"),
        ({"inner": {"size": 1, "share": "1"}}, "inner.share must be float, got '1'"),
        ({"inner": {"size": 1, "share": False}}, "inner.share must be float, got False"),
        ({"hint": 3}, "hint must be str, got 3"),
        ({"sizes": 3}, "sizes must be a list, got 3"),
        ({"sizes": [1, "2"]}, r"sizes\[1\] must be int, got '2'"),
        ({"inners": []}, "inners must be an object"),
        ({"inners": {"k": {"size": "1"}}}, "inners.k.size must be int"),
    ],
)
def test_a_wrong_type_is_named_with_its_place(change, message):
    with pytest.raises(ArtifactError, match=message):
        from_json(Outer, {**GOOD, **change}, source=SOURCE)


def test_no_object_at_all_and_long_values_are_cut():
    with pytest.raises(ArtifactError, match="the file must be an object, got 3"):
        from_json(Outer, 3, source=SOURCE)
    with pytest.raises(ArtifactError) as error:
        from_json(Outer, {**GOOD, "on": "x" * 10_000}, source=SOURCE)
    assert len(str(error.value)) < 200


@pytest.mark.parametrize("number", [2**63, -(2**63), 10**400])
@pytest.mark.parametrize("change", ["size", "share"])
def test_numbers_of_more_than_64_bits_are_refused(change, number):
    inner = {"size": 1, "share": 0.5, change: number}
    with pytest.raises(ArtifactError, match=rf"inner\.{change} must be a number of at most 64"):
        from_json(Outer, {**GOOD, "inner": inner}, source=SOURCE)
