"""GLUE tasks, read from a local data set of the hub's form."""

import pandas as pd
import pytest

from pipeline.config.train import GLUE_TASKS
from pipeline.errors import DataError
from smp.glue import GLUE, read_glue
from smp.heads import LABEL_WORDS

CARD = """---
configs:
- config_name: rte
  data_files:
  - {split: train, path: rte/train-*}
  - {split: validation, path: rte/validation-*}
dataset_info:
- config_name: rte
  features:
  - {name: sentence1, dtype: string}
  - {name: sentence2, dtype: string}
  - name: label
    dtype:
      class_label:
        names: {'0': entailment, '1': not_entailment}
---
"""


@pytest.fixture
def local_glue(tmp_path):
    (tmp_path / "glue" / "rte").mkdir(parents=True)
    (tmp_path / "glue" / "README.md").write_text(CARD)
    for split, labels in (("train", [0, 1, 1]), ("validation", [1, 0])):
        rows = {
            "sentence1": [f"one {i}" for i in range(len(labels))],
            "sentence2": [f"two {i}" for i in range(len(labels))],
            "label": labels,
        }
        pd.DataFrame(rows).to_parquet(tmp_path / "glue" / "rte" / f"{split}-0.parquet")
    return tmp_path / "glue"


def test_every_task_has_columns_a_metric_and_label_words():
    assert set(GLUE) == set(GLUE_TASKS) == set(LABEL_WORDS)


def test_labels_are_read_as_names(local_glue):
    train, validation = read_glue("rte", dataset=str(local_glue))
    assert list(train.labels) == ["entailment", "not_entailment", "not_entailment"]
    assert list(validation.labels) == ["not_entailment", "entailment"]
    assert train.pairs is not None
    assert list(train.pairs) == ["two 0", "two 1", "two 2"]
    assert set(train.labels) <= set(LABEL_WORDS["rte"])


def test_a_data_set_that_cannot_be_had_says_what_to_do(tmp_path):
    with pytest.raises(DataError, match=r"--task sst2: cannot fetch .*; check the network, or"):
        read_glue("sst2", dataset=str(tmp_path / "nothing"))
