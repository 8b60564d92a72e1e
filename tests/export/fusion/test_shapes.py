from export.fusion.shapes import dimensions, shapes_known


def shapes(model) -> dict[str, list[object]]:
    found: dict[str, list[object]] = {}
    for node in model.graph:
        found.setdefault(node.op_type, []).append(dimensions(node.outputs[0]))
    return found


def test_dimensions_are_named_after_those_of_the_inputs(exported):
    graph = exported()
    with shapes_known(graph.model):
        found = shapes(graph.model)
    assert set(found["LayerNormalization"]) == {("batch", "sequence", 32)}
    assert set(found["Softmax"]) == {("batch", 4, "sequence", "sequence")}
    assert found["Reshape"][0] == ("batch", "sequence", 4, 8)
    # The mask, whose length comes out of Range.
    assert found["GatherND"] == [("batch", 1, 1, "sequence")]
    assert found["Gelu"] == [("batch", "sequence", 64)] * 2


def test_nothing_of_it_stays(exported):
    graph = exported()
    with shapes_known(graph.model):
        pass
    inner = [value for node in graph.model.graph for value in node.outputs]
    assert all(value.shape is None for value in inner if not value.is_graph_output())
    (logits,) = graph.model.graph.outputs
    assert dimensions(logits) == ("batch", None)
    assert [dimensions(value) for value in graph.model.graph.inputs] == [("batch", "sequence")] * 2
