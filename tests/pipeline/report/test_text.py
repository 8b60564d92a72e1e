"""Names and numbers as people read them."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.artifacts.benchmark import Estimate
from pipeline.report.text import and_list, interval, measured, printable, ratio, rounded


@given(st.text(st.characters(codec=None)))
def test_any_text_can_be_written_and_stays_on_its_line(text: str) -> None:
    shown = printable(text)
    assert len(shown) == len(text)
    shown.encode("utf-8")
    assert len(f"x{shown}".split("\n")) == 1
    assert printable(shown) == shown


def test_letters_of_all_scripts_stay() -> None:
    for text in ("größe", "模型", "نموذج", "मॉडल", "🙂"):
        assert printable(text) == text
    assert printable("a\u202eb\x1b\ud800") == "a\ufffdb\ufffd\ufffd"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0, "0"),
        (0.012345, "0.0123"),
        (7.516, "7.52"),
        (11.53, "11.5"),
        (131.2, "131"),
        (71379.1, "71,379"),
        (math.nan, "undefined"),
        (math.inf, "undefined"),
    ],
)
def test_numbers_have_three_significant_digits(value: float, shown: str) -> None:
    assert rounded(value) == shown


def test_an_interval_has_the_digits_of_its_value() -> None:
    assert measured(Estimate(7.516, 7.4, 10.25)) == "7.52 (7.40 to 10.25)"
    assert interval(Estimate(0.5, 0.25, 0.75), 3) == "0.500 (0.250 to 0.750)"
    assert ratio(Estimate(1.0, 1.0, 1.0), 0) == "1"
    assert ratio(Estimate(0.5, 0.4, 0.6), 1) == "0.500 (0.400 to 0.600)"


def test_lists_read_as_sentences() -> None:
    assert [and_list(words) for words in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == [
        "",
        "a",
        "a and b",
        "a, b and c",
    ]
