"""What a report takes and refuses before anything is read."""

from pathlib import Path

import pytest

from pipeline.config import ReportConfig
from pipeline.errors import ConfigurationError


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bench": ()}, r"BENCH: give at least one bench\.json"),
        ({"bench": (Path("a.json"), Path("./a.json"))}, "BENCH: one file is given twice"),
        ({"output": Path("report.md")}, r"--output must end in \.html, got report\.md"),
    ],
)
def test_what_cannot_work_is_refused(changes, message):
    with pytest.raises(ConfigurationError, match=message):
        ReportConfig(**{"bench": (Path("a.json"),), **changes})
