"""What an export takes and refuses before anything is read."""

from pathlib import Path

import pytest

from pipeline.config import ExportConfig
from pipeline.errors import ConfigurationError


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"opset": 17}, "--opset must be at least 18 and at most 23, got 17"),
        ({"opset": 24}, "--opset must be at least 18 and at most 23, got 24"),
        ({"tolerance": 0.0}, "--tolerance must be greater than 0"),
        ({"tolerance": float("nan")}, "--tolerance must be"),
        ({"verification_samples": 0}, "--verification-samples must be at least 1"),
        ({"output_dir": Path()}, "--output-dir must be a new directory with a name"),
    ],
)
def test_what_cannot_work_is_refused(changes, message):
    with pytest.raises(ConfigurationError, match=message):
        ExportConfig(**{"run": Path("run"), "output_dir": Path("model"), **changes})
