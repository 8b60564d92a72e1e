import pytest

pytestmark = pytest.mark.usefixtures("traced_once")


@pytest.mark.parametrize("opset", [18, 20, 23])
def test_sum_bias_and_normalisation_become_one_operator(opset, exported):
    graph = exported(opset=opset)
    before = graph.operators
    assert before["LayerNormalization"] == 5
    assert graph.fuse("skip-layer-norm") == {"skip-layer-norm": 4}
    after = graph.operators
    assert after["SkipLayerNormalization"] == 4
    assert after["LayerNormalization"] == 1  # of the embeddings
    # Twice a layer, the bias and the residual.
    assert before["Add"] - after["Add"] == 8
    graph.assert_valid()
    graph.assert_parity()


def test_the_operator_has_the_bias_and_no_output_that_nobody_reads(exported):
    graph = exported()
    graph.fuse("skip-layer-norm")
    for node in graph.model.graph:
        if node.op_type == "SkipLayerNormalization":
            assert node.inputs[0].producer().op_type == "MatMul"
            assert [value.name for value in node.inputs[2:]] == [
                value.name for value in node.inputs[2:] if value.is_initializer()
            ]
            assert len(node.inputs) == 5
            assert len(node.outputs) == 1
