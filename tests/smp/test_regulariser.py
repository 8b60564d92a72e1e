"""The regulariser's closed form against autograd."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from smp.regulariser import mean_sigmoids, regulariser


@given(
    st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=1, max_size=4),
    st.floats(0.01, 100.0),
    st.integers(0, 2**32 - 1),
)
def test_value_and_gradient_are_those_of_autograd(shapes, scale, seed):
    generator = torch.Generator().manual_seed(seed)
    scores = [torch.randn(shape, generator=generator).mul(scale) for shape in shapes]
    ours = [matrix.clone().requires_grad_() for matrix in scores]
    plain = [matrix.clone().requires_grad_() for matrix in scores]
    expected = torch.stack([torch.sigmoid(matrix).mean() for matrix in plain]).mean()
    value = regulariser(ours)
    torch.testing.assert_close(value, expected)
    (400.0 * value).backward()
    (400.0 * expected).backward()
    for mine, its in zip(ours, plain, strict=True):
        torch.testing.assert_close(mine.grad, its.grad)


def test_the_gradient_adds_to_that_of_other_terms():
    scores = torch.zeros(2, 3, requires_grad=True)
    (regulariser([scores]) + scores.sum()).backward()
    # sigmoid'(0) / numel = 0.25 / 6
    torch.testing.assert_close(scores.grad, torch.full((2, 3), 1 + 0.25 / 6))


def test_the_temperature_divides_the_scores():
    scores = [torch.zeros(2, 2), torch.full((3,), 2.0)]
    # sigmoid(0) and sigmoid(2 / 4)
    assert mean_sigmoids(scores, 4.0).tolist() == pytest.approx([0.5, 0.6224593])
