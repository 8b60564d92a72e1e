"""One tree, drawn in the module's docstring."""

import pytest

from pipeline import errors


def test_every_error_is_in_the_tree_and_in_its_drawing():
    drawn = [line.split()[1] for line in errors.__doc__.splitlines() if "──" in line]
    assert "PipelineError" in errors.__doc__
    assert {*drawn, "PipelineError"} == set(errors.__all__)
    for name in errors.__all__:
        assert issubclass(getattr(errors, name), errors.PipelineError)


@pytest.mark.parametrize("name", errors.__all__)
def test_each_error_says_when_it_is_raised(name):
    assert getattr(errors, name).__doc__.strip().endswith(".")
