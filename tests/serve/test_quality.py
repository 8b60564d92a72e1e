import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.artifacts.benchmark import BenchmarkTask, Predictions, Quality, Robustness
from pipeline.data import LabelledText
from pipeline.intervals import share_estimate
from serve.quality import agree, measure_quality
from serve.slices import token_lengths
from serve.subjects import Subject

MakeModel = Callable[..., Path]
OpenSubject = Callable[[Path], Subject]

TASK = BenchmarkTask("classification", ("0", "1"), "accuracy")
# How many good words a text has; bad ones below 0.
counts = st.lists(st.integers(-30, 30), min_size=1, max_size=100)


@pytest.fixture(scope="module")
def subject(
    make_model: MakeModel, open_subject: OpenSubject, tmp_path_factory: pytest.TempPathFactory
) -> Subject:
    return open_subject(make_model(tmp_path_factory.mktemp("quality") / "model"))


def data_of(words: Sequence[int]) -> LabelledText:
    texts = [("good " if count > 0 else "bad ") * abs(count) + "film" for count in words]
    return LabelledText("made up", texts, None, [0] * len(texts), "text", None, "label")


def measure(
    subject: Subject,
    data: LabelledText,
    references: Sequence[int | float],
    task: BenchmarkTask = TASK,
    first: Predictions | None = None,
) -> Quality:
    return measure_quality(
        subject,
        data,
        references,
        task,
        lengths=token_lengths(subject.session, data),
        first=first,
        bootstrap_samples=100,
        seed=0,
        advance=lambda count: None,
    )


def test_the_tasks_own_metric_comes_first(subject: Subject) -> None:
    task = dataclasses.replace(TASK, metric="f1")
    quality = measure(subject, data_of([1, 1, -1, 1]), [1, 0, 0, 1], task)
    assert quality.predictions.labels == (1, 1, 0, 1)
    assert list(quality.metrics) == ["f1", "accuracy", "matthews"]
    assert quality.metrics["accuracy"] == share_estimate(3, 4)
    assert quality.metrics["f1"].value == pytest.approx(0.8)
    assert {part.metric for part in quality.slices} == {"accuracy"}


def test_regression_is_scored_by_its_logit(
    make_model: MakeModel, open_subject: OpenSubject, tmp_path: Path
) -> None:
    subject = open_subject(make_model(tmp_path / "model", labels=()))
    task = BenchmarkTask("regression", (), "pearson")
    quality = measure(subject, data_of([1, 2, 4]), [1.0, 3.0, 7.0], task)
    assert list(quality.metrics) == ["pearson", "spearman"]
    assert quality.metrics["spearman"].value == pytest.approx(1.0)
    expected = np.corrcoef([1, 2, 4], [1, 3, 7])[0, 1]
    assert quality.metrics["pearson"].value == pytest.approx(expected)
    (part,) = quality.slices
    assert (part.by, part.name, part.examples) == ("length", "4 to 7 tokens", 3)
    assert (part.metric, part.estimate) == ("pearson", quality.metrics["pearson"])
    again = measure(subject, data_of([1, 2, 4]), [1.0, 3.0, 7.0], task, first=quality.predictions)
    assert again.agreement is not None
    assert (again.agreement.same_label, again.agreement.largest_logit_difference) == (None, 0.0)
    assert again.agreement.examples == ()


def test_slices_show_where_a_model_errs(subject: Subject) -> None:
    # Right on all short texts; of the long ones, every one that is labelled 0 is taken for 1.
    words = [1, -1] * 20 + [9] * 40
    references = [1, 0] * 20 + [1, 0] * 20
    quality = measure(subject, data_of(words), references)
    found = {(part.by, part.name): (part.examples, part.estimate) for part in quality.slices}
    assert found == {
        ("class", "0"): (40, share_estimate(20, 40)),
        ("class", "1"): (40, share_estimate(40, 40)),
        ("length", "4 tokens"): (40, share_estimate(40, 40)),
        ("length", "12 tokens"): (40, share_estimate(20, 40)),
    }
    assert quality.robustness == Robustness(64, 0, 0.0)
    assert quality.agreement is None


@given(counts, st.randoms())
@settings(max_examples=20, deadline=None)
def test_both_kinds_of_slices_add_up_to_the_whole(subject: Subject, words, random) -> None:
    references = [random.randrange(2) for _ in words]
    quality = measure(subject, data_of(words), references)
    for by in ("class", "length"):
        parts = [part for part in quality.slices if part.by == by]
        assert sum(part.examples for part in parts) == len(words)
        right = sum(part.examples * part.estimate.value for part in parts)
        assert right / len(words) == pytest.approx(quality.metrics["accuracy"].value)


def test_slices_by_length_are_those_of_the_first_model_whatever_the_tokenizer(
    subject: Subject, make_model: MakeModel, open_subject: OpenSubject, tmp_path: Path
) -> None:
    short = open_subject(make_model(tmp_path / "short", max_length=4))
    data = data_of([1] * 30 + [9] * 30)
    quality = measure_quality(
        short,
        data,
        [1] * 60,
        TASK,
        lengths=token_lengths(subject.session, data),
        first=None,
        bootstrap_samples=100,
        seed=0,
        advance=lambda count: None,
    )
    lengths = [part.name for part in quality.slices if part.by == "length"]
    assert lengths == ["4 tokens", "12 tokens"]
    assert quality.truncated == 30


logits = st.lists(st.tuples(*[st.floats(-8, 8, width=32)] * 3), min_size=1, max_size=40)


def predictions_of(rows: Sequence[tuple[float, ...]]) -> Predictions:
    return Predictions(tuple(int(np.argmax(row)) for row in rows), tuple(rows))


@given(logits)
def test_a_model_agrees_with_itself(rows: list[tuple[float, ...]]) -> None:
    predictions = predictions_of(rows)
    agreement = agree(predictions, predictions)
    assert agreement.same_label == share_estimate(len(rows), len(rows))
    assert agreement.largest_logit_difference == 0.0
    assert agreement.examples == ()


@given(st.lists(st.tuples(*[st.tuples(*[st.floats(-8, 8, width=32)] * 3)] * 2), min_size=1))
def test_where_two_models_differ(pairs: list[tuple[tuple[float, ...], tuple[float, ...]]]) -> None:
    one, other = (predictions_of(rows) for rows in zip(*pairs, strict=True))
    agreement, back = agree(one, other), agree(other, one)
    assert agreement == back
    same = len(pairs) - len(agreement.examples)
    assert agreement.same_label == share_estimate(same, len(pairs))
    for example in range(len(pairs)):
        differs = one.labels[example] != other.labels[example]
        assert differs == (example in agreement.examples)
    differences = [abs(a - b) for left, right in pairs for a, b in zip(left, right, strict=True)]
    assert agreement.largest_logit_difference == max(differences)


def test_agreement_is_with_the_first_model(
    subject: Subject, make_model: MakeModel, open_subject: OpenSubject, tmp_path: Path
) -> None:
    data = data_of([1, -1, 0, 2])
    first = measure(subject, data, [1, 0, 0, 1])
    inverted = open_subject(make_model(tmp_path / "inverted", scale=-1.0))
    second = measure(inverted, data, [1, 0, 0, 1], first=first.predictions)
    assert second.agreement is not None
    assert second.agreement.examples == (0, 1, 3)  # no word of either kind is 0 both times
    assert second.agreement.same_label == share_estimate(1, 4)
    assert second.agreement.largest_logit_difference == 4.0


def test_progress_counts_every_run_of_a_text(subject: Subject) -> None:
    done: list[int] = []
    data = data_of([1, -1] * 50)
    measure_quality(
        subject,
        data,
        [1, 0] * 50,
        TASK,
        lengths=token_lengths(subject.session, data),
        first=None,
        bootstrap_samples=100,
        seed=0,
        advance=done.append,
    )
    assert sum(done) == 100 + 2 * 64
