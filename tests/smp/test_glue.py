"""GLUE tasks, read from a local data set of the hub's form."""

import dataclasses
from functools import partial

import pandas as pd
import pytest

from pipeline.config import TrainConfig
from pipeline.config.train import GLUE_TASKS
from pipeline.errors import DataError
from smp.glue import GLUE, read_glue
from smp.heads import LABEL_WORDS
from smp.task import read_task
from smp.train import train

# Columns and class names as the hub's data set has them.
HUB = {
    "cola": (("sentence",), ("unacceptable", "acceptable")),
    "mnli": (("premise", "hypothesis"), ("entailment", "neutral", "contradiction")),
    "mrpc": (("sentence1", "sentence2"), ("not_equivalent", "equivalent")),
    "qnli": (("question", "sentence"), ("entailment", "not_entailment")),
    "qqp": (("question1", "question2"), ("not_duplicate", "duplicate")),
    "rte": (("sentence1", "sentence2"), ("entailment", "not_entailment")),
    "sst2": (("sentence",), ("negative", "positive")),
    "stsb": (("sentence1", "sentence2"), ()),
}
CARD = """---
configs:
- config_name: {task}
  data_files:
{files}
dataset_info:
- config_name: {task}
  features:
{features}
---
"""


def write_glue(directory, task, labels=None):
    """Write one task of twelve training and six validation examples."""
    columns, names = HUB[task]
    names = names if labels is None else labels
    splits = ["train", "validation"]
    if task == "mnli":
        splits = ["train", "validation_matched", "validation_mismatched"]
    (directory / task).mkdir(parents=True)
    for split in splits:
        rows = range(12 if split == "train" else 6)
        table = {name: [f"{name} of {split} {row}" for row in rows] for name in columns}
        table["label"] = [row % len(names) if names else 0.5 * (row % 6) for row in rows]
        pd.DataFrame(table).to_parquet(directory / task / f"{split}-0.parquet")
    kind = f"{{class_label: {{names: [{', '.join(names)}]}}}}" if names else "float64"
    features = [f"  - {{name: {name}, dtype: string}}" for name in columns]
    features.append(f"  - {{name: label, dtype: {kind}}}")
    files = [f"  - {{split: {split}, path: {task}/{split}-*}}" for split in splits]
    card = CARD.format(task=task, files="\n".join(files), features="\n".join(features))
    (directory / "README.md").write_text(card)
    return str(directory)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    # The usual one knows a data set by its name and would give what an earlier test wrote.
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture
def glue_config(tiny_bert, tmp_path):
    return TrainConfig(
        model=str(tiny_bert),
        output_dir=tmp_path / "run",
        task="mnli",
        density=0.5,
        steps=2,
        batch_size=4,
        evaluations=1,
        precision="fp32",
        device="cpu",
    )


def test_every_task_has_columns_a_metric_and_label_words():
    assert set(GLUE) == set(GLUE_TASKS) == set(LABEL_WORDS)


@pytest.mark.parametrize("task", GLUE_TASKS)
def test_labels_are_read_as_names(tmp_path, task):
    columns, names = HUB[task]
    train_data, *validations = read_glue(task, dataset=write_glue(tmp_path / "glue", task))
    assert train_data.texts[3] == f"{columns[0]} of train 3"
    assert (train_data.pairs is None) == (len(columns) == 1)
    if names:
        assert list(train_data.labels) == [names[row % len(names)] for row in range(12)]
        assert GLUE[task].labels == names
    else:
        assert list(train_data.labels) == [0.5 * (row % 6) for row in range(12)]
    assert [len(validation) for validation in validations] == ([6, 6] if task == "mnli" else [6])


def test_two_classes_are_in_the_order_in_which_f1_counts_the_second(
    tmp_path, glue_config, monkeypatch
):
    dataset = write_glue(tmp_path / "glue", "mrpc")
    monkeypatch.setattr("smp.task.read_glue", partial(read_glue, dataset=dataset))
    task = read_task(dataclasses.replace(glue_config, task="mrpc"))
    assert task.labels == ("not_equivalent", "equivalent")


def test_mnli_is_scored_on_both_of_its_validation_sets(tmp_path, glue_config, monkeypatch):
    dataset = write_glue(tmp_path / "glue", "mnli")
    monkeypatch.setattr("smp.task.read_glue", partial(read_glue, dataset=dataset))
    manifest = train(glue_config)
    assert set(manifest.metrics) == {"accuracy", "f1", "matthews", "accuracy_mismatched"}
    assert manifest.validation_data.source.endswith("mnli validation_matched")
    assert manifest.task.labels == ("entailment", "neutral", "contradiction")


def test_a_data_set_with_other_labels_is_refused(tmp_path):
    dataset = write_glue(tmp_path / "glue", "rte", labels=("one", "other"))
    with pytest.raises(DataError, match="labels are one, other, expected entailment, not_"):
        read_glue("rte", dataset=dataset)


def test_a_data_set_that_cannot_be_had_says_what_to_do(tmp_path):
    with pytest.raises(DataError, match=r"--task sst2: cannot fetch .*; check the network, or"):
        read_glue("sst2", dataset=str(tmp_path / "nothing"))
