import itertools

import onnx_ir as ir
import pytest

pytestmark = pytest.mark.usefixtures("traced_once")

NAMES = ("attention", "skip-layer-norm", "gelu", "embed-layer-norm")
FOUND = {"attention": 2, "skip-layer-norm": 4, "gelu": 2, "embed-layer-norm": 1}


@pytest.mark.parametrize(
    "names", [names for count in (2, 3, 4) for names in itertools.combinations(NAMES, count)]
)
def test_fusions_do_not_get_in_each_others_way(names, exported):
    graph = exported()
    assert graph.fuse(*names) == {name: FOUND[name] for name in names}
    graph.assert_valid()
    graph.assert_parity()


# Attention with relative positions stays as it is, and so does a table alone. Where positions are
# looked up for each text, the sum of embeddings is one more residual to skip-layer-norm alone.
@pytest.mark.parametrize(
    ("model_type", "others", "residuals"),
    [
        ("roberta", {}, 5),
        ("distilbert", {}, 4),
        ("electra", {}, 4),
        ("mpnet", {"attention": 0}, 5),
        ("deberta-v2", {"attention": 0, "embed-layer-norm": 0}, 4),
    ],
)
def test_each_and_all_of_them_keep_the_parity_of_every_architecture(
    model_type, others, residuals, exported
):
    together = {**FOUND, **others}
    alone = {**together, "skip-layer-norm": residuals}
    for names, found in (*(((name,), alone) for name in NAMES), (NAMES, together)):
        graph = exported(model_type)
        before = graph.operators
        assert graph.fuse(*names) == {name: found[name] for name in names}
        if graph.operators != before:
            graph.assert_valid()
            graph.assert_parity()


@pytest.mark.parametrize("opset", [18, 23])
def test_all_of_them_are_found_at_every_opset(opset, exported):
    graph = exported(opset=opset)
    assert graph.fuse(*NAMES) == FOUND
    graph.assert_valid()
    graph.assert_parity()


def test_the_domain_is_imported_when_it_is_used(exported):
    graph = exported()
    assert graph.fuse() == {}
    assert graph.model.opset_imports == {"": 20}
    graph.fuse("gelu")
    assert graph.model.opset_imports == {"": 20, "com.microsoft": 1}


def test_the_same_graph_gives_the_same_bytes_and_no_shapes(exported):
    files = []
    for _ in range(2):
        graph = exported()
        graph.fuse(*NAMES)
        proto = ir.to_proto(graph.model)
        stored = {tensor.name for tensor in proto.graph.initializer}
        assert {value.name for value in proto.graph.value_info} <= stored
        names = [name for node in proto.graph.node for name in node.output]
        assert len(set(names)) == len(names)
        files.append(proto.SerializeToString(deterministic=True))
    assert files[0] == files[1]


def test_an_unknown_name_is_refused(exported):
    with pytest.raises(KeyError, match="gelus"):
        exported().fuse("gelus")
