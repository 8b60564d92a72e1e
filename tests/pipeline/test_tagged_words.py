"""Words with labels from rows and CoNLL's files, and what is refused of them."""

import json

import pytest
from datasets import ClassLabel, Dataset, Features, List, Value

from pipeline.errors import DataError
from pipeline.tagged_words import encode_tags, infer_tags, read_tagged_words

WORDS = [["Ada", "lives", "in", "New  York"], ["yes"]]
TAGS = [["B-PER", "O", "O", "B-LOC"], ["O"]]
ROWS = [{"tokens": words, "ner_tags": tags} for words, tags in zip(WORDS, TAGS, strict=True)]
CONLL = """-DOCSTART- -X- -X- O

Ada\tNNP\tB-PER
lives\tVBZ\tO
in\tIN\tO
New  York\tNNP\tB-LOC

yes UH O
"""


def read(path, **columns):
    return read_tagged_words(path, flag="--train-file", **columns)


def write(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def check(data):
    assert [list(words) for words in data.words] == WORDS
    assert [list(tags) for tags in data.tags] == TAGS


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".conll", ".txt"])
def test_every_form_gives_the_same_words(tmp_path, suffix):
    lines = "\n".join(map(json.dumps, ROWS))
    content = {".json": json.dumps(ROWS), ".jsonl": lines}.get(suffix, CONLL)
    data = read(write(tmp_path / f"words{suffix}", content))
    check(data)
    assert (data.text_column, data.label_column) == ("tokens", "ner_tags")
    assert infer_tags(data, flag="--train-file") == ("O", "B-LOC", "B-PER")
    assert encode_tags(data, ("O", "B-LOC", "B-PER"), flag="--train-file") == [[2, 0, 0, 1], [0]]
    assert len(data.head(1)) == 1


def test_class_labels_are_read_as_their_names(tmp_path):
    names = ["O", "B-PER", "B-LOC"]
    tags = [[names.index(tag) for tag in row] for row in TAGS]
    features = Features({"words": List(Value("string")), "tags": List(ClassLabel(names=names))})
    Dataset.from_dict({"words": WORDS, "tags": tags}, features=features).to_parquet(
        tmp_path / "words.parquet"
    )
    check(read(tmp_path / "words.parquet"))
    tags[0][1] = -1  # no label, as in test data whose labels are kept back
    Dataset.from_dict({"words": WORDS, "tags": tags}, features=features).to_parquet(
        tmp_path / "words.parquet"
    )
    with pytest.raises(DataError, match="example 1: has the label -1, the file names 3 from 0"):
        read(tmp_path / "words.parquet")


def test_integers_without_names_are_labels_in_their_order(tmp_path):
    rows = [{"tokens": ["a"] * 3, "tags": [10, 9, 2]}]
    data = read(write(tmp_path / "words.json", rows))
    assert infer_tags(data, flag="--train-file") == ("2", "9", "10")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([{"tokens": ["a", "b"], "tags": ["O"]}], "example 1: has 2 words in 'tokens' and 1 label"),
        ([{"tokens": [], "tags": []}], "example 1: has no words"),
        ([{"tokens": "a b", "tags": ["O", "O"]}], "expected a list in 'tokens', got 'a b'"),
        ([{"tokens": ["a"], "tags": [None]}], "has the label None"),
        ([{"text": ["a"], "tags": ["O"]}], "expected one of tokens, words"),
    ],
)
def test_what_is_wrong_with_a_row_is_named(tmp_path, content, message):
    with pytest.raises(DataError, match=message):
        read(write(tmp_path / "words.json", content))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("Ada B-PER\nlives\n", "line 2: expected a word and a label, got 'lives'"),
        ("\n\n", "has no examples"),
        ("", "the file is empty"),
    ],
)
def test_what_is_wrong_with_a_file_of_lines_is_named(tmp_path, content, message):
    with pytest.raises(DataError, match=message):
        read(write(tmp_path / "words.conll", content))


def test_labels_must_be_two_at_least_and_known(tmp_path):
    data = read(write(tmp_path / "words.conll", "a O\n\nb X\n"))
    with pytest.raises(DataError, match="all words of 1 sentences have the label 'O'"):
        infer_tags(data.head(1), flag="--train-file")
    with pytest.raises(DataError, match="example 2 has the label 'X', which the training data nev"):
        encode_tags(data, ("O", "Y"), flag="--validation-file")
