"""Patterns against plain reference implementations: exact counts, groups and blocks, ties."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from pipeline.errors import ModelError
from smp.architectures import PrunedMatrix
from smp.patterns import PATTERNS, check_shapes

N_OF_M = ("2:4", "4:8")

# Few distinct values, so that ties are the rule and not the exception.
VALUES = [-2.0, -1.0, 0.0, 0.5, 0.5000001, 3.0]


@st.composite
def matrices(draw, outputs=4, inputs=8):
    rows, columns = draw(st.integers(1, 3)) * outputs, draw(st.integers(1, 3)) * inputs
    values = st.lists(st.sampled_from(VALUES), min_size=rows * columns, max_size=rows * columns)
    return torch.tensor(draw(values)).reshape(rows, columns)


def mask_of(name, scores, count):
    pattern = PATTERNS[name]
    return pattern.weight_mask(
        pattern.select([pattern.unit_scores(scores)], [count])[0], scores.shape
    )


def by_rank(scores):
    """Positions of a list of scores, the largest first, equal ones by position."""
    return sorted(range(len(scores)), key=lambda index: (-scores[index], index))


def reference_n_of_m(scores, count, kept, group):
    flat = scores.reshape(-1).tolist()
    inside = set()
    for start in range(0, len(flat), group):
        inside |= {start + index for index in by_rank(flat[start : start + group])[:kept]}
    # Those inside go last, each part by score.
    order = [index for index in by_rank(flat) if index in inside]
    order += [index for index in by_rank(flat) if index not in inside]
    mask = np.zeros(len(flat), dtype=bool)
    mask[order[:count]] = True
    return mask.reshape(scores.shape)


@pytest.mark.parametrize("name", N_OF_M)
@given(scores=matrices(), data=st.data())
def test_n_of_m_prunes_first_what_is_beyond_its_groups_largest(name, scores, data):
    pattern = PATTERNS[name]
    count = data.draw(st.integers(0, scores.numel()))
    expected = reference_n_of_m(scores, count, pattern.kept, pattern.group)
    np.testing.assert_array_equal(mask_of(name, scores, count).numpy(), expected)


@pytest.mark.parametrize("name", N_OF_M)
@given(scores=matrices(), data=st.data())
def test_the_pattern_holds_as_soon_as_the_count_lets_it(name, scores, data):
    pattern = PATTERNS[name]
    count = data.draw(st.integers(0, int(scores.numel() * pattern.largest_density)))
    mask = mask_of(name, scores, count)
    assert int(mask.sum()) == count
    # Groups of neighbours along the input.
    groups = mask.reshape(scores.shape[0], -1, pattern.group)
    assert int(groups.sum(dim=-1).max()) <= pattern.kept


@given(scores=matrices(), data=st.data())
def test_blocks_remain_whole_and_are_those_with_the_largest_sums(scores, data):
    outputs, inputs = scores.shape
    count = data.draw(st.integers(0, scores.numel() // 4))
    mask = mask_of("block-4x1", scores, count)
    assert int(mask.sum()) == 4 * count
    blocks = mask.reshape(outputs // 4, 4, inputs)
    assert torch.equal(blocks.all(dim=1), blocks.any(dim=1))
    sums = scores.reshape(outputs // 4, 4, inputs).sum(dim=1).reshape(-1).tolist()
    chosen = blocks.any(dim=1).reshape(-1).nonzero().reshape(-1).tolist()
    assert chosen == sorted(by_rank(sums)[:count])


def test_two_of_four_computed_by_hand():
    scores = torch.tensor([[4.0, 3.0, 2.0, 1.0, 0.0, 0.0, 0.0, 0.0]])
    kept = {count: mask_of("2:4", scores, count).nonzero()[:, 1].tolist() for count in range(9)}
    assert kept[3] == [0, 1, 4]
    assert kept[4] == [0, 1, 4, 5]
    # Beyond two of four: the third and the fourth of the first group, by their scores.
    assert kept[5] == [0, 1, 2, 4, 5]
    assert kept[8] == list(range(8))
    assert all(set(kept[low]) <= set(kept[high]) for low, high in itertools.pairwise(range(9)))


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("2:4", (4, 6), "--pattern 2:4: w has 6 inputs, which 4 does not divide; use --pattern"),
        ("4:8", (8, 12), "--pattern 4:8: w has 12 inputs, which 8 does not divide"),
        ("block-4x1", (6, 4), "--pattern block-4x1: w has 6 outputs, which 4 does not divide"),
    ],
)
def test_a_matrix_that_the_pattern_does_not_divide_is_refused(name, shape, message):
    outputs, inputs = shape
    matrix = PrunedMatrix("w", "query", 0, nn.Linear(inputs, outputs))
    check_shapes([matrix], "unstructured")
    with pytest.raises(ModelError, match=message):
        check_shapes([matrix], name)
