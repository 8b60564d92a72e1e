"""The run that most tests of training start from."""

from pathlib import Path

import pytest

from pipeline.config import TrainConfig


@pytest.fixture
def config(tiny_bert: Path, reviews: tuple[Path, Path], tmp_path: Path) -> TrainConfig:
    """Twelve steps of SMP-S on the tiny BERT and the reviews."""
    return TrainConfig(
        model=str(tiny_bert),
        output_dir=tmp_path / "run",
        train_file=reviews[0],
        validation_file=reviews[1],
        density=0.3,
        steps=12,
        batch_size=16,
        evaluations=3,
        precision="fp32",
    )
