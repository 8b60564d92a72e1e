"""What a benchmark takes and refuses before anything is read."""

from pathlib import Path

import pytest

from pipeline.config import BenchConfig
from pipeline.errors import ConfigurationError


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"models": ()}, "MODELS: give at least one model directory"),
        ({"output": Path("bench.txt")}, "--output must end in .json, got bench.txt"),
        ({"batch_sizes": ()}, "--batch-sizes must be one or more different"),
        ({"sequence_lengths": (32, 32)}, "--sequence-lengths must be one or more different"),
        ({"batch_sizes": (1, 0)}, "--batch-sizes must be at least 1, got 0"),
        ({"sequence_lengths": (1,)}, "--sequence-lengths must be at least 2"),
        ({"repetitions": 2}, "--repetitions must be at least 3"),
        ({"warmup": 0}, "--warmup must be at least 1"),
        ({"threads": (-1,)}, "--threads must be at least 0"),
        ({"threads": (2, 2)}, "--threads must be one or more different"),
        ({"scenarios": ()}, "--scenarios must be one or more different"),
        (
            {"scenarios": ("grid", "offline"), "validation_file": None},
            "--scenarios offline takes the texts of a data file; give --validation-file",
        ),
        ({"peers": ("openvino", "openvino")}, "--peers has one value twice"),
        ({"labels": ("good", "bad", "good")}, "--labels has one value twice"),
        (
            {"pytorch_model": "runs/dense", "peers": ("openvino",)},
            "--pytorch-model is for --peers pytorch and --peers pytorch-compiled; give one",
        ),
        ({"offline_texts": 0}, "--offline-texts must be at least 1"),
        ({"bootstrap_samples": 99}, "--bootstrap-samples must be at least 100"),
        ({"max_samples": 0}, "--max-samples must be at least 1"),
    ],
)
def test_what_cannot_work_is_refused(changes, message):
    with pytest.raises(ConfigurationError, match=message):
        BenchConfig(**{"models": (Path("a"),), "validation_file": Path("v.csv"), **changes})
