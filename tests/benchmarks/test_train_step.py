"""What the measurement of training steps does and reports, on a tiny model."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import train_step
from benchmarks.train_step_subjects import (
    FINETUNE,
    OURS,
    PARTS,
    SORTED,
    SUBJECTS,
    Setting,
    Subject,
    make_batch,
)
from benchmarks.train_step_table import write_table
from benchmarks.train_step_worker import peak_bytes, time_steps


@pytest.fixture
def setting(tiny_bert: Path) -> Setting:
    return Setting(
        model=str(tiny_bert),
        batch_size=4,
        sequence_length=8,
        precision="fp32",
        device="cpu",
        density=0.1,
        turns=4,
        warm_up=1,
        seed=0,
    )


def test_fine_tuning_moves_all_weights_and_smp_the_scores_alone(setting: Setting) -> None:
    batch = make_batch(setting, 20)
    for name in (FINETUNE, OURS):
        subject = Subject(name, setting)
        before = {n: p.detach().clone() for n, p in subject.trainer.model.named_parameters()}
        subject.step(batch)
        moved = {
            n for n, p in subject.trainer.model.named_parameters() if not torch.equal(p, before[n])
        }
        if name == FINETUNE:
            # The bias of a key shifts all attention weights of a row alike: its gradient is noise.
            assert {n for n in before if "key.bias" not in n} <= moved
        else:
            assert moved == {n for n in before if n.endswith(".scores")}
            assert subject.trained == sum(before[n].numel() for n in moved)


def test_sorting_gives_the_same_steps(setting: Setting) -> None:
    batch = make_batch(setting, 20)
    losses = {}
    for name in (OURS, SORTED):
        subject = Subject(name, setting)
        torch.manual_seed(1)  # dropout
        losses[name] = [subject.step(batch) for _ in range(3)]
    assert losses[OURS] == losses[SORTED]


def test_the_report_has_a_row_for_each_way(
    setting: Setting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def in_this_process(setting: Setting, task: str) -> dict[str, Any]:
        works: dict[str, Callable[[Setting], dict[str, Any]]] = {"time": time_steps}
        measure = works.get(task, lambda one: {"peak_bytes": peak_bytes(one, task)})
        return measure(setting)

    monkeypatch.setattr(train_step, "worker", in_this_process)
    cell = train_step.measure_cell(dataclasses.replace(setting, precision="bf16"))
    assert cell["density"][0] > cell["density"][1]
    for name in SUBJECTS:
        assert set(cell["subjects"][name]["parts"]) == set(PARTS)
    content = {"machine": {}, "versions": {}, "model": "tiny", "cells": [cell]}
    write_table(content, tmp_path / "train-step.md")
    lines = (tmp_path / "train-step.md").read_text(encoding="utf-8").splitlines()
    rows = [line.strip("| ").split(" | ") for line in lines if line.startswith("| ")]
    assert [row[0] for row in rows] == ["step", "---", *SUBJECTS]
    assert rows[2][2] == "1"
    assert rows[4][3] == "1"
