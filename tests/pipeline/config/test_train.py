"""What training takes and refuses before anything is read."""

import dataclasses
from pathlib import Path

import pytest

from pipeline.config import TrainConfig
from pipeline.errors import ConfigurationError

FILES = {"train_file": Path("t.csv"), "validation_file": Path("v.csv")}
BASE = {"model": "m", "output_dir": Path("run"), "density": 0.1, **FILES}


def config(**changes):
    return TrainConfig(**{**BASE, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"density": 0.0}, "--density must be greater than 0 and at most 1, got 0"),
        ({"density": 1.5}, "--density must be greater than 0 and at most 1, got 1.5"),
        ({"density": float("nan")}, "--density must be .* got nan"),
        ({"density": None}, "--density is needed for --method smp-s; try 0.1"),
        ({"method": "finetune"}, "--method finetune prunes nothing; leave --density away"),
        ({"method": "finetune", "density": None, "pattern": "2:4"}, "--pattern has no effect with"),
        ({"pattern": "2:4", "density": 0.6}, "--density must be at most 0.5 with --pattern 2:4"),
        ({"pattern": "block-4x1", "density": None}, "--density is needed"),
        ({"method": "magnitude", "lambda_": 1.0}, "--lambda has no effect with --method magnitude"),
        ({"method": "movement", "lambda_": 1.0}, "only with smp-s, smp-l, soft-movement; leave"),
        ({"method": "magnitude", "score_init": "zero"}, "--score-init has no effect with"),
        ({"method": "magnitude", "score_init_scale": 1.0}, "--score-init-scale has no effect"),
        ({"method": "smp-l", "score_temperature": 4.0}, "--score-temperature has no effect with"),
        ({"method": "soft-movement", "overflow": "clip"}, "--overflow has no effect with"),
        ({"method": "magnitude", "second_moment": "matrix"}, "--second-moment has no effect with"),
        ({"weight_learning_rate": 1e-5}, "only with movement, soft-movement; leave it away"),
        ({"epochs": 1.0, "steps": 5}, "--epochs and --steps exclude each other"),
        ({"epochs": 0.0}, "--epochs must be greater than 0"),
        ({"steps": 0}, "--steps must be at least 1"),
        ({"learning_rate": 0.0}, "--learning-rate must be greater than 0"),
        ({"lambda_": -1.0}, "--lambda must be at least 0"),
        ({"max_length": 3}, "--max-length must be at least 4"),
        ({"seed": -1}, "--seed must be at least 0"),
        ({"seed": 2**32}, "--seed must be at least 0 and at most"),
        ({"density_fraction": 1.1}, "--density-fraction must be at least 0 and at most 1"),
        (
            {"density_fraction": 0.5, "density_steps": 10},
            "--density-fraction and --density-steps exclude each other",
        ),
        ({"label_words": ("yes", "yes")}, "--label-words must differ"),
        ({"teacher_weight": 0.7}, "--teacher-weight has no effect without --teacher"),
        ({"train_file": None}, "give --train-file and --validation-file, or --task"),
        ({"validation_file": None}, "give --train-file and --validation-file, or --task"),
        ({"task": "sst2"}, "--task and --train-file/--validation-file exclude each other"),
        ({"task": "sst3"}, "--task must be one of cola, .*, got 'sst3'"),
        ({"output_dir": Path()}, "--output-dir must be a new directory with a name, got ."),
        ({"output_dir": Path("/")}, "--output-dir must be a new directory with a name, got /"),
        ({"output_dir": Path("a/..")}, "--output-dir must be a new directory"),
    ],
)
def test_what_cannot_work_is_refused(changes, message):
    with pytest.raises(ConfigurationError, match=message):
        config(**changes)


def test_a_task_in_place_of_files():
    assert config(task="sst2", train_file=None, validation_file=None).task == "sst2"


def test_the_method_settles_what_was_left_open():
    pruned = config().resolved()
    assert (pruned.epochs, pruned.learning_rate, pruned.density) == (10.0, 3e-3, 0.1)
    assert pruned.prunes
    tuned = config(method="finetune", density=None).resolved()
    assert (tuned.epochs, tuned.learning_rate, tuned.density) == (3.0, 5e-5, 1.0)
    assert not tuned.prunes
    for resolved in (pruned, tuned):
        assert resolved.resolved() == resolved


@pytest.mark.parametrize(
    ("method", "rate", "weights"),
    [("smp-l", 3e-3, False), ("magnitude", 5e-5, True), ("soft-movement", 3e-3, True)],
)
def test_the_learning_rate_is_that_of_scores_where_there_are_any(method, rate, weights):
    resolved = config(method=method).resolved()
    assert (resolved.epochs, resolved.learning_rate) == (10.0, rate)
    assert resolved.trains_weights == weights


@pytest.mark.parametrize("pattern", ["2:4", "4:8"])
def test_half_remains_if_the_pattern_is_n_of_m_and_nothing_is_said(pattern):
    assert config(pattern=pattern, density=None).resolved().density == 0.5
    assert config(pattern=pattern, density=0.3).resolved().density == 0.3


def test_what_was_given_is_kept():
    given = config(steps=7, learning_rate=0.5).resolved()
    assert (given.epochs, given.steps, given.learning_rate) == (None, 7, 0.5)


def test_it_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        config().density = 0.5
