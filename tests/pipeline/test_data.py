"""Labelled text from each format, and one clear line for each way a file can be wrong."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data import (
    LabelledText,
    encode_labels,
    infer_labels,
    infer_task_kind,
    numeric_labels,
    read_labelled_text,
)
from pipeline.errors import DataError

TEXTS, LABELS = ["good film", "bad, awful film", "ein schöner Film"], [1, 0, 1]
ROWS = [{"text": text, "label": label} for text, label in zip(TEXTS, LABELS, strict=True)]


def read(path, **columns):
    return read_labelled_text(path, flag="--train-file", **columns)


@pytest.fixture
def write(tmp_path):
    def write(name, content):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


@pytest.fixture
def refused(write, capfd):
    def check(name, content, message, **columns):
        path = write(name, content)
        with pytest.raises(DataError, match=message) as error:
            read(path, **columns)
        assert f"--train-file {path}" in str(error.value)
        assert "\n" not in str(error.value)
        assert capfd.readouterr().err == ""  # the reader's own log lines stay away

    return check


CSV = 'text,label\ngood film,1\n"bad, awful film",0\nein schöner Film,1\n'


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", CSV),
        ("a.CSV", CSV.replace("\n", "\r\n")),
        ("bom.csv", "\ufeff" + CSV),
        ("a.tsv", "text\tlabel\ngood film\t1\nbad, awful film\t0\nein schöner Film\t1\n"),
        ("a.json", json.dumps(ROWS)),
        ("a.jsonl", "\n".join(map(json.dumps, ROWS))),
        ("a.json", "\n".join(map(json.dumps, ROWS))),
    ],
)
def test_each_format_gives_the_same_examples(write, name, content):
    data = read(write(name, content))
    assert list(data.texts) == TEXTS
    assert list(data.labels) == LABELS
    assert data.pairs is None
    assert (data.text_column, data.text_pair_column, data.label_column) == ("text", None, "label")
    assert len(data) == 3


def test_parquet_and_its_named_classes(tmp_path):
    import datasets

    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": TEXTS, "label": LABELS}), path)
    assert list(read(path).labels) == LABELS
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["neg", "pos"])}
    )
    datasets.Dataset.from_list(ROWS, features=features).to_parquet(path)
    assert list(read(path).labels) == ["pos", "neg", "pos"]
    # As in test data whose labels are kept back.
    rows = [*ROWS, {"text": "d", "label": -1}]
    datasets.Dataset.from_list(rows, features=features).to_parquet(path)
    with pytest.raises(DataError, match="example 4: has the label -1, the file names 2 from 0"):
        read(path)


def test_quotes_in_csv_hold_commas_quotes_and_line_ends(write):
    data = read(write("a.csv", 'text,label\n"a, ""b""\nc",1\nd,0\n'))
    assert list(data.texts) == ['a, "b"\nc', "d"]


def test_quotes_in_tsv_are_text_and_swallow_no_rows(write):
    data = read(write("a.tsv", 'text\tlabel\n"a b\t1\nc\t0\nd "e"\t1\n'))
    assert list(data.texts) == ['"a b', "c", 'd "e"']
    assert list(data.labels) == [1, 0, 1]


def test_words_that_pandas_takes_for_missing_are_words(write):
    data = read(write("a.csv", "text,label\nNA,None\nnull,some\nNone,some\n"))
    assert list(data.texts) == ["NA", "null", "None"]
    assert list(data.labels) == ["None", "some", "some"]


def test_pairs_are_found_by_the_usual_names_or_named(write):
    path = write("a.csv", "sentence1,sentence2,x,label\na,b,c,1\n")
    data = read(path)
    assert (data.texts, data.pairs) == (["a"], ["b"])
    data = read(path, text_column="x", text_pair_column="sentence1")
    assert (data.texts, data.pairs) == (["c"], ["a"])
    assert read(path, text_column="x").pairs is None


def test_head_takes_the_first_examples_and_their_partners(write):
    path = write("a.csv", "premise,hypothesis,label\na,b,1\nc,d,0\ne,f,1\n")
    data = read(path).head(2)
    assert (list(data.texts), list(data.pairs), list(data.labels)) == (
        ["a", "c"],
        ["b", "d"],
        [1, 0],
    )


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "", "the file is empty"),
        ("a.csv", "text,label\n", "the file has no examples"),
        ("a.json", "[]", "the file has no examples"),
        ("a.csv", "\n\n", "cannot be read as csv"),
        ("a.txt", "x", "unknown file type '.txt'; use .csv, .json, .jsonl, .parquet, .tsv"),
        ("a", "x", "unknown file type ''"),
        ("a.csv", "text,label\na,b,1\nc,d,0\n", "more fields than the header; put texts"),
        ("a.csv", "text,label\na,1\nc,d,0\n", "Expected 2 fields in line 3, saw 3"),
        ("a.csv", 'text,label\n"a,1\nd,0\n', "cannot be read as csv"),
        ("a.csv", "text,label\ncafé,1\n".encode("latin-1"), "save the file as UTF-8"),
        ("a.json", "{not json", "cannot be read as json"),
        ("a.parquet", "PAR1 and then nothing", "cannot be read as parquet"),
        ("a.csv", "text,label\na,1\n,0\n", "example 2 has no 'text'; fill or drop the row"),
        ("a.csv", "text,label\nNaN,1\nb,0\n", "example 1 has no 'text'"),
        ("a.csv", "text,label\n  ,1\nb,0\n", "example 1 has no 'text'"),
        ("a.jsonl", '{"text": "", "label": 1}', "example 1 has no 'text'"),
        ("a.jsonl", '{"text": ["a"], "label": 1}', "example 1 has a list in 'text'"),
        ("a.json", '{"text": ["a", "b"], "label": [1, 0]}', "one object an example"),
        ("a.csv", "text,label\na,1\nb,\n", "example 2 has label None in 'label'; fill or drop"),
        ("a.csv", "text,label\na,NaN\nb,1\n", "example 1 has label None"),
        ("a.csv", "text,label\na,NA\nb,1.5\n", "example 1 has label 'NA'"),
        ("a.csv", "text,label\na,inf\nb,1.5\n", "example 1 has label inf"),
        ("a.csv", "text,label\na\nb,1\n", "example 1 has label None"),
        ("a.jsonl", '{"text": "a", "label": null}\n{"text": "b", "label": 1}', "label None"),
        ("a.jsonl", '{"text": "a", "label": {"x": 1}}', "a label of type dict"),
        ("a.csv", "words,label\na,1\n", "expected one of text, sentence.* has words, label"),
        ("a.csv", "text,class\na,1\n", "expected column 'label', .*name it with --label-column"),
    ],
)
def test_a_wrong_file_gives_one_line(refused, name, content, message):
    refused(name, content, message)


def test_a_missing_column_is_named_with_its_flag(refused):
    for flag in ("text_column", "text_pair_column", "label_column"):
        message = f"expected column 'x', the file has text, label; name it with --{flag}"
        refused("a.csv", CSV, message.replace("_", "-"), **{flag: "x"})


def test_a_first_line_that_is_text_is_not_shown_in_full(refused):
    refused("a.tsv", "word " * 900 + "\t1\na\t0\n", r"the file has word .{,220}name it with")


def test_a_missing_file_and_a_directory(tmp_path):
    with pytest.raises(DataError, match=r"--train-file .*nope.csv: no such file"):
        read(tmp_path / "nope.csv")
    (tmp_path / "a.csv").mkdir()
    with pytest.raises(DataError, match="is a directory; give a file"):
        read(tmp_path / "a.csv")


def labelled(*labels):
    return LabelledText("a.csv", ["x"] * len(labels), None, labels, "text", None, "label")


@pytest.mark.parametrize(
    ("labels", "kind"),
    [
        ((0, 1, 2), "classification"),
        ((0.0, 1.0, 5.0), "classification"),
        ((True, False), "classification"),
        (("1.5", "2.5"), "classification"),
        (("a", 1.5), "classification"),
        ((1.0, 2.5), "regression"),
        ((1, 2.5), "regression"),
    ],
)
def test_numbers_with_fractions_mean_regression(labels, kind):
    assert infer_task_kind(labels) == kind


def test_integers_stand_in_numerical_order_and_names_in_that_of_the_alphabet():
    assert infer_labels(labelled(10, 9, -1, 9), flag="-") == ("-1", "9", "10")
    assert infer_labels(labelled("b", "10", "9"), flag="-") == ("10", "9", "b")
    assert infer_labels(labelled("²", "--5", "1"), flag="-") == ("--5", "1", "²")


def test_whole_floats_are_the_same_classes_as_integers():
    labels = infer_labels(labelled(0.0, 1.0, 1.0), flag="--train-file")
    assert labels == ("0", "1")
    assert encode_labels(labelled(1, 0), labels, flag="-") == [1, 0]
    assert encode_labels(labelled("1", 0.0), labels, flag="-") == [1, 0]


def test_one_class_is_refused():
    with pytest.raises(DataError, match=r"--train-file a.csv: all 3 examples have the label '1'"):
        infer_labels(labelled(1, 1, 1), flag="--train-file")


def test_a_label_that_train_never_had_is_refused():
    with pytest.raises(
        DataError, match=r"--validation-file a.csv: example 2 has the label '2'.*\(it had 0, 1\)"
    ):
        encode_labels(labelled(1, 2), ("0", "1"), flag="--validation-file")


@given(st.lists(st.integers(-50, 50) | st.sampled_from(["a", "b", "é"]), min_size=2))
@settings(max_examples=50)
def test_encoding_inverts_to_the_names(labels):
    data = labelled(*labels)
    if len({str(label) for label in labels}) < 2:
        return
    names = infer_labels(data, flag="-")
    assert len(set(names)) == len(names)
    assert [names[i] for i in encode_labels(data, names, flag="-")] == [str(x) for x in labels]


def test_regression_takes_numbers_and_nothing_else():
    assert numeric_labels(labelled(1, 2.5, "3e-1"), flag="-") == [1.0, 2.5, 0.3]
    for wrong in ("good", "inf"):
        with pytest.raises(DataError, match=f"example 2 has the label '{wrong}'; regression needs"):
            numeric_labels(labelled(1, wrong), flag="--train-file")
