"""The model that takes texts, run as Triton's Python backend runs it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from export.triton import lay_out
from pipeline.artifacts.exported import read_exported
from serve import open_session
from tests.export.triton_server import Triton

pytestmark = pytest.mark.usefixtures("native_library")

MakeModel = Callable[..., Path]


@pytest.fixture
def serve(make_model: MakeModel, tmp_path: Path) -> Callable[..., Triton]:
    """Lays out a model that counts positive and negative words, and serves it."""

    def start(**options: object) -> Triton:
        directory = make_model(tmp_path / "repository", **options)
        lay_out(directory, read_exported(directory), name="m", repository=str(directory))
        return Triton(directory)

    return start


def column(*texts: str | bytes) -> NDArray[np.object_]:
    """Texts as Triton hands them to a model: bytes [texts, 1]."""
    encoded = [[text.encode() if isinstance(text, str) else text] for text in texts]
    return np.array(encoded, dtype=np.object_).reshape(len(texts), 1)


def test_texts_get_label_probabilities_and_logits(serve):
    answer = serve(labels=("niet goed", "göed\n👍")).infer(
        "m_text", {"text": column("good film", "bad and bad", "the actor")}
    )
    assert [label.decode() for (label,) in answer["label"]] == [
        "göed\n👍",
        "niet goed",
        "niet goed",
    ]
    np.testing.assert_array_equal(answer["logits"], [[-1, 1], [2, -2], [0, 0]])
    powers = np.exp(answer["logits"].astype(np.float64))
    expected = powers / powers.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(answer["probabilities"], expected, rtol=1e-6)


def test_logits_that_no_exponential_can_hold_have_probabilities(serve):
    answer = serve(scale=1e4).infer("m_text", {"text": column("good")})
    np.testing.assert_array_equal(answer["probabilities"], [[0, 1]])


def test_requests_that_wait_run_once_and_each_gets_its_own_rows(serve):
    triton = serve()
    requests = [
        {"text": column("good")},
        {"text": column("the plot was bad", "good good good")},
        {"text": column("bad")},
    ]
    answers = triton.infer_together("m_text", requests)
    assert [answer["logits"][:, 1].tolist() for answer in answers] == [[1], [-1, 3], [-1]]
    assert triton.runs["m"] == [(4, 6)]


def test_answers_are_those_of_a_session_of_ours(make_model, tmp_path):
    texts = ["good film", "", "a bad and dull and awful plot was good", "good " * 100]
    session = open_session(make_model(tmp_path / "model"), threads=1)
    expected = session.logits(texts)
    directory = make_model(tmp_path / "repository")
    lay_out(directory, read_exported(directory), name="m", repository=str(directory))
    answer = Triton(directory).infer("m_text", {"text": column(*texts)})
    np.testing.assert_array_equal(answer["logits"], expected)


def test_padding_has_the_models_token(make_model, tmp_path, monkeypatch):
    directory = make_model(tmp_path / "repository", pad_token_id=3)
    lay_out(directory, read_exported(directory), name="m", repository=str(directory))
    triton = Triton(directory)
    seen = {}
    run = triton.infer
    monkeypatch.setattr(
        triton, "infer", lambda name, inputs: seen.update(inputs) or run(name, inputs)
    )
    triton.infer_together("m_text", [{"text": column("good", "good film")}])
    assert seen["input_ids"][0, -1] == 3
    np.testing.assert_array_equal(seen["attention_mask"], [[1, 1, 1, 0], [1, 1, 1, 1]])


def test_second_texts_are_paired_with_the_first(serve):
    triton = serve(text_pair_column="second")
    answer = triton.infer("m_text", {"text": column("good", "bad"), "text_pair": column("bad", "")})
    np.testing.assert_array_equal(answer["logits"][:, 1], [-1, -1])


def test_regression_gives_a_score(serve):
    answer = serve(labels=(), metric="pearson").infer("m_text", {"text": column("good", "bad bad")})
    assert set(answer) == {"score", "logits"}
    np.testing.assert_array_equal(answer["score"], [[1], [-2]])


def test_a_request_that_is_no_text_fails_alone(serve):
    triton = serve()
    requests = [
        {"text": column("good")},
        {"text": column("bad", b"\xff")},
        {"text": column()},
        {"text": column("bad")},
    ]
    first, invalid, empty, last = triton.infer_together("m_text", requests)
    assert (first["logits"][0, 1], last["logits"][0, 1]) == (1, -1)
    assert "text must be UTF-8" in invalid
    assert "at least one text" in empty
    assert triton.runs["m"] == [(2, 3)]
    with pytest.raises(ValueError, match="text must be UTF-8"):
        triton.infer("m_text", {"text": column(b"\xff")})
    assert len(triton.runs["m"]) == 1


def test_an_error_of_the_model_reaches_all_whose_texts_it_ran(serve):
    triton = serve(positions=4)
    requests = [{"text": column("good")}, {"text": column("the plot was bad")}]
    short, long = triton.infer_together("m_text", requests)
    assert short == long
    assert "onnxruntime" in short.lower()
    assert triton.infer("m_text", requests[0])["logits"][0, 1] == 1


def test_a_logit_that_is_no_number_is_an_error_of_its_request(serve):
    triton = serve(scale=1e38)
    requests = [{"text": column("good " * 20)}, {"text": column("good")}]
    broken, fine = triton.infer_together("m_text", requests)
    assert broken == "model m gave a logit that is NaN or infinite"
    assert fine["label"][0, 0] == b"1"
