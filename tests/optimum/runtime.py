"""Print what plain ONNX Runtime makes of exported directories, a JSON object.

Runs in any environment with onnxruntime and onnx, and imports nothing of this project.

    python runtime.py INPUTS.npz DIR...
"""

import json
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime


def look_at(directory: str, inputs: dict[str, np.ndarray]) -> dict[str, object]:
    """The logits; and of the optimised graph the operators' numbers and the tables' types."""
    with tempfile.TemporaryDirectory() as scratch:
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(Path(scratch) / "optimised.onnx")
        options.log_severity_level = 3  # a warning says that such a file fits this machine only
        session = onnxruntime.InferenceSession(
            str(Path(directory) / "model.onnx"), options, providers=["CPUExecutionProvider"]
        )
        graph = onnx.load(options.optimized_model_filepath, load_external_data=False).graph
    (logits,) = session.run(["logits"], inputs)
    return {
        "logits": logits.tolist(),
        "operators": Counter(f"{node.domain}:{node.op_type}" for node in graph.node),
        "types": {
            tensor.name: onnx.TensorProto.DataType.Name(tensor.data_type)
            for tensor in graph.initializer
            if tensor.name.endswith("_embeddings.weight")
        },
    }


if __name__ == "__main__":
    inputs = dict(np.load(sys.argv[1]))
    found = {directory: look_at(directory, inputs) for directory in sys.argv[2:]}
    print(json.dumps({"version": onnxruntime.__version__, "found": found}))
