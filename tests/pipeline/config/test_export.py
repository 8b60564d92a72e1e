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
        ({"run": None}, r"an ONNX file \(--from-onnx\), got none; give one"),
        ({"from_onnx": Path("m.onnx")}, "got RUN and --from-onnx; give one of them"),
        ({"from_delta": Path("d")}, "got RUN and --from-delta; give one of them"),
        ({"run": None, "from_delta": Path("d"), "format": "delta"}, "choose another --format"),
        ({"format": "delta", "values": "fp16"}, "give --values when another format is made"),
        ({"format": "delta", "remove_structure": True}, "--format delta has no graph"),
        ({"format": "delta", "fold_constants": False}, "--format delta has no graph"),
        ({"format": "delta", "tolerance": 0.1}, "give --tolerance when another format is made"),
        ({"format": "packed", "compute": "fp32"}, "--compute is for --format engine"),
        ({"format": "engine", "values": "fp16"}, "add --compute fp32 or leave --values out"),
        ({"format": "engine", "compute": "fp32", "values": "int8"}, "use --compute int8"),
        ({"format": "engine", "fuse": ("gelu",)}, "--fuse is for graphs of standard operators"),
        ({"run": None, "from_onnx": Path("m.onnx")}, "got dense; add --format engine"),
        ({"format": "triton", "values": "fp16"}, "--format triton with --compute int8 stores int8"),
        ({"format": "triton", "remove_structure": True}, "--format triton has its own"),
        ({"format": "triton", "output_dir": Path("my model")}, "'my model'; .* --model-name"),
        ({"format": "triton", "model_name": "../m"}, r"got '\.\./m'; choose another"),
        ({"format": "triton", "model_name": ""}, "got ''; choose another"),
        ({"format": "triton", "triton_repository": "models"}, "an absolute path, got 'models'"),
        ({"format": "triton", "triton_repository": "/m\n"}, "an absolute path, got"),
        ({"format": "engine", "model_name": "m"}, "--model-name is for --format triton"),
        ({"triton_repository": "/m"}, "--triton-repository is for --format triton, got --format d"),
        (
            {"run": None, "from_onnx": Path("m.onnx"), "format": "engine", "model": "m"},
            "--model is for a RUN or a delta",
        ),
        (
            {"run": None, "from_onnx": Path("m"), "format": "engine", "fold_constants": False},
            "--no-fold-constants is for a RUN or a delta",
        ),
    ],
)
def test_what_cannot_work_is_refused(changes, message):
    with pytest.raises(ConfigurationError, match=message):
        ExportConfig(**{"run": Path("run"), "output_dir": Path("model"), **changes})


@pytest.mark.parametrize(
    ("changes", "values", "embeddings", "share"),
    [
        ({}, "fp32", "fp32", 1e-4),
        ({"format": "sparse"}, "fp32", "fp32", 1e-4),
        ({"values": "fp16"}, "fp16", "fp32", 1e-2),
        ({"embeddings": "int8"}, "fp32", "int8", 0.1),
        ({"format": "packed"}, "fp16", "fp16", 1e-2),
        ({"format": "packed", "values": "fp32", "embeddings": "fp32"}, "fp32", "fp32", 1e-4),
        ({"format": "engine"}, "int8", "fp16", 0.1),
        ({"format": "engine", "compute": "fp32"}, "fp16", "fp16", 1e-2),
        ({"format": "engine", "tolerance": 0.5}, "int8", "fp16", 0.5),
        ({"format": "triton"}, "int8", "fp16", 0.1),
        ({"format": "triton", "compute": "fp32", "values": "fp32"}, "fp32", "fp16", 1e-2),
        ({"run": None, "from_onnx": Path("m"), "format": "engine"}, "int8", "fp32", 0.1),
    ],
)
def test_the_format_decides_what_is_stored_and_that_on_the_tolerance(
    changes, values, embeddings, share
):
    config = ExportConfig(**{"run": Path("run"), "output_dir": Path("model"), **changes})
    assert (config.weight_values, config.embedding_values) == (values, embeddings)
    assert config.share_allowed == share


def test_triton_has_the_engines_graph_under_the_directorys_name_or_the_given_one():
    config = ExportConfig(run=Path("run"), output_dir=Path("a/reviews"), format="triton")
    assert (config.graph_format, config.engine_compute) == ("engine", "int8")
    assert (config.triton_name, config.triton_path) == ("reviews", "/models")
    config = ExportConfig(
        run=Path("run"),
        output_dir=Path("a/my reviews"),
        format="triton",
        model_name="r",
        triton_repository="/mnt/models",
    )
    assert (config.triton_name, config.triton_path) == ("r", "/mnt/models")
