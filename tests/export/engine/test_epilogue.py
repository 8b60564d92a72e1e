"""What is taken into a linear layer's operator, on graphs small enough to read."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx_ir.passes.common import LiftConstantsToInitializersPass

from export.engine.analysis import Analysis
from export.engine.epilogue import Epilogue, find_epilogue
from export.engine.linear import find_linears

LAYER_NORM = """
    mean = ReduceMean<axes = [-1]>(sum)
    centred = Sub(sum, mean)
    squares = Pow(centred, two)
    variance = ReduceMean<axes = [-1]>(squares)
    moved = Add(variance, epsilon)
    root = Sqrt(moved)
    normal = Div(centred, root)
    scaled = Mul(normal, gamma)
    y = Add(scaled, beta)
"""


def find(body: str, *, extra_output: str = "") -> Epilogue:
    """The epilogue of the first linear layer; ``body`` goes from ``m`` to ``y``."""
    outputs = "float[b, s, 8] y" + (f", float[b, s, 8] {extra_output}" if extra_output else "")
    model = onnx.parser.parse_model(
        f"""
        <ir_version: 9, opset_import: ["" : 17]>
        g (float[b, s, 8] x, float[1, s, 8] table) => ({outputs})
        <float two = {{2}}, float half = {{0.5}}, float epsilon = {{0.001}},
         int64[1] last = {{2}}>
        {{
            m = MatMul(x, w)
            {body}
        }}
        """
    )
    generator = np.random.default_rng(0)
    vectors = {
        "gamma": 1 + 0.3 * generator.standard_normal(8),
        "beta": generator.standard_normal(8),
    }
    arrays = {"w": generator.standard_normal((8, 8)), **vectors}
    for name, array in arrays.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(array.astype(np.float32), name))
    graph = ir.from_proto(model)
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(graph)
    analysis = Analysis(graph)
    linears = list(find_linears(analysis))
    analysis.barriers = frozenset(linear.node for linear in linears)
    return find_epilogue(analysis, linears[0])


def test_nothing_follows():
    found = find("y = Softmax(m)")
    assert (found.activation, found.residual, found.norm) == ("none", None, None)
    assert found.output.name == "m"


def test_a_decomposed_activation_is_taken():
    found = find("s = Sigmoid(m)  y = Mul(s, m)")
    assert (found.activation, found.output.name) == ("silu", "y")


@pytest.mark.parametrize("order", ["m, x", "x, m"])
def test_a_residual_is_taken(order: str):
    found = find(f"y = Add({order})")
    assert found.residual is not None
    assert (found.activation, found.residual.name, found.norm) == ("none", "x", None)


def test_a_residual_that_is_broadcast_is_not():
    # SmpLinear adds states of the same shape.
    assert find("y = Add(m, table)").residual is None


@pytest.mark.parametrize(
    "norm",
    [LAYER_NORM, "y = LayerNormalization<axis = -1, epsilon = 0.001>(sum, gamma, beta)"],
    ids=["decomposed", "operator"],
)
def test_residual_and_norm_are_taken_with_their_own_constants(norm: str):
    found = find(f"a = Relu(m)  sum = Add(x, a) {norm}")
    assert found.residual is not None and found.norm is not None
    assert (found.activation, found.residual.name, found.output.name) == ("relu", "x", "y")
    generator = np.random.default_rng(0)
    gamma = (1 + 0.3 * generator.standard_normal(8)).astype(np.float32)
    np.testing.assert_array_equal(found.norm.gamma, gamma)
    assert found.norm.epsilon == pytest.approx(1e-3, rel=1e-6)


def test_a_norm_over_the_wrong_axis_is_not():
    wrong = LAYER_NORM.replace("-1", "-2")
    found = find(f"sum = Add(m, x) {wrong}")
    assert found.norm is None
    assert found.output.name == "sum"


def test_what_something_else_reads_is_left_outside():
    # The raw product is read twice: nothing can be taken in.
    found = find("a = Relu(m)  y = Add(a, x)  z = Softmax(m)", extra_output="z")
    assert (found.activation, found.residual, found.output.name) == ("none", None, "m")
    # The sum is an output of the graph: the norm stays outside.
    found = find(f"sum = Add(m, x) {LAYER_NORM}", extra_output="sum")
    assert found.norm is None
    assert found.output.name == "sum"
