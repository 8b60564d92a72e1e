"""Models of tokens' logits in the server: spans for texts, logits for tokens."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.artifacts.run import TaskKind
from serve.server.batching import Batcher
from serve.server.errors import InferenceFailed, InvalidRequest
from serve.server.protocol import InferRequest, InferResponse, Tensor
from serve.server.text_model import TextModel, Texts
from serve.server.token_model import AnswerModel, TagModel, open_model
from serve.session import open_session
from tests.made_up_models import VOCABULARY
from tests.serve.server.fake_model import batcher

OpenModel = Callable[..., TextModel]


@pytest.fixture(scope="module")
def open_tiny(
    make_model: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> OpenModel:
    """A function that opens a new tiny model named ``tiny``."""

    def make(**changes: Any) -> TextModel:
        directory = make_model(tmp_path_factory.mktemp("models") / "tiny", **changes)
        return open_model("tiny", open_session(directory, threads=1))

    return make


@pytest.fixture(scope="module")
def answering(open_tiny: OpenModel) -> TextModel:
    return open_tiny(kind="question-answering", max_length=16)


@pytest.fixture(scope="module")
def tagging(open_tiny: OpenModel) -> TextModel:
    return open_tiny(kind="token-classification")


def texts(name: str, *values: str) -> Tensor:
    return Tensor(name, "BYTES", (len(values),), list(values))


def ask(model: TextModel, *inputs: Tensor, outputs: tuple[str, ...] = ()) -> dict[str, Any]:
    """What the server does with a request, its texts tokenised in parts of one text each."""
    request = InferRequest("tiny", "", "7", {tensor.name: tensor for tensor in inputs}, outputs)
    content = model.read(request, max_texts=8, max_text_chars=1000)
    rows: list[Any] = []
    for part in content.parts(1) if isinstance(content, Texts) else [content]:
        rows += model.tokenise(part) if isinstance(part, Texts) else part
    results = model.results(len(rows))
    for index, result in enumerate(model.run(rows)):
        results[index] = result
    response: InferResponse = model.answer(request, results)
    for tensor in response.outputs:
        assert tensor.shape == np.shape(tensor.data)
    return {tensor.name: tensor.data for tensor in response.outputs}


def test_each_kind_has_its_model(open_tiny: OpenModel, answering: TextModel, tagging: TextModel):
    assert isinstance(answering, AnswerModel)
    assert isinstance(tagging, TagModel)
    assert type(open_tiny()) is TextModel
    names = [[output.name for output in model.metadata.outputs] for model in (answering, tagging)]
    assert names[0] == ["answer", "probability", "start", "end", "start_logits", "end_logits"]
    assert names[1] == ["entities", "logits"]
    assert [entry.name for entry in answering.metadata.inputs[:2]] == ["text", "text_pair"]
    answering.warm_up()
    tagging.warm_up()


def test_answers_come_from_all_windows_of_each_context(answering: TextModel):
    contexts = ["the plot " * 30 + "was Great", "a film", "lovely actor"]
    found = ask(answering, texts("text", *["the film was"] * 3), texts("text_pair", *contexts))
    assert found["answer"] == ["Great", "", "lovely"]
    assert found["start"].tolist() == [274, 0, 0]
    assert found["end"].tolist() == [279, 0, 6]
    assert ((found["probability"] > 0) & (found["probability"] <= 1)).all()


def test_a_question_without_room_is_the_clients_fault(answering: TextModel):
    with pytest.raises(InvalidRequest, match="no room for its context among the 16 tokens"):
        ask(answering, texts("text", "the film was " * 7), texts("text_pair", "good"))


def test_entities_are_words_of_the_text_as_it_is(tagging: TextModel):
    found = ask(tagging, texts("text", "the  film was Good\tgreat and awful", "plot"))
    entities = [json.loads(each) for each in found["entities"]]
    assert entities == [
        [
            {"type": "POS", "text": "Good\tgreat", "start": 14, "end": 24},
            {"type": "NEG", "text": "awful", "start": 29, "end": 34},
        ],
        [],
    ]


def test_a_text_that_is_cut_has_entities_up_to_there(tagging: TextModel):
    found = ask(tagging, texts("text", "good " * 30 + "film " * 100 + "bad"))
    (entity,) = json.loads(found["entities"][0])
    assert (entity["start"], entity["end"]) == (0, 5 * 30 - 1)


@pytest.mark.parametrize("kind", ["question-answering", "token-classification"])
def test_rows_of_tokens_get_the_logits_of_each_token(
    kind: TaskKind, answering: TextModel, tagging: TextModel
):
    model = {"question-answering": answering, "token-classification": tagging}[kind]
    good, film = (VOCABULARY.index(word) for word in ("good", "film"))
    ids = np.array([[good, film, film], [film, good, 0]])
    ids = np.pad(ids, ((0, 0), (0, 1)))  # padding that no row needs
    mask = np.array([[1, 1, 1, 0], [1, 1, 0, 0]])
    found = ask(
        model,
        Tensor("input_ids", "INT64", (2, 4), ids),
        Tensor("attention_mask", "INT64", (2, 4), mask),
    )
    if kind == "question-answering":
        assert set(found) == {"start_logits", "end_logits"}
        np.testing.assert_array_equal(found["start_logits"], [[1, 0, 0, 0], [0, 1, 0, 0]])
    else:
        assert set(found) == {"logits"}
        assert found["logits"].argmax(axis=-1)[:, :2].tolist() == [[2, 0], [0, 2]]
        assert found["logits"].shape == (2, 4, 5)
        assert not found["logits"][1, 2].any()  # behind the end


def test_what_belongs_to_the_other_kind_of_input_is_refused(answering: TextModel):
    tokens = Tensor("input_ids", "INT64", (1, 2), np.array([[5, 6]]))
    with pytest.raises(InvalidRequest, match="no answer for rows of tokens; ask for start_logits"):
        ask(answering, tokens, outputs=("answer",))
    pair = texts("text", "the film"), texts("text_pair", "good")
    with pytest.raises(InvalidRequest, match="no end_logits for texts; ask for answer or prob"):
        ask(answering, *pair, outputs=("end_logits",))
    assert list(ask(answering, *pair, outputs=("end", "answer"))) == ["end", "answer"]


def test_a_logit_that_is_no_number_is_no_answer(open_tiny: OpenModel):
    model = open_tiny(kind="token-classification", scale=float("inf"))
    with pytest.raises(InferenceFailed, match="gave a logit that is NaN or infinite"):
        ask(model, texts("text", "good"))


def test_windows_of_several_requests_run_together(answering: TextModel):
    contexts = ["the plot " * 30 + "was great", "a lovely film " * 9]

    async def main() -> list[dict[str, Any]]:
        async with batcher() as batching:
            return await asyncio.gather(*(respond(batching, context) for context in contexts))

    async def respond(batching: Batcher, context: str) -> dict[str, Any]:
        inputs = {"text": texts("text", "the film was"), "text_pair": texts("text_pair", context)}
        request = InferRequest("tiny", "", "7", inputs)
        content = answering.read(request, max_texts=8, max_text_chars=1000)
        assert isinstance(content, Texts)
        rows = list(answering.tokenise(content))
        assert len(rows) > 3
        response = answering.answer(request, await batching.submit(answering, rows))
        return {tensor.name: tensor.data for tensor in response.outputs}

    assert [found["answer"] for found in asyncio.run(main())] == [["great"], ["lovely"]]
