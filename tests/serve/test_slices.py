import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.artifacts.benchmark import BenchmarkTask
from pipeline.data import LabelledText
from serve import open_session
from serve.slices import LEAST_EXAMPLES, rows_by_class, rows_by_length, token_lengths


@given(st.lists(st.integers(1, 40), min_size=1, max_size=300).map(np.array))
def test_ranges_of_lengths_hold_every_example_once(lengths: np.ndarray) -> None:
    parts = rows_by_length(lengths)
    rows = np.concatenate([rows for _, rows in parts])
    assert sorted(rows) == list(range(len(lengths)))
    assert 1 <= len(parts) <= 4
    assert len({name for name, _ in parts}) == len(parts)
    assert min(len(rows) for _, rows in parts) >= min(LEAST_EXAMPLES, len(lengths))
    ends = [(lengths[rows].min(), lengths[rows].max()) for _, rows in parts]
    assert all(longest < shortest for (_, longest), (shortest, _) in itertools.pairwise(ends))


def test_enough_different_lengths_are_parted_at_the_quartiles() -> None:
    lengths = np.random.default_rng(0).permutation(np.arange(2, 102))
    assert [(name, len(rows)) for name, rows in rows_by_length(lengths)] == [
        ("2 to 26 tokens", 25),
        ("27 to 51 tokens", 25),
        ("52 to 76 tokens", 25),
        ("77 to 101 tokens", 25),
    ]


def test_equal_lengths_are_not_parted_and_few_examples_not_at_all() -> None:
    assert [name for name, _ in rows_by_length(np.array([7] * 200))] == ["7 tokens"]
    assert [name for name, _ in rows_by_length(np.array([1]))] == ["1 token"]
    assert [name for name, _ in rows_by_length(np.arange(3, 42))] == ["3 to 41 tokens"]
    mostly = np.array([7] * 100 + [8] * 20 + [9] * 19)
    assert [name for name, _ in rows_by_length(mostly)] == ["7 tokens", "8 to 9 tokens"]


def test_classes_without_examples_are_left_out() -> None:
    task = BenchmarkTask("classification", ("no", "perhaps", "yes"), "accuracy")
    parts = {name: rows.tolist() for name, rows in rows_by_class([2, 0, 2], task)}
    assert parts == {"no": [1], "yes": [0, 2]}
    assert rows_by_class([0.5, 1.5], BenchmarkTask("regression", (), "pearson")) == []


def test_lengths_are_those_that_the_model_gets(
    make_model: Callable[..., Path], tmp_path: Path
) -> None:
    session = open_session(make_model(tmp_path / "model", max_length=8), threads=1)
    texts, pairs = ["", "good film", "bad " * 90], ["bad", "", "bad"]
    labels = [0, 1, 0]
    single = LabelledText("f", texts, None, labels, "text", None, "label")
    double = LabelledText("f", texts, pairs, labels, "text", "other", "label")
    assert token_lengths(session, single).tolist() == [2, 4, 8]
    assert token_lengths(session, double).tolist() == [4, 5, 8]
    many = LabelledText("f", texts * 700, None, labels * 700, "text", None, "label")
    assert token_lengths(session, many).tolist() == [2, 4, 8] * 700
