"""The demo's fixed split into training and validation examples."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence

from demo.near_duplicates import group_near_duplicates
from demo.snippets import Snippet

__all__ = ["in_fixed_order", "split"]


def split(
    snippets: Sequence[Snippet], *, validation_size: int
) -> tuple[list[Snippet], list[Snippet]]:
    """Split into training and validation examples, with near-duplicates on one side.

    Groups of near-duplicates go to validation in the order of a hash of their first text until
    ``validation_size`` examples are there; the last group may exceed it. Neither a seed nor the
    Python version has a part in it.

    Returns:
        The training and the validation examples, in the order of the source.
    """
    members = defaultdict(list)
    for snippet, group in zip(
        snippets, group_near_duplicates([snippet.text for snippet in snippets]), strict=True
    ):
        members[group].append(snippet)
    train: list[Snippet] = []
    validation: list[Snippet] = []
    for group in sorted(members, key=lambda first: _hash(snippets[first].text)):
        side = validation if len(validation) < validation_size else train
        side.extend(members[group])
    return train, validation


def in_fixed_order(snippets: Sequence[Snippet]) -> list[Snippet]:
    """Order by a hash of the texts, so that the first examples of a file are a fair sample of it.

    The source has all positive movie reviews first.
    """
    # The prefix makes it another order than that in which groups were drawn.
    return sorted(snippets, key=lambda snippet: (_hash(f"order {snippet.text}"), snippet.rating))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
