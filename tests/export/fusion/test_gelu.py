import pytest

pytestmark = pytest.mark.usefixtures("traced_once")

CASES = [
    ("gelu", 18, "BiasGelu", "Erf"),
    ("gelu", 20, "BiasGelu", "Gelu"),
    ("gelu", 23, "BiasGelu", "Gelu"),
    ("gelu_pytorch_tanh", 18, "FastGelu", "Tanh"),
    ("gelu_pytorch_tanh", 20, "FastGelu", "Gelu"),
]


@pytest.mark.parametrize(("activation", "opset", "operator", "replaced"), CASES)
def test_gelu_and_bias_become_one_operator(activation, opset, operator, replaced, exported):
    graph = exported(opset=opset, activation=activation)
    before = graph.operators
    assert before[replaced] == 2
    assert graph.fuse("gelu") == {"gelu": 2}
    after = graph.operators
    assert after[operator] == 2
    assert after[replaced] == 0
    biases = [node.inputs[1] for node in graph.model.graph if node.op_type == operator]
    assert [bias.name for bias in biases] == [
        f"encoder.layer.{layer}.intermediate.dense.bias" for layer in (0, 1)
    ]
    graph.assert_valid()
    graph.assert_parity()


@pytest.mark.parametrize("activation", ["relu", "gelu_fast"])
def test_other_activations_stay(activation, exported):
    graph = exported(activation=activation)
    before = graph.operators
    assert graph.fuse("gelu") == {"gelu": 0}
    assert graph.operators == before
    graph.assert_parity()
