import json

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.artifacts.exported import StructureReport
from pipeline.artifacts.manifest import from_json, to_json
from tests.export.structure.encoders import (
    HEAD_SIZE,
    HEADS,
    NEURONS,
    OUTS,
    UPS,
    VALUES,
    assert_same_logits,
    exported,
    is_down,
    logits,
    matrices,
    pruned,
    remove,
)

pytestmark = pytest.mark.usefixtures("traced_once")

MODEL_TYPES = ["bert", "roberta", "distilbert", "electra", "mpnet", "deberta-v2"]
# Their heads cannot go: a bias for each head; more products than attention has elsewhere.
FIXED_HEADS = ("mpnet", "deberta-v2")


def some_of_each(model: bytes) -> dict[str, np.ndarray]:
    """Masks that leave 3 neurons and 2 heads of each layer empty: half one way, half the other."""
    masks = {}
    generator = np.random.default_rng(0)
    for name, matrix in matrices(onnx.ModelProto.FromString(model)).items():
        mask = generator.random(matrix.shape) < 0.5
        if name.endswith(VALUES):
            mask[:, :HEAD_SIZE] = False
        elif name.endswith(OUTS):
            mask[-HEAD_SIZE:] = False
        elif name.endswith(UPS):
            mask[:, [0, 20]] = False
        elif is_down(name):
            mask[[-1]] = False
        masks[name] = mask
    return masks


@pytest.mark.parametrize(
    ("model_type", "opset"), [*((name, 20) for name in MODEL_TYPES), ("bert", 18), ("bert", 23)]
)
def test_each_architecture_gives_the_same_logits_with_less(model_type: str, opset: int):
    model = exported(model_type, opset)
    before = pruned(model, some_of_each(model))
    after, removal = remove(before)
    assert_same_logits(before, after)
    report = removal.report
    assert report.neurons == {"0": 3, "1": 3}
    assert report.neurons_before == 2 * NEURONS
    if model_type in FIXED_HEADS:
        assert (report.heads, report.heads_before) == ({}, 0)
    else:
        assert (report.heads, report.heads_before) == ({"0": 2, "1": 2}, 2 * HEADS)
    sizes = [sum(array.size for array in matrices(graph).values()) for graph in (before, after)]
    assert report.weights == sizes[0] - sizes[1] > 0


@st.composite
def emptiness(draw: st.DrawFn, rows: int, blocks: int) -> np.ndarray:
    """Which of ``rows`` features stay: any, whole blocks, none, all, all but one."""
    kind = draw(st.sampled_from(["all", "none", "blocks", "one", "any"]))
    if kind == "blocks":
        kept = draw(st.lists(st.booleans(), min_size=blocks, max_size=blocks))
        return np.repeat(np.array(kept), rows // blocks)
    if kind == "any":
        return np.random.default_rng(draw(st.integers(0, 99))).random(rows) < 0.5
    stays = np.full(rows, kind == "all")
    if kind == "one":
        stays[draw(st.integers(0, rows - 1))] = True
    return stays


@st.composite
def any_masks(draw: st.DrawFn) -> dict[str, np.ndarray]:
    """Masks of every emptiness for the two-layer BERT."""
    density = draw(st.sampled_from([0.05, 0.5, 1.0]))
    generator = np.random.default_rng(draw(st.integers(0, 99)))
    masks = {}
    for name, matrix in matrices(onnx.ModelProto.FromString(exported("bert"))).items():
        mask = generator.random(matrix.shape) < density
        if name.endswith(UPS):
            mask &= draw(emptiness(NEURONS, 16))
        elif is_down(name):
            mask &= draw(emptiness(NEURONS, 16))[:, None]
        elif name.endswith(OUTS):
            mask &= draw(emptiness(HEADS * HEAD_SIZE, HEADS))[:, None]
        else:  # query and key too: they never make a head empty
            mask &= draw(emptiness(HEADS * HEAD_SIZE, HEADS))
        masks[name] = mask
    return masks


def expected_kept(masks: dict[str, np.ndarray]) -> dict[str, tuple]:
    """The features that stay, from the masks alone."""
    kept: dict[str, tuple] = {}
    for layer in range(2):
        path = f"encoder.layer.{layer}"
        query, key, value, out, up, down = (
            f"{path}.{part}.weight"
            for part in (
                *(f"attention.self.{part}" for part in ("query", "key", "value")),
                *("attention.output.dense", "intermediate.dense", "output.dense"),
            )
        )
        features = [
            head * HEAD_SIZE + i
            for head in range(HEADS)
            for i in range(HEAD_SIZE)
            if any(
                masks[value][:, head * HEAD_SIZE + j].any()
                and masks[out][head * HEAD_SIZE + j].any()
                for j in range(HEAD_SIZE)
            )
        ] or list(range(HEAD_SIZE))
        if len(features) < HEADS * HEAD_SIZE:
            kept |= dict.fromkeys((query, key, value), (features, None))
            kept[out] = (None, features)
        neurons = [j for j in range(NEURONS) if masks[up][:, j].any() and masks[down][j].any()]
        if len(neurons) < NEURONS:
            kept |= {up: (neurons or [0], None), down: (None, neurons or [0])}
    return kept


@pytest.mark.parametrize("opset", [18, 20, 23])
@settings(max_examples=25, deadline=None)
@given(masks=any_masks())
def test_masks_of_every_emptiness_lose_just_that(opset: int, masks: dict[str, np.ndarray]):
    before = pruned(exported("bert", opset), masks)
    after, removal = remove(before)
    expected = logits(before)
    np.testing.assert_allclose(
        logits(after), expected, rtol=0, atol=1e-5 * max(1.0, np.abs(expected).max())
    )
    kept = {
        name: tuple(None if indices is None else indices.tolist() for indices in both)
        for name, both in removal.kept.items()
    }
    assert kept == expected_kept(masks)
    stored = matrices(after)
    for name, matrix in matrices(before).items():
        outputs, inputs = removal.kept.get(name, (None, None))
        rows = np.arange(matrix.shape[0]) if inputs is None else inputs
        columns = np.arange(matrix.shape[1]) if outputs is None else outputs
        np.testing.assert_array_equal(stored[name], matrix[np.ix_(rows, columns)])


def test_an_encoder_without_any_weights_is_still_a_valid_graph():
    model = exported("bert")
    zeros = {
        name: np.zeros_like(matrix)
        for name, matrix in matrices(onnx.ModelProto.FromString(model)).items()
    }
    before = pruned(model, zeros)
    after, removal = remove(before)
    np.testing.assert_allclose(logits(after), logits(before), rtol=0, atol=1e-5)
    report = removal.report
    assert report.neurons == {"0": NEURONS - 1, "1": NEURONS - 1}
    assert report.heads == {"0": HEADS - 1, "1": HEADS - 1}
    assert {matrix.shape for matrix in matrices(after).values()} == {
        *[(32, HEAD_SIZE), (HEAD_SIZE, 32)],
        *[(32, 1), (1, 32)],
    }


def test_biases_that_the_file_stores_once_are_changed_for_one_layer_alone():
    # A fresh BERT's biases are zero, all of them one initializer; LayerNorm reads it too.
    model = exported("bert", biases="zero")
    before = pruned(model, some_of_each(model))
    shared = {node.input[1] for node in before.graph.node if node.op_type == "Add"}
    assert any("LayerNorm.bias" in name for name in shared)
    after, removal = remove(before)
    assert removal.report.heads == {"0": 2, "1": 2}
    assert_same_logits(before, after)


def test_where_nothing_is_empty_nothing_changes():
    before = pruned(exported("bert"), {})
    after, removal = remove(before)
    assert removal.kept == {}
    assert removal.report == StructureReport({}, 2 * NEURONS, {}, 2 * HEADS, 0)
    assert after.SerializeToString(deterministic=True) == before.SerializeToString(
        deterministic=True
    )


def test_nodes_stay_and_a_second_pass_finds_nothing():
    model = exported("bert")
    before = pruned(model, some_of_each(model))
    after, _ = remove(before)
    operators = [[node.op_type for node in graph.graph.node] for graph in (before, after)]
    assert operators[0] == operators[1]
    assert len(after.graph.initializer) == len(before.graph.initializer)
    assert after.ByteSize() < before.ByteSize()
    again, removal = remove(after)
    assert removal.kept == {}
    assert removal.report.neurons_before == 2 * (NEURONS - 3)
    assert removal.report.heads_before == 2 * (HEADS - 2)
    assert again == after


def test_the_report_survives_the_manifest(tmp_path):
    model = exported("bert")
    _, removal = remove(pruned(model, some_of_each(model)))
    content = json.loads(json.dumps(to_json(removal.report)))
    assert from_json(StructureReport, content, source=tmp_path) == removal.report
    assert removal.report.summary().startswith("6 of 128 neurons and 4 of 8 attention heads")
