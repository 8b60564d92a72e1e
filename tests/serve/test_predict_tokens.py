from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import ArtifactError, DataError
from pipeline.questions import Questions, read_questions
from pipeline.tagged_words import TaggedWords, read_tagged_words
from serve.predict_tokens import predict_answers, predict_tags
from serve.subjects import Subject
from tests.made_up_data import TAGS

MakeModel = Callable[..., Path]
OpenSubject = Callable[[Path], Subject]
FLAG = "--validation-file"


def questions_of(*contexts: str) -> Questions:
    count = len(contexts)
    ids, texts = [str(row) for row in range(count)], ["the film was"] * count
    return Questions(
        "made up", ids, texts, contexts, [()] * count, "question", "context", "answers"
    )


def words_of(*sentences: str) -> TaggedWords:
    words = [sentence.split() for sentence in sentences]
    return TaggedWords("made up", words, [["O"] * len(each) for each in words], "tokens", "tags")


@pytest.fixture(scope="module")
def answering(
    make_model: MakeModel, open_subject: OpenSubject, tmp_path_factory: pytest.TempPathFactory
) -> Subject:
    directory = tmp_path_factory.mktemp("answering") / "model"
    return open_subject(make_model(directory, kind="question-answering", max_length=16))


@pytest.fixture(scope="module")
def tagging(
    make_model: MakeModel, open_subject: OpenSubject, tmp_path_factory: pytest.TempPathFactory
) -> Subject:
    directory = tmp_path_factory.mktemp("tagging") / "model"
    return open_subject(make_model(directory, kind="token-classification", max_length=20))


def test_an_answer_is_found_in_whichever_window_holds_it(answering: Subject) -> None:
    done: list[int] = []
    data = questions_of("Lovely film", "the plot " * 40 + "was  GREAT", "a very " * 30)
    predictions = predict_answers(answering, data, flag=FLAG, advance=done.append)
    assert predictions.answers == ("Lovely", "GREAT", "")
    assert (predictions.labels, predictions.logits, predictions.tags) == ((), (), ())
    assert sum(done) == 3


def test_the_made_up_questions_are_all_answered(answering: Subject, token_data) -> None:
    data = read_questions(token_data["question-answering"], flag=FLAG)
    predictions = predict_answers(answering, data, flag=FLAG, advance=lambda count: None)
    assert 0 < data.unanswerable < len(data)
    assert [(answer,) if answer else () for answer in predictions.answers] == data.references


def test_a_question_without_room_is_named_with_its_file(answering: Subject) -> None:
    data = questions_of("good")
    data.texts[0] = "the film was " * 10  # type: ignore[index]
    with pytest.raises(DataError, match="--validation-file made up: example 1: the question and"):
        predict_answers(answering, data, flag=FLAG, advance=lambda count: None)


def test_words_get_the_labels_of_their_first_tokens(tagging: Subject, token_data) -> None:
    data = read_tagged_words(token_data["token-classification"], flag=FLAG)
    done: list[int] = []
    predictions, truncated = predict_tags(tagging, data, advance=done.append)
    found = [tuple(TAGS[index] for index in tags) for tags in predictions.tags]
    assert found == list(data.tags)
    assert (truncated, sum(done)) == (0, len(data))


def test_words_that_are_cut_off_are_outside(tagging: Subject) -> None:
    data = words_of("good " * 20, "bad")
    predictions, truncated = predict_tags(tagging, data, advance=lambda count: None)
    assert predictions.tags == ((2,) + (4,) * 17 + (0,) * 2, (1,))
    assert truncated == 1


def test_a_logit_that_is_no_number_is_refused(
    make_model: MakeModel, open_subject: OpenSubject, tmp_path: Path
) -> None:
    subject = open_subject(
        make_model(tmp_path / "m", kind="token-classification", scale=float("nan"))
    )
    with pytest.raises(ArtifactError, match="2 of 2 texts have NaN or infinite logits"):
        predict_tags(subject, words_of("good", "bad film"), advance=lambda count: None)
    assert np.isnan(subject.session.logits(["good"])).any()
