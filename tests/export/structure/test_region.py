import numpy as np
import onnx
import onnx_ir as ir
import pytest

from export.structure.linears import find_linears
from export.structure.region import Region, find_region, is_close

LAYERS = "m = MatMul(x, w1) u = Add(m, b1) {between} n = MatMul(a, w2) y = Add(n, b2)"


def region(between: str, outputs: str = "float[n, t, 4] y") -> Region | None:
    """What lies between two linear layers, from u to a."""
    model = onnx.parser.parse_model(
        f"""
        <ir_version: 10, opset_import: ["" : 20]>
        two (float[n, t, 4] x, float[n, t, 4] z, bool c) => ({outputs})
        {{ {LAYERS.format(between=between)} }}
        """
    )
    for name, shape in {"w1": (4, 4), "b1": 4, "w2": (4, 4), "b2": 4}.items():
        model.graph.initializer.append(
            onnx.numpy_helper.from_array(np.ones(shape, np.float32), name)
        )
    graph = ir.from_proto(model).graph
    by_output = {linear.output: linear for linear in find_linears(graph, ["w1", "w2"])}
    order = {node: position for position, node in enumerate(graph)}
    (reader,) = [linear for linear in by_output.values() if linear.name == "w2"]
    return find_region(reader, by_output, order, graph.opset_imports)


def test_a_region_has_all_between_two_linear_layers_and_runs():
    found = region("r = Relu(u) s = Mul(r, z) e = Exp(z) a = Add(s, e)")
    assert found is not None
    assert [node.op_type for node in found.nodes] == ["Relu", "Mul", "Exp", "Add"]
    assert [source.name for source in found.sources] == ["w1"]
    assert [value.name for value in found.inputs] == ["z"]
    run = found.open()
    assert run is not None
    u, z = np.full((1, 2, 4), -3, np.float32), np.zeros((1, 2, 4), np.float32)
    np.testing.assert_array_equal(run({"u": u + 5, "z": z + 1})[0], np.full(u.shape, 2 + np.e, "f"))


@pytest.mark.parametrize(
    ("between", "outputs"),
    [
        ("a = Relu(u)", "float[n, t, 4] y, float[n, t, 4] u"),
        ("a = Relu(u)", "float[n, t, 4] y, float[n, t, 4] a"),
        ("a = Relu(u) k = Exp(u)", "float[n, t, 4] y, float[n, t, 4] k"),
        ("r = Relu(u) a = Exp(r) k = Shape(r)", "float[n, t, 4] y, int64[3] k"),
        ("a = Relu(z) k = Exp(u)", "float[n, t, 4] y, float[n, t, 4] k"),
        (
            "a = If(c) <then_branch = yes () => (float[n, t, 4] p) { p = Relu(u) }, "
            "else_branch = no () => (float[n, t, 4] q) { q = Exp(u) }>",
            "float[n, t, 4] y",
        ),
    ],
    ids=[
        *("source given out", "result given out", "source read elsewhere", "shape read elsewhere"),
        *("no source", "a graph inside"),
    ],
)
def test_what_others_see_or_nobody_can_see_through_is_no_region(between: str, outputs: str):
    assert region(between, outputs) is None


@pytest.mark.parametrize(("length", "found"), [(100, True), (300, False)])
def test_a_large_part_of_the_graph_is_no_region(length: int, found: bool):
    chain = " ".join(f"v{i + 1} = Relu(v{i})" for i in range(length))
    between = f"v0 = Relu(u) {chain} a = Relu(v{length})"
    assert (region(between) is not None) == found


def test_results_are_close_if_only_rounding_differs():
    one = np.ones((2, 3), np.float32)
    assert is_close(one, one * np.float32(1 + 1e-6))
    assert not is_close(one, one * np.float32(1 + 1e-4))
    assert not is_close(one, one[:1])
    assert not is_close(one * np.nan, one * np.nan)
