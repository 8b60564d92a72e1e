from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.artifacts.exported import read_exported
from serve.server.errors import InferenceFailed, InvalidRequest, TooLarge
from serve.server.protocol import InferRequest, Tensor
from serve.server.text_model import TextModel, Texts
from serve.session import TokenRow, open_session
from tests.made_up_models import VOCABULARY

MakeModel = Callable[..., Path]

GOOD, BAD, FILM = (VOCABULARY.index(word) for word in ("good", "bad", "film"))


@pytest.fixture(scope="module")
def open_model(make_model: MakeModel, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A function that opens a new tiny model named ``tiny``."""

    def make(**changes: Any) -> TextModel:
        directory = make_model(tmp_path_factory.mktemp("models") / "tiny", **changes)
        return TextModel("tiny", open_session(directory, threads=1))

    return make


@pytest.fixture(scope="module")
def model(open_model: Any) -> TextModel:
    return open_model()


@pytest.fixture(scope="module")
def pair_model(open_model: Any) -> TextModel:
    return open_model(text_pair_column="second")


@pytest.fixture(scope="module")
def regression(open_model: Any) -> TextModel:
    return open_model(labels=(), metric="mse")


def text(*texts: str, name: str = "text", **changes: Any) -> Tensor:
    return Tensor(
        **{"name": name, "datatype": "BYTES", "shape": (len(texts),)} | changes, data=list(texts)
    )


def tokens(values: Any, name: str = "input_ids") -> Tensor:
    array = np.array(values, dtype=np.int64)
    return Tensor(name, "INT64", array.shape, array)


def request(*inputs: Tensor, outputs: tuple[str, ...] = ()) -> InferRequest:
    return InferRequest("tiny", "", "7", {tensor.name: tensor for tensor in inputs}, outputs)


def read(model: TextModel, *inputs: Tensor, **limits: int) -> Texts | list[TokenRow]:
    return model.read(request(*inputs), **{"max_texts": 4, "max_text_chars": 100} | limits)


def logits(model: TextModel, *inputs: Tensor) -> NDArray[np.float32]:
    content = read(model, *inputs)
    return model.run(list(model.tokenise(content)) if isinstance(content, Texts) else content)


def test_the_metadata_say_what_can_be_asked(
    model: TextModel, pair_model: TextModel, regression: TextModel
) -> None:
    def shapes(tensors: Any) -> dict[str, tuple[str, tuple[int, ...]]]:
        return {tensor.name: (tensor.datatype, tensor.shape) for tensor in tensors}

    ids = dict.fromkeys(("input_ids", "attention_mask", "token_type_ids"), ("INT64", (-1, -1)))
    assert shapes(model.metadata.inputs) == {"text": ("BYTES", (-1,)), **ids}
    assert [tensor.name for tensor in pair_model.metadata.inputs][:2] == ["text", "text_pair"]
    assert shapes(model.metadata.outputs) == {
        "label": ("BYTES", (-1,)),
        "probabilities": ("FP32", (-1, 2)),
        "logits": ("FP32", (-1, 2)),
    }
    assert shapes(regression.metadata.outputs) == {
        "score": ("FP32", (-1,)),
        "logits": ("FP32", (-1, 1)),
    }
    facts = model.metadata.parameters
    manifest = read_exported(model.session.directory)
    assert facts["labels"] == ["0", "1"]
    assert facts["max_length"] == manifest.task.max_length
    assert facts["model_sha256"] == manifest.model_sha256
    assert str(model.session.directory) not in repr(model.metadata)


@pytest.mark.parametrize("shape", [(2,), (2, 1)])
def test_texts_are_read_in_both_shapes(model: TextModel, shape: tuple[int, ...]) -> None:
    np.testing.assert_array_equal(
        logits(model, text("good film", "bad", shape=shape)), [[-1, 1], [1, -1]]
    )


def test_pairs_go_together(pair_model: TextModel) -> None:
    pair = text("bad", "good", name="text_pair")
    np.testing.assert_array_equal(
        logits(pair_model, text("good", "good"), pair), [[1, -1], [-3, 3]]
    )


@pytest.mark.parametrize("words", ["", " ", "\n\t", "\0", "🙂" * 50, "ü\u0301" * 50])
def test_any_text_has_an_answer(model: TextModel, words: str) -> None:
    np.testing.assert_array_equal(logits(model, text(words)), [[0, 0]])


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ((), "needs the input text"),
        (
            (text("a", name="texts"),),
            "the input 'texts' cannot be among these; .* takes text, or else input_ids",
        ),
        ((text("a"), text("b", name="text_pair")), "the input 'text_pair' cannot be"),
        ((text("a"), tokens([[1]])), r"the input 'text' cannot be .* input_ids, attention_mask"),
        (
            (tokens([[1]], "attention_mask"),),
            "the input 'attention_mask' cannot be .* takes text, or else",
        ),
        ((Tensor("text", "FP32", (1,), np.zeros(1)),), "must be of the datatype BYTES, is FP32"),
        ((text(),), "at least one text, has .0."),
        ((text("a", "b", shape=(1, 2)),), r"must have the shape .* has \[1, 2\]"),
        ((text("a", shape=(1, 1, 1)),), r"must have the shape .* has \[1, 1, 1\]"),
        ((text("a", shape=()),), r"must have the shape .* has \[\]"),
        ((text("a", name="input_ids"),), "must be of the datatype INT64, is BYTES"),
        ((Tensor("input_ids", "INT32", (1, 1), np.ones((1, 1))),), "INT64, is INT32"),
        ((tokens([1, 2]),), r"must have the shape \[rows, tokens\] .* has \[2\]"),
        ((tokens([[]]),), r"at least one token, has \[1, 0\]"),
        ((tokens([[1, -1]]),), r"input_ids must be from 0 to \d+, got -1"),
        ((tokens([[1, 10**12]]),), r"input_ids must be from 0 to \d+, got 1000000000000"),
        ((tokens([[1]]), tokens([[2]], "attention_mask")), "attention_mask must be from 0 to 1"),
        ((tokens([[1]]), tokens([[1, 1]], "token_type_ids")), r"has the shape \[1, 2\], input_ids"),
        ((tokens([[1], [1]]), tokens([[1], [0]], "attention_mask")), "a row without a 1"),
    ],
)
def test_what_cannot_be_is_refused(
    model: TextModel, inputs: tuple[Tensor, ...], message: str
) -> None:
    with pytest.raises(InvalidRequest, match=message):
        read(model, *inputs)


def test_pairs_that_do_not_match_are_refused(pair_model: TextModel) -> None:
    with pytest.raises(InvalidRequest, match="needs the input text_pair"):
        read(pair_model, text("a"))
    with pytest.raises(InvalidRequest, match="text has 1 elements and text_pair 2"):
        read(pair_model, text("a"), text("a", "b", name="text_pair"))


def test_limits_are_kept(model: TextModel, pair_model: TextModel) -> None:
    longest = model.session.manifest.task.max_length
    assert len(read(model, text(*"abcd"))) == 4
    read(model, text("x" * 100))
    read(model, tokens([[GOOD] * longest] * 4))
    with pytest.raises(TooLarge, match="5 texts; this server takes 4"):
        read(model, text(*"abcde"))
    with pytest.raises(TooLarge, match="5 rows of tokens; this server takes 4"):
        read(model, tokens([[GOOD]] * 5))
    with pytest.raises(TooLarge, match=f"rows of {longest + 1} tokens; model tiny reads {longest}"):
        read(model, tokens([[GOOD] * (longest + 1)]))
    for inputs in (text("x" * 101), text("")), (text(""), text("x" * 101)):
        pair = Tensor("text_pair", "BYTES", (1,), inputs[1].data)
        with pytest.raises(TooLarge, match="a text of 101 characters; this server takes 100"):
            read(pair_model, inputs[0], pair)


def test_the_answer_has_what_was_asked_for_in_that_order(
    model: TextModel, regression: TextModel
) -> None:
    values = np.array([[-1, 1], [2, -2]], dtype=np.float32)
    asked = ("logits", "label")
    answer = model.answer(request(text("a", "b"), outputs=asked), values)
    assert (answer.model, answer.version, answer.id) == ("tiny", "1", "7")
    assert [output.name for output in answer.outputs] == list(asked)
    assert answer.outputs[0].data is values
    assert answer.outputs[1].data == ["1", "0"]
    label, probabilities = model.answer(request(text("a", "b")), values).outputs
    assert (label.name, probabilities.name) == ("label", "probabilities")
    assert isinstance(probabilities.data, np.ndarray)
    shares = np.exp([[-1, 1], [2, -2]]) / np.exp([[-1, 1], [2, -2]]).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(probabilities.data, shares, rtol=1e-6)
    (score,) = regression.answer(request(text("a", "b")), values[:, :1]).outputs
    assert (score.name, score.shape) == ("score", (2,))
    np.testing.assert_array_equal(score.data, [-1, 2])
    with pytest.raises(InvalidRequest, match="no output 'score'; it has label, probabilities, log"):
        read_with_outputs(model, "score")


def read_with_outputs(model: TextModel, *outputs: str) -> None:
    model.read(request(text("a"), outputs=outputs), max_texts=1, max_text_chars=1)


@settings(deadline=None)
@given(values=st.lists(st.floats(-(2.0**99), 2.0**99, width=32), min_size=2, max_size=2))
def test_probabilities_are_probabilities_whatever_the_logits(
    model: TextModel, values: list[float]
) -> None:
    answer = model.answer(request(text("a")), np.array([values], dtype=np.float32))
    shares = answer.outputs[1].data
    assert isinstance(shares, np.ndarray)
    assert np.isclose(shares.sum(), 1.0)
    assert ((shares >= 0) & (shares <= 1)).all()


@settings(deadline=None)
@given(
    rows=st.lists(
        st.lists(st.integers(5, len(VOCABULARY) - 1), min_size=1, max_size=12),
        min_size=1,
        max_size=4,
    ),
    extra=st.integers(0, 5),
)
def test_padded_tokens_give_what_each_row_gives_alone(
    model: TextModel, rows: list[list[int]], extra: int
) -> None:
    width = max(map(len, rows)) + extra
    ids = [row + [GOOD] * (width - len(row)) for row in rows]  # padding of a word that counts
    mask = [[1] * len(row) + [0] * (width - len(row)) for row in rows]
    content = read(model, tokens(ids), tokens(mask, "attention_mask"))
    assert isinstance(content, list)
    assert [row.ids for row in content] == rows
    alone = [logits(model, tokens([row])) for row in rows]
    np.testing.assert_array_equal(model.run(content), np.concatenate(alone))


def test_tokens_keep_their_types_and_their_gaps(model: TextModel) -> None:
    inputs = (
        tokens([[GOOD, BAD, GOOD, FILM]]),
        tokens([[1, 0, 1, 0]], "attention_mask"),
        tokens([[0, 0, 1, 1]], "token_type_ids"),
    )
    assert read(model, *inputs) == [TokenRow([GOOD, BAD, GOOD], [1, 0, 1], [0, 0, 1])]
    np.testing.assert_array_equal(logits(model, *inputs), [[-3, 3]])


def test_what_onnxruntime_cannot_run_names_the_model_and_no_path(open_model: Any) -> None:
    model = open_model(positions=8)
    with pytest.raises(InferenceFailed, match="tiny: onnxruntime cannot run 1 texts") as caught:
        logits(model, text("good " * 20))
    assert str(model.session.directory) not in str(caught.value)
    with pytest.raises(InferenceFailed):
        open_model(positions=2).warm_up()


@pytest.mark.parametrize("scale", [float("nan"), float("inf")])
def test_a_logit_that_is_not_finite_is_no_answer(open_model: Any, scale: float) -> None:
    with pytest.raises(InferenceFailed, match="model tiny gave a logit that is NaN or infinite"):
        logits(open_model(scale=scale), text("good"))


def test_warming_up_takes_pairs_too(pair_model: TextModel, model: TextModel) -> None:
    pair_model.warm_up()
    model.warm_up()


@given(
    st.lists(st.tuples(st.text(max_size=9), st.text(max_size=9)), min_size=1, max_size=12),
    st.integers(1, 30),
    st.booleans(),
)
def test_parts_are_the_texts_in_their_order_and_no_larger_than_asked(
    pairs: list[tuple[str, str]], characters: int, is_pair: bool
) -> None:
    firsts, seconds = ([pair[side] for pair in pairs] for side in (0, 1))
    parts = list(Texts(firsts, seconds if is_pair else None).parts(characters))
    assert [text for part in parts for text in part.texts] == firsts
    assert all(len(part) == 1 or part.characters <= characters for part in parts)
    if is_pair:
        assert [text for part in parts for text in part.pairs or ()] == seconds
