"""Logging integrations: what arrives in TensorBoard, and which cannot be used."""

from importlib.util import find_spec

import pytest

from pipeline.config import TrainConfig
from pipeline.errors import ConfigurationError, MachineError
from smp.trackers import check_trackers, tensorboard_directory
from smp.train import train


def test_density_lambda_and_losses_arrive_in_tensorboard_and_stay(tiny_bert, reviews, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    output = tmp_path / "run"
    train(
        TrainConfig(
            model=str(tiny_bert),
            output_dir=output,
            train_file=reviews[0],
            validation_file=reviews[1],
            density=0.3,
            steps=20,
            evaluations=2,
            report_to=("tensorboard",),
            precision="fp32",
            device="cpu",
        )
    )
    logs = EventAccumulator(str(tensorboard_directory(output))).Reload()
    values = {
        name: {event.step: event.value for event in logs.Scalars(name)}
        for name in ("train/density", "train/lambda", "train/loss", "train/task_loss")
    }
    assert values["train/density"].keys() >= {10, 20}
    assert values["train/density"][20] == pytest.approx(0.3)
    assert values["train/density"][10] > 0.3
    assert values["train/lambda"][20] > values["train/lambda"][10] > 0
    for step in (10, 20):
        assert 0 < values["train/task_loss"][step] < values["train/loss"][step]
    assert {"eval/accuracy", "eval/loss"} <= set(logs.Tags()["scalars"])


def test_an_unknown_integration_is_refused_with_what_was_meant():
    with pytest.raises(ConfigurationError, match="no such integration; did you mean tensorboard"):
        check_trackers(("tensorbord",))


@pytest.mark.skipif(find_spec("wandb") is not None, reason="wandb is installed")
def test_an_integration_whose_package_is_missing_is_refused_before_anything_is_read(tmp_path):
    config = TrainConfig(
        model="nowhere",
        output_dir=tmp_path / "run",
        train_file=tmp_path / "no.csv",
        validation_file=tmp_path / "no.csv",
        density=0.3,
        report_to=("wandb",),
    )
    with pytest.raises(MachineError, match=r"--report-to wandb: .*pip install wandb"):
        train(config)


def test_what_is_installed_is_let_through():
    check_trackers(())
    check_trackers(("tensorboard",))
