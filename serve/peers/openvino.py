"""OpenVINO on the CPU, which reads the first model's own ONNX file."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts.files import sha256_file
from pipeline.errors import ArtifactError
from serve.peers.check import EXACT
from serve.peers.peer import Peer, need_dense_onnx, need_packages
from serve.session import Session
from serve.size import measure_size

__all__ = ["open_openvino"]

_NAME = "openvino"


def open_openvino(first: Session) -> Peer:
    """Compile the first model's ONNX file for inputs of any shape.

    With the settings that OpenVINO recommends for latency, as many threads as the first model has,
    and float32: on some processors it would take bfloat16 by itself.

    Raises:
        ArtifactError: OpenVINO cannot read the graph.
        ConfigurationError: the weights are not stored plainly.
        MachineError: the package is missing.
    """
    need_dense_onnx(_NAME, first)
    versions = need_packages(_NAME, "openvino")
    import openvino

    settings = {
        "INFERENCE_NUM_THREADS": first.threads,
        "INFERENCE_PRECISION_HINT": "f32",
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
    }
    core = openvino.Core()
    try:
        graph = core.read_model(str(first.layout.graph))
        request = core.compile_model(graph, "CPU", settings).create_infer_request()
    except Exception as error:  # OpenVINO's exceptions share no other base
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()
        raise ArtifactError(
            f"--peers {_NAME}: cannot open {first.layout.graph} ({reason}); leave this peer out"
        ) from error

    def run(inputs: Mapping[str, NDArray[np.int64]]) -> NDArray[Any]:
        found = request.infer(first.feeds(inputs))
        return first.result([found[name] for name in first.output_names])

    return Peer(
        run=run,
        source=str(first.layout.source.path),
        device="CPU",
        size=measure_size(first.layout),
        model_sha256=sha256_file(first.layout.graph),
        versions=versions,
        tolerance=EXACT,
    )
