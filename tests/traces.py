"""Traces of models, which take most of a tiny model's export, made once."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

# What was traced: a digest of the classifier and all else that a trace depends on -> ONNX.
_TRACES: dict[str, bytes] = {}


@contextmanager
def traced_once() -> Iterator[None]:
    """Trace equal classifiers once, not once a format: it is most of a tiny model's export."""
    import onnx
    import onnx_ir as ir

    from export import graph

    trace_anew = graph._trace

    def trace(classifier: Any, *arguments: Any) -> ir.Model:
        described = f"{classifier} {classifier.layout} {classifier.encoder.config} {arguments}"
        digest = hashlib.sha256(described.encode())
        for name, values in classifier.state_dict().items():
            digest.update(f"{name} {values.dtype} {tuple(values.shape)}".encode())
            digest.update(values.contiguous().numpy().tobytes())
        key = digest.hexdigest()
        if key not in _TRACES:
            _TRACES[key] = ir.to_proto(trace_anew(classifier, *arguments)).SerializeToString()
        return ir.from_proto(onnx.load_from_string(_TRACES[key]))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graph, "_trace", trace)
        yield
