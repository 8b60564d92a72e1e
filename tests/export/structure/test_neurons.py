import numpy as np
import onnx
import onnx_ir as ir
import pytest

from tests.export.structure.encoders import logits, remove

FEATURES = 6
NEURONS = 10
# What lies between the two layers, from u [batch, sequence, 10] to a.
ACTIVATIONS = {
    "gelu": "a = Gelu(u)",
    "gelu in parts": "d = Div(u, root) e = Erf(d) p = Add(e, one) h = Mul(half, p) a = Mul(u, h)",
    "tanh gelu": 'a = Gelu<approximate="tanh">(u)',
    "relu": "a = Relu(u)",
    "silu": "g = Sigmoid(u) a = Mul(u, g)",
    "clipped": "a = Clip(u, minus, one)",
    "nothing": "a = Identity(u)",
}
# Neurons that depend on other neurons, tokens or texts, or have parameters of their own.
OTHERS = {
    "softmax over neurons": "a = Softmax<axis = -1>(u)",
    "softmax over tokens": "a = Softmax<axis = 1>(u)",
    "slopes": "a = PRelu(u, slopes)",
    "normalised": "a = LayerNormalization(u, slopes)",
    "reversed": "i = Slice(u, last, first, axis, back) a = Gelu(i)",
}


def feed_forward(between: str, *, outputs: str = "") -> onnx.ModelProto:
    """``w1``, an activation, and ``w2``; matrices are named as parameters are."""
    model = onnx.parser.parse_model(
        f"""
        <ir_version: 10, opset_import: ["" : 20]>
        ffn (float[batch, sequence, {FEATURES}] x)
            => (float[batch, sequence, {FEATURES}] y{outputs})
        <float root = {{1.4142135}}, float one = {{1}}, float half = {{0.5}}, float minus = {{-1}},
         int64[1] last = {{-1}}, int64[1] first = {{-99}}, int64[1] axis = {{2}},
         int64[1] back = {{-1}}>
        {{
            m = MatMul(x, w1)
            u = Add(m, b1)
            {between}
            n = MatMul(a, w2)
            y = Add(n, b2)
        }}
        """
    )
    generator = np.random.default_rng(0)
    shapes = {"w1": (FEATURES, NEURONS), "b1": (NEURONS,), "w2": (NEURONS, FEATURES)}
    shapes |= {"b2": (FEATURES,), "slopes": (NEURONS,)}
    for name, shape in shapes.items():
        array = generator.standard_normal(shape).astype(np.float32)
        if name == "w1":
            array[:, [1, 7]] = 0
        if name == "w2":
            array[[7, 9]] = 0
        long = {"w1": "layer.0.layer.w1.weight", "w2": "layer.0.layer.w2.weight"}.get(name, name)
        if any(name in node.input for node in model.graph.node):
            model.graph.initializer.append(onnx.numpy_helper.from_array(array, long))
        for node in model.graph.node:
            node.input[:] = [long if given == name else given for given in node.input]
    return model


def x() -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(1).standard_normal((3, 5, FEATURES)).astype(np.float32)}


@pytest.mark.parametrize("between", ACTIVATIONS.values(), ids=ACTIVATIONS)
def test_empty_neurons_go_whatever_the_activation(between: str):
    before = feed_forward(between)
    after, removal = remove(before)
    np.testing.assert_allclose(logits(after, x()), logits(before, x()), rtol=0, atol=2e-6)
    assert removal.report.neurons == {"0": 3}
    for outputs, inputs in removal.kept.values():
        assert (outputs if inputs is None else inputs).tolist() == [0, 2, 3, 4, 5, 6, 8]


@pytest.mark.parametrize("between", OTHERS.values(), ids=OTHERS)
def test_what_is_no_activation_by_neuron_is_left_alone(between: str):
    before = feed_forward(between)
    after, removal = remove(before)
    assert removal.kept == {}
    np.testing.assert_array_equal(logits(after, x()), logits(before, x()))


@pytest.mark.parametrize(
    ("between", "outputs"),
    [
        ("a = Gelu(u)", f", float[batch, sequence, {NEURONS}] a"),
        ("a = Gelu(u)", f", float[batch, sequence, {NEURONS}] u"),
        ("a = Gelu(u) k = Shape(a)", ", int64[3] k"),
    ],
    ids=["activated", "linear", "shape"],
)
def test_neurons_that_something_else_reads_are_left_alone(between: str, outputs: str):
    _, removal = remove(feed_forward(between, outputs=outputs))
    assert removal.kept == {}


def test_a_gate_beside_the_activation_is_left_alone():
    before = feed_forward("g = MatMul(x, gate) s = Sigmoid(g) a = Mul(u, s)")
    gate = np.random.default_rng(2).standard_normal((FEATURES, NEURONS)).astype(np.float32)
    before.graph.initializer.append(onnx.numpy_helper.from_array(gate, "gate"))
    _, removal = remove(before)
    assert removal.kept == {}


def test_a_constant_that_is_large_is_folded_to_single_precision():
    # 1e4 times 1e-4 beside small numbers: the sum is made in double precision.
    before = feed_forward("a = Relu(u)")
    tensors = {tensor.name: tensor for tensor in before.graph.initializer}
    bias = onnx.numpy_helper.to_array(tensors["b1"]).copy()
    bias[1] = 1e4
    tensors["b1"].CopyFrom(onnx.numpy_helper.from_array(bias, "b1"))
    after, _ = remove(before)
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in after.graph.initializer}
    w2 = onnx.numpy_helper.to_array(tensors["layer.0.layer.w2.weight"]).astype(np.float64)
    b2 = onnx.numpy_helper.to_array(tensors["b2"]).astype(np.float64)
    np.testing.assert_array_equal(stored["b2"], (b2 + 1e4 * w2[1]).astype(np.float32))


def test_names_say_which_layers_are_looked_at():
    from export.structure import RemoveEmptyStructure

    model = ir.from_proto(feed_forward("a = Gelu(u)"))
    removal = RemoveEmptyStructure(["layer.0.layer.w1.weight"])
    assert not removal(model).modified
    assert removal.report.weights == 0
