"""Entities and their F1, against seqeval."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from seqeval.metrics import f1_score, precision_score, recall_score
from seqeval.metrics.sequence_labeling import get_entities

from pipeline.entities import (
    count_entities,
    entities_of,
    entity_scores,
    has_entities,
    tag_metrics,
)

LABELS = ("O", *(f"{position}-{kind}" for position in "BIES" for kind in ("PER", "LOC")))
sentence = st.lists(st.sampled_from(LABELS), min_size=1, max_size=12)
pair = st.lists(st.tuples(st.sampled_from(LABELS), st.sampled_from(LABELS)), min_size=1)


@given(tags=sentence)
def test_entities_are_seqevals(tags):
    assert entities_of(tags) == get_entities(tags)


@given(pairs=st.lists(pair, min_size=1, max_size=5))
def test_scores_are_seqevals(pairs):
    predictions = [[given for given, _ in row] for row in pairs]
    references = [[wanted for _, wanted in row] for row in pairs]
    scores = entity_scores(count_entities(predictions, references))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of undefined scores, which are 0 there too
        expected = [
            score(references, predictions) for score in (f1_score, precision_score, recall_score)
        ]
    np.testing.assert_allclose(scores, expected)


def test_last_and_unit_are_end_and_single():
    tags = ["U-PER", "U-PER", "B-LOC", "I-LOC", "L-LOC", "I-LOC"]
    assert entities_of(tags) == [("PER", 0, 0), ("PER", 1, 1), ("LOC", 2, 4), ("LOC", 5, 5)]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (("O", "B-PER", "I-PER"), True),
        (("B-PER", "I-PER"), True),
        (("NOUN", "VERB"), False),
        (("O", "PER"), False),
        (("O",), False),
        (("O", "X-PER"), False),
    ],
)
def test_labels_mark_entities_by_their_prefix(labels, expected):
    assert has_entities(labels) == expected


def test_words_without_prefix_are_judged_one_by_one():
    metrics = tag_metrics([["N", "V"], ["N"]], [["N", "N"], ["N"]], ("N", "V"))
    assert metrics == {"accuracy": pytest.approx(2 / 3)}
    with_entities = tag_metrics([["O", "O"]], [["B-PER", "O"]], ("O", "B-PER"))
    assert with_entities["accuracy"] == 0.5
    assert with_entities["entity_f1"] == 0.0
