import itertools
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from export import packed_graph
from export.encodings import RICE_WIDTHS, Encoding, encode, encode_bitmap, encode_gaps, encode_rice
from export.packed_graph import EncodeWeights
from export.quantise import round_weights
from export.sparse_initializers import to_sparse_initializers
from pipeline.errors import ModelError

SHAPES = {"a": (64, 64), "b": (64, 64), "odd": (37, 61), "single": (1, 1), "wide": (3, 701)}
VALUES = ("fp32", "fp16", "int8")


def weights(density: float, seed: int = 0) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    matrices = {}
    for name, shape in SHAPES.items():
        matrix = generator.standard_normal(shape).astype(np.float32)
        matrices[name] = matrix * (generator.random(shape) < density)
    return matrices


def matmul_model(matrices: dict[str, np.ndarray], opset: int = 20) -> ir.Model:
    """One MatMul for every matrix."""
    nodes, inputs, outputs, initializers = [], [], [], []
    for name, matrix in matrices.items():
        rows, columns = matrix.shape
        nodes.append(onnx.helper.make_node("MatMul", [f"x_{name}", name], [f"y_{name}"]))
        float32 = onnx.TensorProto.FLOAT
        inputs.append(onnx.helper.make_tensor_value_info(f"x_{name}", float32, ["n", rows]))
        outputs.append(onnx.helper.make_tensor_value_info(f"y_{name}", float32, ["n", columns]))
        initializers.append(onnx.numpy_helper.from_array(matrix, name))
    graph = onnx.helper.make_graph(nodes, "g", inputs, outputs, initializers)
    opsets = [onnx.helper.make_opsetid("", opset)]
    return ir.from_proto(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=9))


def opened(model: onnx.ModelProto, path: Path) -> tuple[ort.InferenceSession, set[str]]:
    """A session, and the operators that are left in it."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(path)
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session, {node.op_type for node in onnx.load(path).graph.node}


def as_stored(matrix: np.ndarray, values: str) -> np.ndarray:
    """What a stored [in_features, out_features] matrix comes back as, float32."""
    rounded, scales = round_weights(matrix.T, values)
    return (rounded.astype(np.float32) if scales is None else rounded * scales[:, None]).T


@pytest.mark.parametrize("opset", [18, 20, 23])
@pytest.mark.parametrize("values", VALUES)
@pytest.mark.parametrize("form", ["dense", "sparse", "packed"])
@pytest.mark.parametrize("density", [0.0, 0.03, 0.1, 0.5, 1.0])
def test_onnxruntime_folds_the_decoders_into_the_rounded_weights(
    density, form, values, opset, tmp_path
):
    matrices = weights(density)
    model = matmul_model(matrices, opset)
    encoding = EncodeWeights(list(matrices), values, packed=form == "packed")
    encoding(model)
    proto = ir.to_proto(model)
    if form == "sparse":
        to_sparse_initializers(proto, encoding.stored)
        onnx.checker.check_model(proto)
    else:
        onnx.checker.check_model(proto, full_check=True)
    session, operators = opened(proto, tmp_path / "optimised.onnx")
    assert operators == {"MatMul"}
    units = {
        f"x_{name}": np.eye(len(matrix), dtype=np.float32) for name, matrix in matrices.items()
    }
    for name, decoded in zip(matrices, session.run(None, units), strict=True):
        np.testing.assert_array_equal(decoded, as_stored(matrices[name], values))


ENCODERS = {
    "smallest": encode,
    "gaps": encode_gaps,
    "bitmap": encode_bitmap,
    **{
        f"rice{width}": lambda matrix, width=width: encode_rice(matrix, width)
        for width in RICE_WIDTHS
    },
}


def decoded_by_graph(encodings: dict[str, Encoding]) -> dict[str, np.ndarray]:
    """Run the decoders alone, without optimisation."""
    model = ir.Model(ir.Graph([], [], nodes=[], opset_imports={"": 20}, name="g"), ir_version=9)
    builder = packed_graph._Builder(model.graph, list(encodings.values()))
    for name, encoding in encodings.items():
        model.graph.outputs.append(builder.decode(name, encoding, None))
    builder.finish()
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(
        ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return dict(zip(encodings, session.run(None, {}), strict=True))


@settings(max_examples=30)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([0.004, 0.03, 0.1, 0.5, 1.0]),
    st.sampled_from(VALUES),
    st.booleans(),
)
def test_the_graph_decodes_what_numpy_encodes(seed, density, values, wide):
    generator = np.random.default_rng(seed)
    matrices, encodings = {}, {}
    for encoder in ENCODERS:
        shape = tuple(generator.integers(1, 50, 2))
        matrix = generator.standard_normal(shape).astype(np.float32)
        matrix *= generator.random(shape) < density
        matrix[-1, -1] = 1.0  # a Rice code needs a value
        matrices[encoder] = round_weights(matrix, values)[0]
        encodings[encoder] = ENCODERS[encoder](matrices[encoder])
    with pytest.MonkeyPatch.context() as patch:
        if wide:  # positions beyond int32
            patch.setattr(packed_graph, "_LARGEST_INT32", 0)
        decoded = decoded_by_graph(encodings)
    for name, matrix in matrices.items():
        np.testing.assert_array_equal(decoded[name], matrix.astype(np.float32))
        assert decoded[name].dtype == np.float32


@pytest.mark.parametrize(
    ("density", "values", "share"),
    [
        (0.03, "fp16", 0.023),
        (0.1, "fp16", 0.068),
        (0.5, "fp16", 0.283),
        (0.03, "int8", 0.018),
        (0.1, "int8", 0.045),
        (0.5, "int8", 0.16),
    ],
)
def test_the_file_shrinks_with_the_density(density, values, share):
    generator = np.random.default_rng(0)
    matrix = generator.standard_normal((384, 1536)).astype(np.float32)
    matrices = {"w": matrix * (generator.random(matrix.shape) < density)}
    model = matmul_model(matrices)
    before = ir.to_proto(model).ByteSize()
    EncodeWeights(["w"], values, packed=True)(model)
    assert ir.to_proto(model).ByteSize() < share * before


def test_operators_and_names_are_standard_and_unique():
    for values, density in itertools.product(VALUES, (0.03, 0.2, 0.6)):
        matrices = weights(density)
        model = matmul_model(matrices)
        encoding = EncodeWeights(list(matrices), values, packed=True)
        encoding(model)
        proto = ir.to_proto(model)
        assert {node.domain for node in proto.graph.node} == {""}
        names = [node.name for node in proto.graph.node if node.op_type != "MatMul"]
        assert len(set(names)) == len(names)
        stored = [name for node in proto.graph.node for name in node.output]
        stored += [tensor.name for tensor in proto.graph.initializer]
        assert len(set(stored)) == len(stored)
        assert set(encoding.encodings) == set(matrices)


def test_int8_has_a_scale_for_every_output_feature():
    matrix = np.array([[127.0, 0.0, 1e-3], [-1.0, 0.0, 2e-3]], np.float32)
    model = matmul_model({"w": matrix})
    EncodeWeights(["w"], "int8", packed=False)(model)
    stored = model.graph.initializers["w.values"].const_value.numpy()
    assert stored.tolist() == [[127, 0, 64], [-1, 0, 127]]
    scales = model.graph.initializers["w.scales"].const_value.numpy()
    np.testing.assert_allclose(scales, [1.0, 0.0, 2e-3 / 127], rtol=1e-6)


@pytest.mark.parametrize("packed", [True, False])
def test_dense_float32_weights_are_left_as_they_are(packed):
    matrices = {"w": np.ones((8, 8), np.float32)}
    model = matmul_model(matrices)
    encoding = EncodeWeights(["w"], "fp32", packed=packed)
    assert not encoding(model).modified
    assert encoding.encodings == {"w": "dense"}
    assert encoding.stored == {"w": "w"}
    assert list(model.graph.initializers) == ["w"]


def test_a_weight_used_twice_is_decoded_once():
    matrices = {"w": weights(0.1)["a"]}
    model = matmul_model(matrices)
    (weight,) = model.graph.initializers.values()
    again = ir.node("MatMul", [model.graph.inputs[0], weight], name="again")
    again.outputs[0].name = "again"
    model.graph.append(again)
    EncodeWeights(["w"], "fp16", packed=True)(model)
    (decoded,) = {node.inputs[1] for node in model.graph if node.op_type == "MatMul"}
    assert decoded.name == "w"
    assert len(decoded.uses()) == 2


def test_zeros_and_ranges_are_shared_between_matrices():
    matrices = {name: weights(0.1, seed)["a"] for seed, name in enumerate("pqr")}
    model = matmul_model(matrices)
    encoding = EncodeWeights(list(matrices), "fp16", packed=True)
    encoding(model)
    assert set(encoding.encodings.values()) == {"rice"}
    operators = [node.op_type for node in model.graph]
    assert operators.count("ConstantOfShape") == operators.count("Range") == 1


@pytest.mark.parametrize(("value", "fix"), [(np.inf, "another checkpoint"), (1e6, "--values fp32")])
def test_what_cannot_be_stored_is_named(value, fix):
    model = matmul_model({"w": np.array([[1.0, value]], np.float32)})
    with pytest.raises(ModelError, match=f"w cannot be stored: .*{fix}"):
        EncodeWeights(["w"], "fp16", packed=True)(model)
