"""What an import and an export of masks refuse before they start."""

from pathlib import Path

import pytest

from pipeline.config import ExportMasksConfig, ImportMasksConfig
from pipeline.errors import ConfigurationError


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "give --task or --labels"),
        ({"task": "mnli", "labels": ("a", "b")}, "give --task or --labels"),
        ({"task": "snli"}, "--task must be one of cola, .* squad, got 'snli'"),
        ({"task": "squad", "validation_file": Path("v.csv")}, "--validation-file scores texts"),
        ({"labels": ("a",)}, "--labels: give two or more"),
        ({"labels": ("a", "a")}, "--labels: give two or more that differ"),
        ({"labels": ("a", "b")}, "--label-words is needed beside --labels"),
        ({"task": "rte", "label_words": ("Yes", "Yes")}, "--label-words must differ"),
        ({"task": "rte", "max_length": 3}, "--max-length must be at least 4"),
    ],
)
def test_an_import_that_cannot_work(settings, message):
    with pytest.raises(ConfigurationError, match=message):
        ImportMasksConfig(Path("masks.npy"), "model", Path("run"), **settings)


def test_masks_are_written_to_a_npy_file():
    with pytest.raises(ConfigurationError, match=r"--output must end in \.npy, got masks\.npz"):
        ExportMasksConfig(Path("run"), Path("masks.npz"))
