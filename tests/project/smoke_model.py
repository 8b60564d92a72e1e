"""Write the model directory that smoke.py opens: python tests/project/smoke_model.py DIRECTORY

Needs hypothesis and onnx; what is installed of smp-pipeline goes before the checkout's.
"""

import dataclasses
import sys
from pathlib import Path

import numpy as np
import onnx

sys.path.append(str(Path(__file__).parents[2]))

from pipeline.artifacts.exported import read_exported, write_export_manifest
from pipeline.artifacts.files import sha256_file
from tests.made_up_models import write_model
from tests.serve.matrices import encode


def write_smoke_model(directory: Path) -> None:
    """A word counter whose logits go through an operator of the native library."""
    write_model(directory, labels=("negative", "positive"))
    path = directory / "model.onnx"
    model = onnx.load(path)
    model.graph.node[-1].output[0] = "word_logits"
    identity = np.frombuffer(encode(np.eye(2, dtype=np.float32)), np.uint8)
    model.graph.initializer.append(onnx.numpy_helper.from_array(identity, "identity"))
    settings = {"in_features": 2, "out_features": 2, "activation": "none", "epsilon": 1e-5}
    model.graph.node.append(
        onnx.helper.make_node(
            "SmpLinear",
            ["word_logits", "identity"],
            ["logits"],
            domain="smp",
            compute="fp32",
            **settings,
        )
    )
    model.opset_import.append(onnx.helper.make_opsetid("smp", 1))
    onnx.save(model, path)
    manifest = dataclasses.replace(
        read_exported(directory), format="engine", compute="fp32", model_sha256=sha256_file(path)
    )
    write_export_manifest(directory, manifest)


if __name__ == "__main__":
    write_smoke_model(Path(sys.argv[1]))
