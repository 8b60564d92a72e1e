"""One tree, drawn in the module's docstring."""

import pytest

from pipeline import errors

ERRORS = [name for name in errors.__all__ if name.endswith("Error")]


def test_every_error_is_in_the_tree_and_in_its_drawing():
    drawn = [line.split()[1] for line in errors.__doc__.splitlines() if "──" in line]
    assert "PipelineError" in errors.__doc__
    assert {*drawn, "PipelineError"} == set(ERRORS)
    for name in ERRORS:
        assert issubclass(getattr(errors, name), errors.PipelineError)


@pytest.mark.parametrize("name", ERRORS)
def test_each_error_says_when_it_is_raised(name):
    assert getattr(errors, name).__doc__.strip().endswith(".")


@pytest.mark.parametrize(
    ("text", "line"), [("one\ntwo", "one"), ("\n one \ntwo", "one "), ("", "ValueError")]
)
def test_the_first_line_of_an_error(text, line):
    assert errors.first_line(ValueError(text)) == line
