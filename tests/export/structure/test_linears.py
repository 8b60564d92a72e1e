import numpy as np
import onnx
import onnx_ir as ir
import pytest

from export.structure.linears import find_linears

WEIGHT = np.arange(12, dtype=np.float32).reshape(3, 4)


def graph(nodes: str, outputs: str = "float[n, 4] y", **tensors: np.ndarray) -> ir.Graph:
    model = onnx.parser.parse_model(
        f"""
        <ir_version: 10, opset_import: ["" : 20]>
        linear (float[n, 3] x, float[n, 4] z) => ({outputs}) {{ {nodes} }}
        """
    )
    for name, array in {"w": WEIGHT, "b": np.arange(4, dtype=np.float32), **tensors}.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return ir.from_proto(model).graph


@pytest.mark.parametrize("total", ["Add(m, b)", "Add(b, m)"])
def test_matmul_and_add_are_a_linear_layer(total: str):
    (linear,) = find_linears(graph(f"m = MatMul(x, w) y = {total}"), ["w"])
    assert linear.name == "w"
    assert (linear.source.name, linear.output.name) == ("x", "y")
    np.testing.assert_array_equal(linear.matrix, WEIGHT)
    np.testing.assert_array_equal(linear.bias, np.arange(4))


@pytest.mark.parametrize(
    ("nodes", "outputs"),
    [
        ("y = MatMul(x, w)", "float[n, 4] y"),
        ("m = MatMul(x, w) y = Add(m, z)", "float[n, 4] y"),
        ("m = MatMul(x, w) y = Mul(m, b)", "float[n, 4] y"),
        ("m = MatMul(x, w) y = Add(m, one)", "float[n, 4] y"),
        ("m = MatMul(x, w) y = Add(m, b)", "float[n, 4] y, float[n, 4] m"),
        ("m = MatMul(x, w) a = Add(m, b) y = Mul(a, m)", "float[n, 4] y"),
        ("m = MatMul(x, w) a = Add(m, b) k = MatMul(x, w) y = Mul(a, k)", "float[n, 4] y"),
        ("t = Transpose(x) m = MatMul(w, z) y = Add(m, b)", "float[3, 4] y"),
        ("y = Gemm(x, w, b)", "float[n, 4] y"),
    ],
    ids=[
        *("no bias", "a bias that is no constant", "no Add", "one number as bias"),
        *("product given out", "product read twice", "matrix read twice", "matrix on the left"),
        "Gemm",
    ],
)
def test_what_could_not_lose_features_is_not_found(nodes: str, outputs: str):
    assert not list(find_linears(graph(nodes, outputs, one=np.ones(1, np.float32)), ["w"]))


def test_features_go_from_matrix_and_bias():
    g = graph("m = MatMul(x, w) y = Add(m, b)")
    (linear,) = find_linears(g, ["w"])
    linear.keep_outputs(np.array([1, 3]))
    np.testing.assert_array_equal(linear.matrix, WEIGHT[:, [1, 3]])
    np.testing.assert_array_equal(linear.bias, [1, 3])
    linear.keep_inputs(np.array([2]), np.array([10.0, 20.0]))
    np.testing.assert_array_equal(linear.matrix, WEIGHT[[2]][:, [1, 3]])
    np.testing.assert_array_equal(linear.bias, [11, 23])
    assert [list(g.initializers[name].shape.numpy()) for name in "wb"] == [[1, 2], [2]]


def test_a_bias_that_others_read_stays_as_it_is_for_them():
    g = graph(
        "m = MatMul(x, w) a = Add(m, b) k = MatMul(x, v) c = Add(k, b) y = Mul(a, c)", v=WEIGHT
    )
    linears = list(find_linears(g, ["w", "v"]))
    linears[0].keep_inputs(np.array([0, 1, 2]), np.ones(4))
    np.testing.assert_array_equal(linears[0].bias, [1, 2, 3, 4])
    np.testing.assert_array_equal(linears[1].bias, [0, 1, 2, 3])
    assert set(g.initializers) == {"w", "v", "b", "w/bias"}
