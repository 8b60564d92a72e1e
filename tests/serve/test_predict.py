from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipeline.artifacts.benchmark import BenchmarkTask, Predictions
from pipeline.errors import ArtifactError
from serve import open_session
from serve.predict import predict, score


def test_predictions_are_in_the_order_of_the_texts_whatever_their_lengths(
    make_model: Callable[..., Path], tmp_path: Path
) -> None:
    session = open_session(make_model(tmp_path / "model", max_length=20, scale=0.125), threads=1)
    counts = np.random.default_rng(0).integers(-25, 26, size=1100)
    texts = [("good " if count > 0 else "bad ") * abs(count) + "film" for count in counts]
    done: list[int] = []
    predictions, truncated = predict(session, texts, None, classification=True, advance=done.append)
    kept = np.clip(counts, -18, 18)
    expected = np.array([session.logits([text])[0] for text in texts[:50]])
    assert np.array(predictions.logits[:50], dtype=np.float32).tolist() == expected.tolist()
    np.testing.assert_array_equal([row[1] for row in predictions.logits], 0.125 * kept)
    assert list(predictions.labels) == [int(count > 0) for count in kept]
    assert truncated == int(np.sum(np.abs(counts) > 17))
    assert sum(done) == 1100


def test_pairs_reach_the_model(make_model: Callable[..., Path], tmp_path: Path) -> None:
    session = open_session(make_model(tmp_path / "model"), threads=1)
    predictions, _ = predict(
        session, ["good", "bad"], ["bad", "good"], classification=True, advance=lambda count: None
    )
    assert predictions.labels == (0, 1)


def test_nan_logits_are_refused(make_model: Callable[..., Path], tmp_path: Path) -> None:
    session = open_session(make_model(tmp_path / "model", scale=float("nan")), threads=1)
    with pytest.raises(ArtifactError, match=r"1 of 2 texts have NaN .* first example 2"):
        predict(session, ["film", "good"], None, classification=True, advance=lambda count: None)


def test_the_tasks_own_metric_comes_first() -> None:
    predictions = Predictions((1, 0, 1, 1), ((0.0, 1.0),) * 4)
    task = BenchmarkTask("classification", ("0", "1"), "f1")
    metrics = score(predictions, [1, 0, 0, 1], task, bootstrap_samples=100, seed=0)
    assert list(metrics) == ["f1", "accuracy", "matthews"]
    assert metrics["accuracy"].value == 0.75
    assert metrics["f1"].value == pytest.approx(0.8)


def test_regression_is_scored_by_its_logit() -> None:
    predictions = Predictions((), ((1.0,), (2.0,), (4.0,)))
    task = BenchmarkTask("regression", (), "pearson")
    metrics = score(predictions, [1.0, 3.0, 7.0], task, bootstrap_samples=100, seed=0)
    assert list(metrics) == ["pearson", "spearman"]
    assert metrics["spearman"].value == pytest.approx(1.0)
    assert metrics["pearson"].value == pytest.approx(np.corrcoef([1, 2, 4], [1, 3, 7])[0, 1])
