"""Traces of models, which take most of a tiny model's export, made once."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest


@contextmanager
def traced_once(directory: Path) -> Iterator[None]:
    """Trace equal classifiers once, not once a format: it is most of a tiny model's export.

    Args:
        directory: keeps the traces, for all processes that are given it.
    """
    import onnx
    import onnx_ir as ir

    from export import graph

    trace_anew = graph._trace

    def trace(classifier: Any, *arguments: Any) -> ir.Model:
        # All that a trace depends on.
        described = f"{classifier} {classifier.layout} {classifier.encoder.config} {arguments}"
        digest = hashlib.sha256(described.encode())
        for name, values in classifier.state_dict().items():
            digest.update(f"{name} {values.dtype} {tuple(values.shape)}".encode())
            digest.update(values.contiguous().numpy().tobytes())
        path = directory / f"{digest.hexdigest()}.onnx"
        if not path.exists():
            partial = path.with_suffix(f".{os.getpid()}")
            partial.write_bytes(ir.to_proto(trace_anew(classifier, *arguments)).SerializeToString())
            partial.rename(path)
        return ir.from_proto(onnx.load(path))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graph, "_trace", trace)
        yield
