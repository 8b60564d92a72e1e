import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.answer_metrics import answer_metrics
from pipeline.artifacts.benchmark import BenchmarkTask, Predictions
from pipeline.entities import tag_metrics
from pipeline.example_values import example_values, tag_names
from pipeline.metrics import TASK_METRICS, metric_of_task

LABELS = ("O", "B-A", "I-A", "B-B")

sentences = st.lists(
    st.lists(st.tuples(st.integers(-1, 3), st.integers(0, 3)), min_size=1, max_size=6),
    min_size=1,
    max_size=6,
)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=2, max_size=30))
def test_metrics_of_texts_are_those_of_the_arrays(pairs: list[tuple[int, int]]):
    guesses, truth = (np.array(side) for side in zip(*pairs, strict=True))
    predictions = Predictions(tuple(guesses.tolist()), ())
    for metric in ("accuracy", "f1", "matthews"):
        task = BenchmarkTask("classification", ("a", "b", "c"), metric)
        values = example_values(task, metric, predictions, truth.tolist())
        assert values.value == metric_of_task(metric, classes=3)(guesses, truth)
        assert values.is_share == (metric == "accuracy")


@given(sentences)
def test_metrics_of_words_are_those_of_the_whole_data(pairs: list[list[tuple[int, int]]]):
    given_tags = [tuple(said for said, _ in sentence) for sentence in pairs]
    wanted = [tuple(truth for _, truth in sentence) for sentence in pairs]
    task = BenchmarkTask("token-classification", LABELS, "entity_f1")
    expected = tag_metrics(tag_names(given_tags, LABELS), tag_names(wanted, LABELS), LABELS)
    predictions = Predictions((), (), tags=tuple(given_tags))
    for metric in TASK_METRICS["token-classification"]:
        values = example_values(task, metric, predictions, wanted)
        assert values.value == pytest.approx(expected[metric])
        # The metric of some examples is that of a file with these alone.
        few = example_values(task, metric, Predictions((), (), tags=given_tags[:1]), wanted[:1])
        assert values.select(np.array([0])).value == few.value


def test_the_metric_of_one_type_of_entities_leaves_out_the_others():
    task = BenchmarkTask("token-classification", LABELS, "entity_f1")
    predictions = Predictions((), (), tags=((1, 2, 0), (3, 0, 1)))
    references = [(1, 2, 3), (3, 0, 0)]
    scores = {
        kind: example_values(task, "entity_f1", predictions, references, entity=kind).value
        for kind in ("A", "B")
    }
    assert scores == {"A": pytest.approx(2 / 3), "B": pytest.approx(2 / 3)}
    none = Predictions((), (), tags=((0, 0, 3), (3, 0, 0)))
    assert example_values(task, "entity_f1", none, references, entity="A").value == 0.0
    assert example_values(task, "entity_f1", none, references, entity="B").value == 1.0


def test_metrics_of_answers_are_squads():
    answers = ("the cat", "a dog", "", "bird")
    references = [("Cat", "kitten"), ("big dog",), (), ()]
    task = BenchmarkTask("question-answering", (), "squad_f1")
    predictions = Predictions((), (), answers=answers)
    expected = answer_metrics(answers, references)
    for metric in TASK_METRICS["question-answering"]:
        values = example_values(task, metric, predictions, references)
        assert values.value == pytest.approx(expected[metric])
        assert values.is_share == (metric == "exact_match")
