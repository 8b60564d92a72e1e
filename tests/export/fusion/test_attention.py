import numpy as np
import onnx_ir as ir
import pytest

pytestmark = pytest.mark.usefixtures("traced_once")

# What torch makes of attention: opset 23 has an operator.
BEFORE = {
    18: {"Softmax": 2, "IsNaN": 2, "Transpose": 10},
    20: {"Softmax": 2, "IsNaN": 2, "Transpose": 10},
    23: {"Attention": 2, "Transpose": 8},
}


@pytest.mark.parametrize("opset", BEFORE)
def test_each_layer_gets_one_operator(opset, exported):
    graph = exported(opset=opset)
    before = graph.operators
    assert {name: before[name] for name in BEFORE[opset]} == BEFORE[opset]
    assert graph.fuse("attention") == {"attention": 2}
    after = graph.operators
    assert after["MultiHeadAttention"] == 2
    assert not any(
        after[name] for name in ("Softmax", "IsNaN", "Attention", "Transpose", "Reshape")
    )
    assert after["MatMul"] == 12  # the linear layers and no more
    graph.assert_valid()
    graph.assert_parity()


def test_attention_with_relative_positions_stays_as_it_is(exported):
    graph = exported("mpnet")
    before = graph.operators
    assert graph.fuse("attention") == {"attention": 0}
    assert graph.operators == before
    assert "com.microsoft" not in graph.model.opset_imports


def test_each_pruned_matrix_stays_the_second_input_of_one_product(exported):
    graph = exported()
    stored = {name: graph.model.graph.initializers[name].const_value for name in graph.masks}
    graph.fuse("attention")
    for name in graph.masks:
        value = graph.model.graph.initializers[name]
        ((node, index),) = value.uses()
        assert (node.op_type, index) == ("MatMul", 1)
        np.testing.assert_array_equal(value.const_value.numpy(), stored[name].numpy())


def test_a_mask_of_another_shape_is_left_alone(exported):
    graph = exported()
    for node in graph.model.graph:
        if node.op_type == "Softmax":
            scores = node.inputs[0].producer()
            extra = ir.node("ReduceMax", [scores.inputs[1]], attributes={"keepdims": 0})
            graph.model.graph.insert_before(scores, extra)
            scores.replace_input_with(1, extra.outputs[0])
    assert graph.fuse("attention") == {"attention": 0}
    assert graph.operators["Softmax"] == 2
