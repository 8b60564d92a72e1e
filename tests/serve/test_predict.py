import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import ArtifactError
from serve.predict import predict
from serve.subjects import Subject

MakeModel = Callable[..., Path]
OpenSubject = Callable[[Path], Subject]


def test_predictions_are_in_the_order_of_the_texts_whatever_their_lengths(
    make_model: MakeModel, open_subject: OpenSubject, tmp_path: Path
) -> None:
    subject = open_subject(make_model(tmp_path / "model", max_length=20, scale=0.125))
    counts = np.random.default_rng(0).integers(-25, 26, size=1100)
    texts = [("good " if count > 0 else "bad ") * abs(count) + "film" for count in counts]
    done: list[int] = []
    predictions, truncated = predict(subject, texts, None, classification=True, advance=done.append)
    kept = np.clip(counts, -18, 18)
    expected = np.array([subject.session.logits([text])[0] for text in texts[:50]])
    assert np.array(predictions.logits[:50], dtype=np.float32).tolist() == expected.tolist()
    np.testing.assert_array_equal([row[1] for row in predictions.logits], 0.125 * kept)
    assert list(predictions.labels) == [int(count > 0) for count in kept]
    assert truncated == int(np.sum(np.abs(counts) > 17))
    assert sum(done) == 1100


def test_pairs_reach_the_model(
    make_model: MakeModel, open_subject: OpenSubject, tmp_path: Path
) -> None:
    subject = open_subject(make_model(tmp_path / "model"))
    predictions, _ = predict(
        subject, ["good", "bad"], ["bad", "good"], classification=True, advance=lambda count: None
    )
    assert predictions.labels == (0, 1)


def test_a_peer_predicts_with_its_own_engine(
    make_model: MakeModel, open_subject: OpenSubject, tmp_path: Path
) -> None:
    own = open_subject(make_model(tmp_path / "model"))
    peer = dataclasses.replace(own, engine="openvino", run=lambda inputs: -own.run(inputs))
    predictions, _ = predict(
        peer, ["good", "bad"], None, classification=True, advance=lambda count: None
    )
    assert predictions.labels == (0, 1)


def test_nan_logits_are_refused(
    make_model: MakeModel, open_subject: OpenSubject, tmp_path: Path
) -> None:
    own = open_subject(make_model(tmp_path / "model", scale=float("nan")))
    peer = dataclasses.replace(own, engine="pytorch")
    found = r"1 of 2 texts have NaN .* first example 2"
    for subject, message in (
        (own, f"model: {found}; export the model again, in fp32"),
        (peer, f"model on pytorch: {found}; leave out --peers pytorch"),
    ):
        with pytest.raises(ArtifactError, match=message):
            predict(
                subject, ["film", "good"], None, classification=True, advance=lambda count: None
            )
