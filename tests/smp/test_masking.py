"""How many weights each matrix keeps."""

import itertools
import math

from hypothesis import given
from hypothesis import strategies as st

from smp.masking import local_counts, score_based_counts

densities = st.floats(1e-3, 1.0)


@given(st.lists(st.integers(1, 500), min_size=1, max_size=8), densities)
def test_local_counts_are_the_floor_of_each_share(sizes, density):
    for size, count in zip(sizes, local_counts(sizes, density), strict=True):
        assert 0 <= count <= size
        assert density * size - 1 < count <= density * size + 1e-6


def test_a_product_that_is_whole_but_for_rounding_is_not_cut():
    assert local_counts([30, 70, 10], 0.1) == [3, 7, 1]


@given(
    st.lists(st.tuples(st.integers(1, 300), st.floats(0.01, 0.99)), min_size=1, max_size=8),
    densities,
)
def test_redistributed_counts_meet_the_density_exactly(layers, density):
    sizes = [size for size, _ in layers]
    ranks = [rank for _, rank in layers]
    counts = score_based_counts(sizes, ranks, density)
    assert sum(counts) == math.floor(density * sum(sizes) * (1 + 1e-12) + 1e-12)
    assert all(0 <= count <= size for count, size in zip(counts, sizes, strict=True))


@given(st.lists(st.floats(0.05, 0.95), min_size=2, max_size=8), densities)
def test_a_layer_with_larger_scores_keeps_no_less(ranks, density):
    counts = score_based_counts([400] * len(ranks), ranks, density)
    ordered = [count for _, count in sorted(zip(ranks, counts, strict=True))]
    assert all(low <= high + 1 for low, high in itertools.pairwise(ordered))


def test_shares_follow_the_mean_sigmoids():
    # 0.1 * 4 * R / sum(R) with R = 1, 2, 3, 4 tenths: shares 0.04, 0.08, 0.12, 0.16.
    assert score_based_counts([100] * 4, [0.1, 0.2, 0.3, 0.4], 0.1) == [4, 8, 12, 16]


def test_the_excess_of_a_full_layer_goes_to_the_others_in_proportion():
    # Shares 1.2, 0.3, 0.3, 0.6 at density 0.6: 0.2 goes to 0.3 : 0.3 : 0.6.
    ranks = [0.4, 0.1, 0.1, 0.2]
    assert score_based_counts([100] * 4, ranks, 0.6) == [100, 35, 35, 70]


@given(
    st.lists(st.tuples(st.integers(1, 30), st.floats(0.01, 0.99)), min_size=1, max_size=8),
    st.floats(1e-3, 0.5),
)
def test_no_matrix_keeps_more_than_the_largest_share(layers, density):
    sizes = [4 * size for size, _ in layers]
    ranks = [rank for _, rank in layers]
    counts = score_based_counts(sizes, ranks, density, largest=0.5)
    assert sum(counts) == math.floor(density * sum(sizes) * (1 + 1e-12) + 1e-12)
    assert all(0 <= count <= size // 2 for count, size in zip(counts, sizes, strict=True))


def test_clip_falls_short_as_the_reference_implementation_does():
    ranks = [0.4, 0.1, 0.1, 0.2]
    assert score_based_counts([100] * 4, ranks, 0.6, redistribute=False) == [100, 30, 30, 60]
