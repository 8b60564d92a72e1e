"""Random encoders as the export writes them, to be pruned and run before and after."""

import functools
from collections.abc import Mapping

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import torch

from export.graph import export_graph
from export.structure import RemoveEmptyStructure
from tests.export.test_graph import CONFIGS, INPUTS, classifier_of

HEADS = 4
HEAD_SIZE = 8
NEURONS = 64

Arrays = Mapping[str, np.ndarray]

# Last parts of parameter names, over the architectures: value, attention output, up, down.
VALUES = ("value.weight", "v_lin.weight", "attn.v.weight", "value_proj.weight")
OUTS = ("attention.output.dense.weight", "out_lin.weight", "attn.o.weight")
UPS = ("intermediate.dense.weight", "lin1.weight")


def is_down(name: str) -> bool:
    """Whether a matrix is the second of a feed-forward network."""
    return name.endswith(("output.dense.weight", "lin2.weight")) and not name.endswith(OUTS)


@functools.cache
def exported(model_type: str, opset: int = 20, biases: str = "random") -> bytes:
    """An exported encoder, with strong weights, and biases ``random`` or ``zero``."""
    classifier = classifier_of(CONFIGS[model_type])
    names = []
    with torch.no_grad():
        for name, parameter in classifier.encoder.named_parameters():
            if parameter.ndim == 2 and ".layer." in name:
                names.append(name)
                parameter.normal_(std=0.3)
            elif parameter.ndim == 1 and biases == "random":
                parameter.normal_(mean=float(name.endswith("LayerNorm.weight")), std=0.3)
    return ir.to_proto(export_graph(classifier, names, INPUTS, opset)).SerializeToString()


def matrices(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """The pruned matrices, [in_features, out_features]."""
    return {
        tensor.name: onnx.numpy_helper.to_array(tensor)
        for tensor in model.graph.initializer
        if ".layer." in tensor.name and len(tensor.dims) == 2 and tensor.name.endswith(".weight")
    }


def pruned(model: bytes, masks: Arrays) -> onnx.ModelProto:
    """The same with masks multiplied into some of its matrices."""
    proto = onnx.ModelProto.FromString(model)
    for tensor in proto.graph.initializer:
        if tensor.name in masks:
            array = onnx.numpy_helper.to_array(tensor) * masks[tensor.name]
            tensor.CopyFrom(onnx.numpy_helper.from_array(array.astype(np.float32), tensor.name))
    return proto


def remove(proto: onnx.ModelProto) -> tuple[onnx.ModelProto, RemoveEmptyStructure]:
    """The graph after the pass, checked to be valid, and the pass."""
    copy = onnx.ModelProto.FromString(proto.SerializeToString())
    names = tuple(matrices(copy))
    model = ir.from_proto(copy)
    removal = RemoveEmptyStructure(names)
    result = removal(model)
    assert result.modified == bool(removal.kept)
    after = ir.to_proto(model)
    onnx.checker.check_model(after, full_check=True)
    return after, removal


def logits(proto: onnx.ModelProto, feeds: Arrays | None = None) -> np.ndarray:
    """What a graph makes of four texts of 9, 5, 2 and 1 tokens, or of other inputs."""
    if feeds is None:
        ids = np.random.default_rng(5).integers(6, 64, (4, 9))
        kept = np.arange(9) < np.array([[9], [5], [2], [1]])
        feeds = {"input_ids": ids, "attention_mask": kept.astype(np.int64)}
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, dict(feeds))[0]


def assert_same_logits(before: onnx.ModelProto, after: onnx.ModelProto) -> None:
    expected = logits(before)
    assert np.ptp(expected, axis=0).max() > 0.05  # the encoder says something of its input
    np.testing.assert_allclose(logits(after), expected, rtol=0, atol=1e-5 * np.abs(expected).max())
