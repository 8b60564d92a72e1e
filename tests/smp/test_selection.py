"""Exact selection against a stable sort, for arrays on the CPU and for the stack of a GPU."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from smp import selection
from smp.selection import top_k_mask, top_k_masks

# Few distinct values, so that ties are the rule and not the exception.
TIED = [-np.inf, -2.0, -0.0, 0.0, 0.5, 0.50000006, 3.0, np.inf, np.nan]
sizes = st.one_of(st.integers(1, 40), st.integers(500, 3000))
PATHS = {
    "arrays": lambda scores, counts: torch.stack(top_k_masks(list(scores), counts)),
    "stack": selection._top_k_stack,
}


def reference(scores, counts):
    """The first of a stable descending sort, down to a threshold for which NaN is the largest."""
    masks = np.zeros(scores.shape, dtype=bool)
    for row, mask, count in zip(scores, masks, counts, strict=True):
        order = np.argsort(-row, kind="stable")  # NaN comes last
        numbers = order[: len(row) - np.count_nonzero(np.isnan(row))]
        place = count - (len(row) - len(numbers))
        if place > 0:
            mask[[i for i in numbers[:count] if row[i] >= row[numbers[place - 1]]]] = True
    return masks


@st.composite
def stacks(draw, elements):
    shape = (draw(st.integers(1, 4)), draw(sizes))
    scores = draw(hnp.arrays(np.float32, shape, elements=elements, fill=st.sampled_from([0.0])))
    counts = draw(st.lists(st.integers(0, shape[1]), min_size=shape[0], max_size=shape[0]))
    return scores, counts


@pytest.mark.parametrize("path", PATHS)
@given(stacks(st.sampled_from(TIED)))
def test_ties_infinities_and_nan_are_kept_as_by_a_stable_sort(path, case):
    scores, counts = case
    masks = PATHS[path](torch.from_numpy(scores.copy()), counts)
    np.testing.assert_array_equal(masks.numpy(), reference(scores, counts))


@pytest.mark.parametrize("path", PATHS)
@given(st.integers(0, 2**32 - 1), st.floats(0, 1), st.sampled_from(["normal", "steps", "sorted"]))
def test_large_matrices_are_searched_exactly(path, seed, share, kind):
    generator = np.random.default_rng(seed)
    scores = generator.normal(size=(3, 5000)).astype(np.float32)
    if kind == "steps":
        scores = np.round(scores, 1)
    if kind == "sorted":
        scores.sort(axis=1)
    counts = [round(share * 5000), 1, 4999]
    masks = PATHS[path](torch.from_numpy(scores), counts)
    np.testing.assert_array_equal(masks.numpy(), reference(scores, counts))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("drawn", [-9.0, 9.0, np.nan])
def test_a_sample_that_misleads_changes_nothing(path, drawn):
    scores = np.random.default_rng(0).normal(size=(2, 4000)).astype(np.float32)
    scores[:, :: selection._STRIDE] = drawn
    masks = PATHS[path](torch.from_numpy(scores), [400, 3600])
    np.testing.assert_array_equal(masks.numpy(), reference(scores, [400, 3600]))


def test_the_mask_of_a_matrix_computed_by_hand():
    scores = torch.tensor([[0.1, 0.9, 0.4], [0.4, -1.0, 0.4]])
    mask = top_k_mask(scores, 3)
    assert torch.equal(mask, torch.tensor([[False, True, True], [True, False, False]]))


@pytest.mark.parametrize("shape", [(6,), (2, 3)])
def test_masks_do_not_track_gradients(shape):
    assert not top_k_mask(torch.ones(shape, requires_grad=True), 1).requires_grad


@pytest.mark.parametrize("count", [-1, 5])
def test_a_count_beyond_the_matrix_is_refused(count):
    with pytest.raises(ValueError, match="count must be from 0 to 4"):
        top_k_mask(torch.zeros(4), count)


def test_no_matrices_have_no_masks():
    assert top_k_masks([], []) == []
