from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from export.packed_graph import PackInitializers

SHAPES = {"a": (64, 64), "b": (64, 64), "odd": (37, 61), "single": (1, 1), "wide": (3, 701)}


def weights(density: float) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    matrices = {}
    for name, shape in SHAPES.items():
        matrix = generator.standard_normal(shape).astype(np.float32)
        matrices[name] = matrix * (generator.random(shape) < density)
    return matrices


def matmul_model(matrices: dict[str, np.ndarray]) -> ir.Model:
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
    opset = onnx.helper.make_opsetid("", 20)
    return ir.from_proto(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=9))


def optimised(model: ir.Model, path: Path) -> onnx.ModelProto:
    """What ONNX Runtime makes of a model when a session opens."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(path)
    ort.InferenceSession(
        ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return onnx.load(path)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("density", [0.0, 0.03, 0.1, 0.5, 1.0])
def test_onnxruntime_folds_the_decoders_into_the_rounded_weights(density, dtype, tmp_path):
    matrices = weights(density)
    model = matmul_model(matrices)
    PackInitializers(list(matrices), dtype)(model)
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    folded = optimised(model, tmp_path / "optimised.onnx")
    assert {node.op_type for node in folded.graph.node} == {"MatMul"}
    by_consumer = {node.output[0]: node.input[1] for node in folded.graph.node}
    stored = {
        tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in folded.graph.initializer
    }
    for name, matrix in matrices.items():
        decoded = stored[by_consumer[f"y_{name}"]]
        np.testing.assert_array_equal(decoded, matrix.astype(dtype).astype(np.float32))


@pytest.mark.parametrize(("density", "share"), [(0.03, 0.06), (0.1, 0.18), (0.5, 0.32)])
def test_the_file_shrinks_with_the_density(density, share):
    generator = np.random.default_rng(0)
    matrix = generator.standard_normal((384, 1536)).astype(np.float32)
    matrices = {"w": matrix * (generator.random(matrix.shape) < density)}
    model = matmul_model(matrices)
    before = ir.to_proto(model).ByteSize()
    PackInitializers(["w"], np.float16)(model)
    assert ir.to_proto(model).ByteSize() < share * before


def test_operators_and_names_are_standard_and_unique():
    matrices = weights(0.2)
    model = matmul_model(matrices)
    packing = PackInitializers(list(matrices), np.float16)
    packing(model)
    proto = ir.to_proto(model)
    assert {node.domain for node in proto.graph.node} == {""}
    names = [node.name for node in proto.graph.node if node.op_type != "MatMul"]
    assert len(set(names)) == len(names)
    values = [name for node in proto.graph.node for name in node.output]
    values += [tensor.name for tensor in proto.graph.initializer]
    assert len(set(values)) == len(values)
    assert set(packing.encodings) == set(matrices)


def test_dense_float32_weights_are_left_as_they_are():
    matrices = {"w": np.ones((8, 8), np.float32)}
    model = matmul_model(matrices)
    packing = PackInitializers(["w"], np.float32)
    assert not packing(model).modified
    assert packing.encodings == {"w": "dense"}
    assert list(model.graph.initializers) == ["w"]


def test_a_weight_used_twice_is_decoded_once():
    matrices = {"w": weights(0.1)["a"]}
    model = matmul_model(matrices)
    (weight,) = model.graph.initializers.values()
    again = ir.node("MatMul", [model.graph.inputs[0], weight], name="again")
    again.outputs[0].name = "again"
    model.graph.append(again)
    PackInitializers(["w"], np.float16)(model)
    (decoded,) = {node.inputs[1] for node in model.graph if node.op_type == "MatMul"}
    assert decoded.name == "w"
    assert len(decoded.uses()) == 2
