import numpy as np
import onnx
import onnx_ir as ir
import pytest

from export.engine.constants import Constants


@pytest.fixture
def graph() -> ir.Model:
    model = onnx.parser.parse_model(
        """
        <ir_version: 9, opset_import: ["" : 17]>
        g (float[b, 3] x) => (float[b, 2] y)
        {
            turned = Transpose(w)
            half = Cast<to = 10>(turned)
            single = Cast<to = 1>(half)
            noise = RandomNormalLike(single)
            added = Add(single, noise)
            y = MatMul(x, added)
        }
        """
    )
    model.graph.initializer.append(
        onnx.numpy_helper.from_array(np.arange(6, dtype=np.float32).reshape(2, 3) / 3, "w")
    )
    return ir.from_proto(model)


def value(model: ir.Model, name: str) -> ir.Value:
    values = {output.name: output for node in model.graph for output in node.outputs}
    return values.get(name) or model.graph.initializers.get(name) or model.graph.inputs[0]


def test_what_depends_on_no_input_is_constant(graph: ir.Model):
    constants = Constants(graph)
    found = {name: constants.is_constant(value(graph, name)) for name in ("w", "single", "x", "y")}
    assert found == {"w": True, "single": True, "x": False, "y": False}


def test_chance_is_not_constant(graph: ir.Model):
    constants = Constants(graph)
    assert not constants.is_constant(value(graph, "noise"))
    assert not constants.is_constant(value(graph, "added"))


def test_a_constant_is_computed_and_keeps_the_name_of_its_weight(graph: ir.Model):
    constants = Constants(graph)
    single = value(graph, "single")
    expected = (np.arange(6).reshape(2, 3).T / 3).astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(constants.array(single), expected)
    assert constants.weight_name(single) == "w"
    assert constants.tensor(single).name == "single"
