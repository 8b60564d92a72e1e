"""Of which kind a data file is."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import DataError
from pipeline.task_files import kind_of, read_task_file

ANSWERS = {"text": ["b"], "answer_start": [2]}
QUESTION = {"question": "a?", "context": "a b", "answers": ANSWERS}
SQUAD = {
    "data": [
        {
            "paragraphs": [
                {
                    "context": "a b",
                    "qas": [
                        {"id": "1", "question": "a?", "answers": [{"text": "b", "answer_start": 2}]}
                    ],
                }
            ]
        }
    ]
}


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("a.csv", "text,label\na,x\nb,y\n", "classification"),
        ("a.csv", "text,label\na,0.5\nb,1.5\n", "regression"),
        ("a.csv", "text,label,answers\na,x,y\nb,y,z\n", "classification"),
        ("a.json", json.dumps(SQUAD), "question-answering"),
        ("a.json", json.dumps([QUESTION]), "question-answering"),
        ("a.jsonl", json.dumps(QUESTION), "question-answering"),
        ("a.json", json.dumps([{"tokens": ["a"], "tags": [1]}]), "token-classification"),
        ("a.conll", "a O\nb X\n", "token-classification"),
    ],
)
def test_the_kind_follows_from_the_file(tmp_path, name, content, kind):
    path = tmp_path / name
    path.write_text(content)
    assert kind_of(read_task_file(path, flag="--train-file")) == kind


def test_a_column_that_is_named_decides(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps([{"w": ["a"], "t": ["O"], "text": "a", "label": 1}]))
    words = read_task_file(path, flag="--train-file", text_column="w", label_column="t")
    assert kind_of(words) == "token-classification"
    assert kind_of(read_task_file(path, flag="--train-file")) == "classification"


def test_answers_of_another_form_are_refused(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps([{**QUESTION, "answers": [SQUAD]}]))
    with pytest.raises(DataError, match="expected answers with text and answer_start"):
        read_task_file(path, flag="--train-file")


def test_a_kind_that_the_file_does_not_have_is_refused(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("text,label\na,x\n")
    with pytest.raises(DataError, match="expected column 'question'"):
        read_task_file(path, flag="--train-file", kind="question-answering")
    with pytest.raises(DataError, match="expected one of tokens, words"):
        read_task_file(path, flag="--train-file", kind="token-classification")


def test_lists_of_64_bit_offsets_are_lists(tmp_path):
    # As Polars writes them.
    table = pa.table({"tokens": [["a", "b"]], "tags": [["O", "X"]]})
    lists = pa.schema([(name, pa.large_list(pa.string())) for name in table.column_names])
    pq.write_table(table.cast(lists), tmp_path / "a.parquet")
    data = read_task_file(tmp_path / "a.parquet", flag="--train-file")
    assert kind_of(data) == "token-classification"
