"""SQuAD's exact match and F1, by hand and by brute force."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.answer_metrics import (
    answer_metrics,
    best_threshold,
    normalise_answer,
    score_answers,
)


def test_articles_punctuation_case_and_spaces_do_not_count():
    assert normalise_answer("  The  U.S. theory, an  idea ") == "us theory idea"
    assert normalise_answer("a") == ""


@pytest.mark.parametrize(
    ("answer", "references", "f1", "exact"),
    [
        ("the cat", ["Cat!"], 1.0, 1.0),
        ("black cat", ["cat"], 2 / 3, 0.0),
        ("dog", ["cat", "big dog"], 2 / 3, 0.0),
        ("cat cat", ["cat"], 2 / 3, 0.0),
        ("", ["cat"], 0.0, 0.0),
        ("", [], 1.0, 1.0),
        ("cat", [], 0.0, 0.0),
        ("", ["the", "cat"], 0.0, 0.0),
        ("an", ["the"], 1.0, 1.0),
    ],
)
def test_an_answer_counts_as_its_best_match(answer, references, f1, exact):
    np.testing.assert_allclose(score_answers([answer], [references]), [[f1, exact]])


def test_questions_without_an_answer_have_metrics_of_their_own():
    metrics = answer_metrics(["cat", "", "dog"], [["cat"], [], []])
    assert metrics == {
        "squad_f1": pytest.approx(2 / 3),
        "exact_match": pytest.approx(2 / 3),
        "no_answer_accuracy": 0.5,
        "has_answer_f1": 1.0,
        "has_answer_exact_match": 1.0,
    }
    assert set(answer_metrics(["cat"], [["cat"]])) == {"squad_f1", "exact_match"}


questions = st.lists(
    st.tuples(st.integers(-3, 3), st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.sampled_from([0, 1])),
    min_size=1,
    max_size=9,
)


@given(rows=questions)
def test_no_other_threshold_is_better(rows):
    gaps, answered, refused = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    threshold = best_threshold(gaps, answered, refused)

    def total(value):
        return np.where(gaps > value, refused, answered).sum()

    assert total(threshold) == max(map(total, np.arange(-4.5, 5)))
    assert not np.isin(threshold, gaps)
