import warnings
from typing import Any

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics
from hypothesis import given
from hypothesis import strategies as st

from pipeline.metrics import (
    METRICS,
    accuracy,
    f1,
    matthews,
    metric_of_task,
    pearson,
    primary_metrics,
    spearman,
)


def paired(elements: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, Any]]:
    """Two arrays of the same length, of 2 to 30 elements."""
    return st.integers(2, 30).flatmap(
        lambda size: st.tuples(
            *[st.lists(elements, min_size=size, max_size=size).map(np.array) for _ in range(2)]
        )
    )


binary = paired(st.integers(0, 1))
classes = paired(st.integers(0, 4))
# Whole numbers: the correlation of almost constant floats is a matter of rounding alone.
numbers = paired(st.integers(-1000, 1000)).map(lambda pair: (pair[0] / 8.0, pair[1] / 8.0))


@given(classes)
def test_accuracy_is_sklearns(pair: tuple[Any, Any]) -> None:
    predictions, references = pair
    expected = sklearn.metrics.accuracy_score(references, predictions)
    assert accuracy(predictions, references) == pytest.approx(expected)


@given(binary)
def test_f1_of_two_classes_is_sklearns(pair: tuple[Any, Any]) -> None:
    predictions, references = pair
    expected = sklearn.metrics.f1_score(references, predictions, zero_division=0.0)
    assert f1(predictions, references) == pytest.approx(expected)


@given(classes)
def test_f1_of_more_classes_is_sklearns_macro_average(pair: tuple[Any, Any]) -> None:
    predictions, references = np.append(pair[0], 2), np.append(pair[1], 2)
    expected = sklearn.metrics.f1_score(references, predictions, average="macro", zero_division=0.0)
    assert f1(predictions, references) == pytest.approx(expected)


def test_f1_of_a_sample_without_the_third_class_is_still_a_mean_over_classes() -> None:
    predictions, references = np.array([0, 1, 1, 0]), np.array([0, 1, 0, 0])
    expected = sklearn.metrics.f1_score(references, predictions, average="macro")
    assert metric_of_task("f1", 3)(predictions, references) == pytest.approx(expected)
    expected = sklearn.metrics.f1_score(references, predictions)
    assert metric_of_task("f1", 2)(predictions, references) == pytest.approx(expected)


@given(classes)
def test_matthews_is_sklearns(pair: tuple[Any, Any]) -> None:
    predictions, references = pair
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that there is one class only
        expected = sklearn.metrics.matthews_corrcoef(references, predictions)
    assert matthews(predictions, references) == pytest.approx(expected, abs=1e-12)


@given(numbers)
def test_correlations_are_scipys_and_zero_where_scipy_has_none(pair: tuple[Any, Any]) -> None:
    for ours, theirs in ((pearson, scipy.stats.pearsonr), (spearman, scipy.stats.spearmanr)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", scipy.stats.ConstantInputWarning)
            expected = theirs(*pair).statistic
        wanted = 0.0 if np.isnan(expected) else expected
        assert ours(*pair) == pytest.approx(wanted, abs=1e-9)


@given(numbers)
def test_spearman_does_not_change_under_an_increasing_map(pair: tuple[Any, Any]) -> None:
    predictions, references = pair
    assert spearman(np.exp(predictions / 200.0), references) == pytest.approx(
        spearman(predictions, references)
    )


@pytest.mark.parametrize("name", sorted(METRICS))
def test_perfect_predictions_score_one(name: str) -> None:
    truth = np.array([0, 1, 1, 0, 1])
    assert METRICS[name](truth, truth) == pytest.approx(1.0)


@pytest.mark.parametrize("name", ["f1", "matthews", "pearson", "spearman"])
def test_a_constant_prediction_scores_zero(name: str) -> None:
    assert METRICS[name](np.zeros(4), np.array([0, 1, 1, 0])) == 0.0


def test_the_tasks_metric_comes_first_and_once() -> None:
    assert primary_metrics("classification", "matthews") == ("matthews", "accuracy", "f1")
    assert primary_metrics("regression", "pearson") == ("pearson", "spearman")
