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
        ({"run": None}, r"a run directory \(RUN\) or an ONNX file \(--from-onnx\), got neither"),
        ({"from_onnx": Path("m.onnx")}, "got both; give one of the two"),
        ({"run": None, "from_onnx": Path("m.onnx")}, "got dense; add --format engine"),
        (
            {"run": None, "from_onnx": Path("m.onnx"), "format": "engine", "model": "m"},
            "--model is the base model of a RUN",
        ),
    ],
)
def test_what_cannot_work_is_refused(changes, message):
    with pytest.raises(ConfigurationError, match=message):
        ExportConfig(**{"run": Path("run"), "output_dir": Path("model"), **changes})


@pytest.mark.parametrize(
    ("changes", "values", "share"),
    [
        ({}, "fp32", 1e-4),
        ({"format": "packed"}, "fp16", 1e-2),
        ({"format": "packed", "values": "fp32"}, "fp32", 1e-4),
        ({"format": "engine"}, "int8", 0.1),
        ({"format": "engine", "values": "fp32"}, "int8", 0.1),
        ({"format": "engine", "compute": "fp32"}, "fp16", 1e-2),
        ({"format": "engine", "tolerance": 0.5}, "int8", 0.5),
    ],
)
def test_stored_values_decide_on_the_tolerance(changes, values, share):
    config = ExportConfig(run=Path("run"), output_dir=Path("model"), **changes)
    assert (config.weight_values, config.share_allowed) == (values, share)
