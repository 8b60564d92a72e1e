"""What is learned from which columns, and how it is scored."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from pipeline.config import TrainConfig
from pipeline.errors import DataError
from smp.task import read_task, scorer, task_layout


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
    layout = task_layout(task, 64)
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


def test_the_scores_of_a_classification(tmp_path):
    train = write(tmp_path / "t.csv", "a,0", "b,1")
    task = read_task(config_of(train, train))
    logits = np.array([[2.0, 1.0], [0.0, 3.0], [1.0, 0.0], [0.0, 1.0]])
    scores = scorer(task)(SimpleNamespace(predictions=logits, label_ids=np.array([0, 1, 1, 1])))
    assert scores["accuracy"] == 0.75
    assert scores["f1"] == pytest.approx(0.8)
