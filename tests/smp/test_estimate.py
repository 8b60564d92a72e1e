"""The estimate of --dry-run agrees with the run on all that can be known before."""

from dataclasses import replace

import pytest

from pipeline.config import TrainConfig
from pipeline.errors import DataError, ModelError
from smp.estimate import estimate
from smp.train import train


@pytest.fixture
def config(tiny_bert, reviews, tmp_path):
    return TrainConfig(
        model=str(tiny_bert),
        output_dir=tmp_path / "run",
        train_file=reviews[0],
        validation_file=reviews[1],
        density=0.3,
        epochs=1.3,
        batch_size=20,
        evaluations=1,
        precision="fp32",
    ).resolved()


def test_steps_and_weights_are_those_of_the_run(config):
    plan = estimate(config)
    assert not config.output_dir.exists()
    manifest = train(config)
    assert plan.steps == manifest.training["steps"]
    assert plan.examples == manifest.train_data.rows
    assert plan.pruned_weights == sum(matrix.size for matrix in manifest.matrices.values())
    assert plan.remaining_weights == pytest.approx(
        sum(matrix.kept for matrix in manifest.matrices.values()), abs=12
    )
    assert plan.seconds > 0
    assert plan.memory_bytes > 16 * plan.pruned_weights


def test_gradient_checkpointing_and_accumulation_need_less_memory(config):
    plan = estimate(config)
    checkpointed = estimate(replace(config, gradient_checkpointing=True))
    accumulated = estimate(replace(config, batch_size=10, gradient_accumulation_steps=2))
    assert checkpointed.memory_bytes < plan.memory_bytes
    assert accumulated.memory_bytes < plan.memory_bytes


def test_bad_input_is_refused_as_by_the_run(config, tmp_path):
    with pytest.raises(DataError, match="no such file"):
        estimate(replace(config, train_file=tmp_path / "missing.csv"))
    with pytest.raises(ModelError, match="cannot be loaded"):
        estimate(replace(config, model=str(tmp_path)))
