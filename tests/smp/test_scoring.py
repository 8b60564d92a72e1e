"""How right a model is, from its logits."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pipeline.data import LabelledText
from smp.examples import Examples
from smp.scoring import scorer
from smp.task import Task


def task_of(kind, labels, targets):
    data = LabelledText("here", ["a"] * len(targets), None, targets, "text", None, "label")
    metric = "accuracy" if kind == "classification" else "pearson"
    return Task(data, data, kind, labels, metric), Examples({}, torch.tensor(targets), 0)


def test_the_scores_of_a_classification():
    task, examples = task_of("classification", ("0", "1"), [0, 1, 1, 1])
    logits = np.array([[2.0, 1.0], [0.0, 3.0], [1.0, 0.0], [0.0, 1.0]])
    scores = scorer(task, examples)(SimpleNamespace(predictions=logits))
    assert scores["accuracy"] == 0.75
    assert scores["f1"] == pytest.approx(0.8)


def test_the_scores_of_a_regression():
    task, examples = task_of("regression", (), [1.0, 2.0, 4.0])
    scores = scorer(task, examples)(SimpleNamespace(predictions=np.array([[2.0], [4.0], [8.0]])))
    assert scores == {"pearson": pytest.approx(1.0), "spearman": pytest.approx(1.0)}
