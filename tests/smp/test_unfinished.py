"""Unfinished runs: which checkpoint counts, what may differ on resuming, what is left behind."""

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.config import TrainConfig
from pipeline.errors import ConfigurationError
from smp.unfinished import last_checkpoint, mark_complete, open_unfinished, unfinished_directory


@pytest.fixture
def config(tmp_path):
    return TrainConfig(
        model="m",
        output_dir=tmp_path / "run",
        train_file=Path("t.csv"),
        validation_file=Path("v.csv"),
        density=0.1,
    )


INPUTS = {"--model": "abc", "--train-file": "def"}


def leave_checkpoint(config):
    with pytest.raises(KeyboardInterrupt), open_unfinished(config, INPUTS) as directory:
        checkpoint = directory / "checkpoint-4"
        checkpoint.mkdir()
        mark_complete(checkpoint)
        raise KeyboardInterrupt


def test_a_run_stopped_before_its_first_checkpoint_leaves_nothing(config, tmp_path):
    with pytest.raises(KeyboardInterrupt), open_unfinished(config, INPUTS):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_a_stopped_run_keeps_its_checkpoints_and_needs_resume(config):
    leave_checkpoint(config)
    with (
        pytest.raises(ConfigurationError, match="add --resume to go on with it"),
        open_unfinished(config, INPUTS),
    ):
        pass
    with open_unfinished(replace(config, resume=True), INPUTS) as directory:
        assert last_checkpoint(directory) == directory / "checkpoint-4"


def test_the_last_complete_checkpoint_counts_and_a_torn_one_is_removed(tmp_path):
    for step in (8, 16, 120):
        (tmp_path / f"checkpoint-{step}").mkdir()
    assert last_checkpoint(tmp_path / "nowhere") is None
    mark_complete(tmp_path / "checkpoint-8")
    mark_complete(tmp_path / "checkpoint-16")
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-16"
    assert not (tmp_path / "checkpoint-120").exists()


def test_resuming_with_another_setting_names_the_flag(config):
    leave_checkpoint(config)
    changed = replace(config, resume=True, lambda_=100.0)
    message = "--resume: --lambda was 400.0 when the run started and is 100.0 now"
    with pytest.raises(ConfigurationError, match=message), open_unfinished(changed, INPUTS):
        pass


@pytest.mark.parametrize("flag", list(INPUTS))
def test_resuming_with_another_model_or_other_texts_is_refused(config, flag):
    leave_checkpoint(config)
    with (
        pytest.raises(ConfigurationError, match=f"--resume: what {flag} names has changed"),
        open_unfinished(replace(config, resume=True), {**INPUTS, flag: "other"}),
    ):
        pass


def test_the_directory_stands_beside_the_run(config):
    assert unfinished_directory(config.output_dir).name == "run.partial"
    assert unfinished_directory(config.output_dir).parent == config.output_dir.parent
