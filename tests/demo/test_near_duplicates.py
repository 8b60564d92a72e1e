from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demo.near_duplicates import group_near_duplicates, jaccard, word_set


def test_words_are_compared_without_case_accents_and_punctuation() -> None:
    assert word_set("It's a Café, a café!") == {"its", "a", "cafe"}
    assert word_set("...") == {"..."}


def test_near_duplicates_share_a_group_also_through_a_third() -> None:
    texts = [
        "one two three four",
        "nothing like the others at all",
        "one two three five",
        "six two three five",
        "One, two: three four!",
    ]
    assert group_near_duplicates(texts, threshold=0.6) == [0, 1, 0, 0, 0]
    assert group_near_duplicates(texts, threshold=1.0) == [0, 1, 2, 3, 0]


texts = st.lists(
    st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=6).map(" ".join), max_size=12
)


@given(texts, st.sampled_from([0.3, 0.5, 0.6, 0.7, 0.9, 1.0]))
def test_groups_are_the_components_of_all_similar_pairs(texts: list[str], threshold: float) -> None:
    expected = list(range(len(texts)))
    for one, other in combinations(range(len(texts)), 2):
        if jaccard(word_set(texts[one]), word_set(texts[other])) >= threshold - 1e-9:
            low, high = sorted((expected[one], expected[other]))
            expected = [low if group == high else group for group in expected]
    assert group_near_duplicates(texts, threshold=threshold) == expected


@pytest.mark.parametrize("size", [5, 10, 20])
def test_a_pair_at_the_threshold_itself_is_found(size: int) -> None:
    # Every word is as rare as the next, and 0.6 and 0.7 have no exact binary form.
    first = [f"word{index}" for index in range(size)]
    for share in (0.6, 0.8):
        second = first[: round(size * share)]
        assert group_near_duplicates([" ".join(first), " ".join(second)], threshold=share) == [0, 0]
