import random

from hypothesis import given
from hypothesis import strategies as st

from demo.near_duplicates import group_near_duplicates
from demo.snippets import Snippet
from demo.split import in_fixed_order, split

words = st.lists(st.sampled_from("abcdefghijkl"), min_size=1, max_size=5).map(" ".join)
snippets = st.lists(st.builds(Snippet, words, st.sampled_from([-2.0, 2.0])), max_size=25)


@given(snippets, st.integers(0, 30))
def test_a_split_loses_nothing_and_keeps_groups_together(
    snippets: list[Snippet], validation_size: int
) -> None:
    train, validation = split(snippets, validation_size=validation_size)
    assert sorted(map(repr, train + validation)) == sorted(map(repr, snippets))
    groups = group_near_duplicates([snippet.text for snippet in train + validation])
    assert not set(groups[: len(train)]) & set(groups[len(train) :])
    assert len(validation) >= min(validation_size, len(snippets))


def test_the_split_is_the_same_everywhere() -> None:
    # Written down, so that a change of the rule is seen: reported figures would change with it.
    snippets = [Snippet(f"film{n} actor{n} plot{n}", 1.0) for n in range(8)]
    _, validation = split(snippets, validation_size=3)
    assert [snippet.text[:5] for snippet in validation] == [
        "film5",
        "film0",
        "film7",
    ]


def test_the_fixed_order_does_not_depend_on_the_order_given() -> None:
    snippets = [Snippet(f"text {n}", 1.0 if n < 200 else -1.0) for n in range(400)]
    ordered = in_fixed_order(snippets)
    shuffled = snippets[:]
    random.Random(0).shuffle(shuffled)
    assert in_fixed_order(shuffled) == ordered
    positive = sum(snippet.rating > 0 for snippet in ordered[:100])
    assert 30 < positive < 70
