"""What a check takes and refuses before anything is read."""

from pathlib import Path

import pytest

from pipeline.config import CheckConfig
from pipeline.errors import ConfigurationError


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_accuracy_drop": -0.1}, "--max-accuracy-drop must be at least 0"),
        ({"max_latency_ratio": 0.0}, "--max-latency-ratio must be greater than 0"),
        ({"max_size_ratio": float("inf")}, "--max-size-ratio must be greater than 0, got inf"),
    ],
)
def test_what_cannot_work_is_refused(changes, message):
    with pytest.raises(ConfigurationError, match=message):
        CheckConfig(**{"bench": Path("a.json"), "baseline": Path("b.json"), **changes})
