"""What is learned from which columns, and how it is scored."""

from pathlib import Path

import pytest

from pipeline.config import TrainConfig
from pipeline.errors import DataError
from smp.task import longest_text, read_task, task_layout
from tests.made_up_data import write_questions, write_tagged_words


def config_of(train, validation, **settings):
    return TrainConfig(
        model="m",
        output_dir=Path("run"),
        train_file=train,
        validation_file=validation,
        density=0.1,
        **settings,
    )


def write(path, *rows):
    path.write_text("\n".join(("text,label", *rows)) + "\n")
    return path


def test_classes_come_from_the_training_file(tmp_path):
    train = write(tmp_path / "t.csv", "a,yes", "b,no", "c,maybe")
    task = read_task(config_of(train, write(tmp_path / "v.csv", "d,no")))
    assert (task.kind, task.labels, task.metric) == (
        "classification",
        ("maybe", "no", "yes"),
        "accuracy",
    )
    layout = task_layout(task, 64, {})
    assert (layout.text_column, layout.label_column, layout.max_length) == ("text", "label", 64)


def test_whole_numbers_can_be_taken_as_a_regression(tmp_path):
    train = write(tmp_path / "t.csv", "a,1", "b,2", "c,5")
    validation = write(tmp_path / "v.csv", "d,3")
    assert read_task(config_of(train, validation)).kind == "classification"
    asked = read_task(config_of(train, validation, task_type="regression"))
    assert (asked.kind, asked.labels, asked.metric) == ("regression", (), "pearson")


def test_a_cut_that_leaves_one_class_is_refused(tmp_path):
    train = write(tmp_path / "t.csv", "a,0", "b,0", "c,1")
    config = config_of(train, write(tmp_path / "v.csv", "d,0"), max_train_samples=2)
    with pytest.raises(DataError, match=r"--max-train-samples leaves .* all 2 examples"):
        read_task(config)


def test_questions_are_known_by_their_form(tmp_path):
    train = write_questions(tmp_path / "t.json", 20, 1, no_answer=True)
    validation = write_questions(tmp_path / "v.json", 10, 2)
    config = config_of(train, validation, stride=9, max_train_samples=15)
    task = read_task(config)
    assert (task.kind, task.labels, task.metric) == ("question-answering", (), "squad_f1")
    assert (len(task.train), len(task.validation)) == (15, 10)
    assert task.answers is not None
    assert (task.answers.stride, task.answers.no_answer) == (9, True)
    layout = task_layout(task, 64, {"no_answer_threshold": 1.5})
    assert layout.answers is not None
    assert layout.answers.no_answer_threshold == 1.5
    assert longest_text(config, task.kind) == 384


def test_questions_whose_answers_cannot_be_learned_are_refused(tmp_path):
    answered = write_questions(tmp_path / "a.json", 10, 1)
    some = write_questions(tmp_path / "s.json", 20, 2, no_answer=True)
    with pytest.raises(DataError, match="have no answer, and none of the training data"):
        read_task(config_of(answered, some))
    none = tmp_path / "none.json"
    none.write_text(
        '[{"question": "a", "context": "b", "answers": {"text": [], "answer_start": []}}]'
    )
    with pytest.raises(DataError, match="no question has an answer"):
        read_task(config_of(none, some, task_type="question-answering"))


def test_words_are_judged_by_entities_or_one_by_one(tmp_path):
    train = write_tagged_words(tmp_path / "t.conll", 10, 1)
    config = config_of(train, train)
    task = read_task(config)
    assert (task.kind, task.metric) == ("token-classification", "entity_f1")
    assert task.labels[0] == "O"
    assert longest_text(config, task.kind) == 128
    parts = tmp_path / "parts.txt"
    parts.write_text("a DET\nfilm NOUN\n")
    assert read_task(config_of(parts, parts)).metric == "accuracy"


def test_squad_is_a_task_of_the_hub(tmp_path, monkeypatch):
    asked = []

    def read(task):
        asked.append(task)
        raise DataError("no network")

    monkeypatch.setattr("smp.task.read_squad", read)
    with pytest.raises(DataError, match="no network"):
        read_task(TrainConfig(model="m", output_dir=tmp_path / "r", task="squad_v2", density=0.1))
    assert asked == ["squad_v2"]
