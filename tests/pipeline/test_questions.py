"""Questions from SQuAD's JSON and from rows, and one clear line for each way they can be wrong."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import DataError
from pipeline.questions import ReferenceAnswer, is_squad_json, read_questions

CONTEXT = "Ada wrote the first program in 1843."


def row(identifier="a", text="Ada", start=0, **changes):
    answers = {"text": [text], "answer_start": [start]}
    question = f"Question {identifier}?"
    return {
        "id": identifier,
        "question": question,
        "context": CONTEXT,
        "answers": answers,
        **changes,
    }


ROWS = [row(), row("b", "1843", 31), row("c", answers={"text": [], "answer_start": []})]


def squad(rows, version="v2.0"):
    qas = []
    for entry in rows:
        pairs = zip(entry["answers"]["text"], entry["answers"]["answer_start"], strict=True)
        answers = [{"text": text, "answer_start": start} for text, start in pairs]
        qa = {"id": entry["id"], "question": entry["question"], "answers": answers}
        if version == "v2.0":
            qa["is_impossible"] = not answers
        qas.append(qa)
    paragraphs = [{"context": CONTEXT, "qas": qas}]
    return {"version": version, "data": [{"title": "Ada", "paragraphs": paragraphs}]}


def read(path, **columns):
    return read_questions(path, flag="--train-file", **columns)


def write(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


@pytest.mark.parametrize("form", ["squad", "json", "jsonl", "parquet"])
def test_every_form_gives_the_same_questions(tmp_path, form):
    path = tmp_path / f"questions.{'json' if form == 'squad' else form}"
    if form == "squad":
        write(path, squad(ROWS))
    elif form == "parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), path)
    else:
        lines = "\n".join(map(json.dumps, ROWS))
        write(path, ROWS if form == "json" else lines)
    assert is_squad_json(path) == (form == "squad")
    questions = read(path)
    assert list(questions.ids) == ["a", "b", "c"]
    assert questions.texts[1] == "Question b?"
    assert set(questions.pairs) == {CONTEXT}
    assert list(questions.answers) == [
        (ReferenceAnswer("Ada", 0),),
        (ReferenceAnswer("1843", 31),),
        (),
    ]
    assert (len(questions), questions.unanswerable) == (3, 1)
    assert len(questions.head(2)) == 2
    assert questions.head(2).references == [("Ada",), ("1843",)]


@pytest.mark.parametrize("before", [{"version": 1.1}, {"name": "Ada's", "version": "1"}, {}])
def test_what_stands_before_squads_data_does_not_matter(tmp_path, before):
    content = {**before, "data": squad(ROWS)["data"]}
    assert is_squad_json(write(tmp_path / "a.json", content))
    assert not is_squad_json(write(tmp_path / "b.json", {"rows": content}))


def test_columns_of_other_names_are_named(tmp_path):
    rows = [{"q": "Who?", "passage": CONTEXT, "a": {"text": ["Ada"], "answer_start": [0]}}]
    path = write(tmp_path / "rows.json", rows)
    questions = read(path, text_column="q", text_pair_column="passage", label_column="a")
    assert questions.answers[0][0].end == 3
    assert questions.text_pair_column == "passage"
    with pytest.raises(DataError, match=r"expected column 'question', .*--text-column"):
        read(path)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (row("x", "Ada", 1), r"example 2 \(id 'x'\): the context has 'da ' at answer_start 1, not"),
        (row("x", "Ada", 400), r"example 2 \(id 'x'\).* out of the context's 36 characters"),
        (row("x", "Ada", -1), "out of the context's 36"),
        (row("x", "  ", 3), "an answer without text"),
        (row("x", answers={"text": ["Ada"], "answer_start": []}), "1 answer texts and 0 answer_st"),
        (row("x", question=" "), "has no question"),
        (row("x", context=""), "has no context"),
    ],
)
def test_what_is_wrong_with_a_row_is_named(tmp_path, changed, message):
    path = write(tmp_path / "rows.json", [row(), changed])
    with pytest.raises(DataError, match=message) as error:
        read(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_question_of_v1_without_answers_is_refused(tmp_path):
    path = write(tmp_path / "v1.json", squad(ROWS, version="1.1"))
    with pytest.raises(DataError, match=r"example 3 \(id 'c'\): has no answers and no \"is_impos"):
        read(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"data": [{"title": "x"}]}', "is not of SQuAD's form"),
        ('{"data": [1, 2]}', "is not of SQuAD's form"),
        ('{"data": [{"paragraphs": []}]}', "has no examples"),
        ('{"data": [{"paragraphs": ', "cannot be read as json"),
    ],
)
def test_a_file_that_is_not_squad_is_refused(tmp_path, content, message):
    with pytest.raises(DataError, match=message):
        read(write(tmp_path / "broken.json", content))


def test_plausible_answers_of_impossible_questions_do_not_count(tmp_path):
    content = squad([row()])
    qa = content["data"][0]["paragraphs"][0]["qas"][0]
    qa["is_impossible"] = True
    assert read(write(tmp_path / "v2.json", content)).answers[0] == ()
