"""SQuAD by name, read from a local data set of the hub's form."""

import pandas as pd
import pytest

from pipeline.config.train import SQUAD_TASKS
from pipeline.errors import DataError
from smp.squad import SQUAD_DATASETS, read_squad

ROW = {"id": "a", "title": "t", "context": "a b", "question": "b?"}


def rows(answers):
    return pd.DataFrame([{**ROW, "answers": each} for each in answers])


@pytest.fixture
def local_squad(tmp_path):
    found, none = (
        {"text": ["b"], "answer_start": [2]},
        {"text": [], "answer_start": []},
    )
    rows([found, none]).to_parquet(tmp_path / "train-0.parquet")
    rows([found]).to_parquet(tmp_path / "validation-0.parquet")
    return tmp_path


def test_both_versions_have_a_data_set():
    assert set(SQUAD_DATASETS) == set(SQUAD_TASKS)


def test_questions_come_with_their_answers(local_squad):
    train, validation = read_squad("squad_v2", dataset=str(local_squad))
    assert train.references == [("b",), ()]
    assert train.texts[0] == "b?"
    assert (train.unanswerable, len(validation)) == (1, 1)
    assert train.source.endswith(" train")


def test_a_data_set_that_cannot_be_had_says_what_to_do(tmp_path):
    with pytest.raises(DataError, match=r"--task squad: cannot fetch .*; check the network, or"):
        read_squad("squad", dataset=str(tmp_path / "nothing"))
