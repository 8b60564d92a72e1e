import pytest

pytestmark = pytest.mark.usefixtures("traced_once")

TYPED = ("input_ids", "token_type_ids", "attention_mask")
# Architecture, inputs, and how many tables are summed up.
CASES = [
    ("bert", ("input_ids", "attention_mask"), 3),
    ("bert", TYPED, 3),
    ("distilbert", ("input_ids", "attention_mask"), 2),
]


@pytest.mark.parametrize(("model_type", "inputs", "tables"), CASES)
def test_lookups_and_normalisation_become_one_operator(model_type, inputs, tables, exported):
    graph = exported(model_type, inputs=inputs)
    before = graph.operators
    assert graph.fuse("embed-layer-norm") == {"embed-layer-norm": 1}
    after = graph.operators
    assert after["EmbedLayerNormalization"] == 1
    assert before["Gather"] - after["Gather"] == tables
    assert before["LayerNormalization"] - after["LayerNormalization"] == 1
    graph.assert_valid()
    graph.assert_parity()


def test_opsets_18_and_23_get_it_too(exported):
    for opset in (18, 23):
        graph = exported(opset=opset)
        assert graph.fuse("embed-layer-norm") == {"embed-layer-norm": 1}
        graph.assert_parity()
