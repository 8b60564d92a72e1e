"""The best span over windows, against a search of all spans."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.answers import find_answer, find_answers
from pipeline.artifacts.run import AnswerLayout
from pipeline.windows import Window

CONTEXT = "a b c d e f g h i j"
LAYOUT = AnswerLayout(stride=2, max_answer_length=3, n_best=10, no_answer=True)


def window(first, last, question=0):
    """A window of the words from first to before last, after two tokens of a question."""
    offsets = np.array([[2 * word, 2 * word + 1] for word in range(first, last)], dtype=np.int32)
    count = last - first + 3
    return Window(question, list(range(count)), [0] * count, 2, offsets)


WINDOWS = [window(0, 6), window(4, 10)]


def logits_of(seed):
    generator = np.random.default_rng(seed)
    return [generator.normal(size=(len(each) + 2, 2)) for each in WINDOWS]


@given(seed=st.integers(0, 1000))
def test_the_best_span_is_that_of_all_allowed_ones(seed):
    logits = logits_of(seed)
    found = find_answer(WINDOWS, logits, LAYOUT)
    best = max(
        (float(values[2 + first, 0] + values[2 + last, 1]), offset + first, offset + last)
        for values, offset in zip(logits, (0, 4), strict=True)
        for first in range(6)
        for last in range(first, min(first + 3, 6))
    )
    assert found.score == pytest.approx(best[0])
    assert (found.start, found.end) == (2 * best[1], 2 * best[2] + 1)
    assert found.none_score == pytest.approx(min(values[0].sum() for values in logits))
    assert 0 < found.probability <= 1


def test_no_answer_is_given_where_its_score_is_larger_by_the_threshold():
    found = find_answer(WINDOWS, logits_of(0), LAYOUT)
    below = replace(LAYOUT, no_answer_threshold=found.gap - 0.1)
    above = replace(LAYOUT, no_answer_threshold=found.gap + 0.1)
    assert found.text(CONTEXT, below) == ""
    assert found.text(CONTEXT, above) == CONTEXT[found.start : found.end]
    # Version 1 of SQuAD knows no such answer.
    assert found.text(CONTEXT, replace(below, no_answer=False)) != ""


def test_ends_before_all_starts_give_one_token():
    values = np.zeros((11, 2))
    values[7, 0] = values[2, 1] = 5.0
    found = find_answer(WINDOWS[:1], [values], replace(LAYOUT, n_best=1))
    assert CONTEXT[found.start : found.end] == "f"


def test_a_sure_answer_is_nearly_certain_and_padding_is_not_seen():
    values = np.zeros((20, 2))
    values[3, 0] = values[4, 1] = 30.0
    values[12:] = 99.0
    found = find_answer(WINDOWS[:1], [values], LAYOUT)
    assert CONTEXT[found.start : found.end] == "b c"
    assert found.probability == pytest.approx(1.0)


def test_each_question_has_its_own_windows():
    windows = [*WINDOWS, window(0, 10, question=1)]
    logits = [*logits_of(3), np.random.default_rng(4).normal(size=(13, 2))]
    first, second = find_answers(windows, logits, LAYOUT, questions=2)
    assert first == find_answer(windows[:2], logits[:2], LAYOUT)
    assert second == find_answer(windows[2:], logits[2:], LAYOUT)
