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
        ({"confidence": 1.0}, "--confidence must be at least 0.5 and at most 0.9999, got 1.0"),
        ({"confidence": 0.05}, "--confidence must be at least 0.5"),
        ({"update": True, "junit": Path("gate.xml")}, "--update judges nothing; leave out --junit"),
    ],
)
def test_what_cannot_work_is_refused(changes, message):
    with pytest.raises(ConfigurationError, match=message):
        CheckConfig(**{"bench": Path("a.json"), "baseline": Path("b.json"), **changes})
