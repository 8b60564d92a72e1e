"""ONNX Runtime's own dynamic quantisation: weights in int8, activations quantised at run time."""

import contextlib
import dataclasses
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pipeline.artifacts.files import sha256_file
from pipeline.errors import ArtifactError, first_line
from serve.layout import ModelLayout
from serve.peers.check import QUANTISED
from serve.peers.peer import Peer, need_dense_onnx, need_packages
from serve.session import Session, open_session
from serve.size import measure_size

__all__ = ["open_onnxruntime_int8", "quiet_quantiser"]

_NAME = "onnxruntime-int8"


def open_onnxruntime_int8(first: Session) -> Peer:
    """Quantise the first model's ONNX file into a temporary directory and open that.

    Raises:
        ArtifactError: the quantiser fails on the graph, or leaves it in fp32.
        ConfigurationError: the weights are not stored plainly.
        MachineError: the package onnx is missing.
    """
    need_dense_onnx(_NAME, first)
    versions = need_packages(_NAME, "onnx")
    with tempfile.TemporaryDirectory() as temporary:
        graph = Path(temporary) / "model.onnx"
        _quantise(first.layout, graph)
        layout = dataclasses.replace(
            first.layout,
            graph=graph,
            data=tuple(sorted(path for path in Path(temporary).iterdir() if path != graph)),
            others=tuple(
                path for path in first.layout.others if path not in first.layout.graph_files
            ),
            sha256={},
        )
        # ONNX Runtime holds the weights in memory (or mapped) once the session is there.
        session = open_session(layout, threads=first.threads)
        return Peer(
            run=session.run,
            source=str(first.layout.source.path),
            device=session.provider,
            size=measure_size(layout),
            model_sha256=sha256_file(graph),
            versions=versions,
            tolerance=QUANTISED,
        )


@contextlib.contextmanager
def quiet_quantiser() -> Iterator[None]:
    """Keep off stderr what ONNX Runtime's quantiser warns of, on the root logger."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)


def _quantise(layout: ModelLayout, target: Path) -> None:
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    try:
        model = onnx.load(str(layout.graph))
        # The newer exporter stores shapes of which the quantiser makes a contradiction.
        model.graph.ClearField("value_info")
        large = bool(layout.data)
        with quiet_quantiser():
            quantize_dynamic(
                model, str(target), weight_type=QuantType.QInt8, use_external_data_format=large
            )
        kinds = {
            node.op_type for node in onnx.load(str(target), load_external_data=False).graph.node
        }
    except Exception as error:  # the quantiser raises whatever it stumbles over
        reason = first_line(error)
        raise ArtifactError(
            f"--peers {_NAME}: onnxruntime.quantization fails on {layout.graph} ({reason}); leave "
            "this peer out"
        ) from error
    if not kinds & {"MatMulInteger", "DynamicQuantizeMatMul", "QAttention"}:
        raise ArtifactError(
            f"--peers {_NAME}: onnxruntime.quantization finds no product with constant weights in "
            f"{layout.graph}; leave this peer out"
        )
