import numpy as np
import onnx
import pytest

from tests.export.structure.encoders import logits, remove

HIDDEN = 12
HEADS = 3
SIZE = 4
TOKENS = "[batch, sequence]"

SPLIT = """
    q4 = Reshape(q, heads) qt = Transpose<perm = [0, 2, 1, 3]>(q4)
    k4 = Reshape(k, heads) kt = Transpose<perm = [0, 2, 3, 1]>(k4)
    v4 = Reshape(v, heads) vt = Transpose<perm = [0, 2, 1, 3]>(v4)
    raw = MatMul(qt, kt) scores = Mul(raw, scale)
"""
MASK = """
    there = Cast<to = 9>(attention_mask) wide = Unsqueeze(there, middle)
    mask = Where(wide, zero, far) masked = Add(scores, mask)
"""
WEIGHTS = "weights = Softmax<axis = -1>(masked)"
MERGE = """
    result = MatMul(weights, vt) rt = Transpose<perm = [0, 2, 1, 3]>(result)
    merged = Reshape(rt, flat)
"""
USUAL = SPLIT + MASK + WEIGHTS + MERGE


def attention(between: str = USUAL, *, heads: str = "0, 0, -1, 4", flat: str = "0, 0, -1"):
    """Three linear layers, what is between, and a fourth; every head has random weights."""
    model = onnx.parser.parse_model(
        f"""
        <ir_version: 10, opset_import: ["" : 20]>
        attention (float[batch, sequence, {HIDDEN}] x, int64{TOKENS} attention_mask)
            => (float[batch, sequence, {HIDDEN}] y)
        <int64[4] heads = {{{heads}}}, int64[3] flat = {{{flat}}}, float scale = {{0.5}},
         int64[2] middle = {{1, 2}}, float zero = {{0}}, float far = {{-1e9}},
         int64 one = {{1}}, float[1, 3, 1, 1] by_head = {{1, 2, 3}}>
        {{
            qm = MatMul(x, wq) q = Add(qm, bq)
            km = MatMul(x, wk) k = Add(km, bk)
            vm = MatMul(x, wv) v = Add(vm, bv)
            {between}
            om = MatMul(merged, wo) y = Add(om, bo)
        }}
        """
    )
    generator = np.random.default_rng(0)
    for name in "qkvo":
        matrix = generator.standard_normal((HIDDEN, HIDDEN)).astype(np.float32)
        bias = generator.standard_normal(HIDDEN).astype(np.float32)
        long = f"a.layer.2.{name}.weight"
        for node in model.graph.node:
            node.input[:] = [long if given == f"w{name}" else given for given in node.input]
        model.graph.initializer.append(onnx.numpy_helper.from_array(matrix, long))
        model.graph.initializer.append(onnx.numpy_helper.from_array(bias, f"b{name}"))
    return model


def empty(model: onnx.ModelProto, *, values: list[int] = (), outs: list[int] = ()):
    """Set these features of the value, and these that the last layer reads, to zero."""
    for tensor in model.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor).copy()
        if tensor.name == "a.layer.2.v.weight":
            array[:, list(values)] = 0
        elif tensor.name == "a.layer.2.o.weight":
            array[list(outs)] = 0
        tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    return model


def feeds(lengths=(5, 2, 1)) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(1)
    kept = np.arange(5) < np.array(lengths)[:, None]
    return {
        "x": generator.standard_normal((len(lengths), 5, HIDDEN)).astype(np.float32),
        "attention_mask": kept.astype(np.int64),
    }


def head(index: int) -> list[int]:
    return list(range(index * SIZE, (index + 1) * SIZE))


@pytest.mark.parametrize(
    ("values", "outs", "stay"),
    [
        (head(0), [], [1, 2]),
        ([], head(2), [0, 1]),
        (head(1), head(1), [0, 2]),
        (head(0), head(1), [2]),
        # Each feature of head 1 is constant or not read.
        ([4, 5], [6, 7], [0, 2]),
        ([4, 5], [6], [0, 1, 2]),
        (range(HIDDEN), [], [0]),
    ],
    ids=["value", "out", "both", "one each", "feature by feature", "but a feature", "all"],
)
def test_empty_heads_go(values, outs, stay):
    before = empty(attention(), values=values, outs=outs)
    after, removal = remove(before)
    np.testing.assert_allclose(logits(after, feeds()), logits(before, feeds()), rtol=0, atol=5e-6)
    assert removal.report.heads == ({"2": HEADS - len(stay)} if len(stay) < HEADS else {})
    assert removal.report.heads_before == HEADS
    features = [feature for index in stay for feature in head(index)]
    for name, (outputs, inputs) in removal.kept.items():
        assert (outputs if inputs is None else inputs).tolist() == features
        assert (outputs is None) == (name == "a.layer.2.o.weight")
    assert len(removal.kept) == (4 if len(stay) < HEADS else 0)


VARIANTS = {
    "no mask": SPLIT + "masked = Identity(scores)" + WEIGHTS + MERGE,
    "masked by Where": SPLIT
    + MASK.replace("Where(wide, zero, far)", "Where(wide, scores, far)").replace(
        "masked = Add(scores, mask)", "masked = Identity(mask)"
    )
    + WEIGHTS
    + MERGE,
    "causal": SPLIT
    + """
        extent = Shape(scores) full = Expand(far, extent)
        later = Trilu<upper = 1>(full, one) masked = Add(scores, later)
    """
    + WEIGHTS
    + MERGE,
}


@pytest.mark.parametrize("between", VARIANTS.values(), ids=VARIANTS)
def test_attention_is_told_by_what_it_computes(between):
    before = empty(attention(between), values=head(1))
    after, removal = remove(before)
    assert removal.report.heads == {"2": 1}
    np.testing.assert_allclose(logits(after, feeds()), logits(before, feeds()), rtol=0, atol=5e-6)


LEFT = {
    "a number for each head": USUAL.replace("Mul(raw, scale)", "Mul(raw, by_head)"),
    "weights that sum up to another number": USUAL.replace(
        "result = MatMul(weights", "half = Mul(weights, scale) result = MatMul(half"
    ),
    "heads that see each other": USUAL.replace("Softmax<axis = -1>", "Softmax<axis = 1>"),
    "scores divided by the number of heads": USUAL.replace(
        "scores = Mul(raw, scale)",
        "count = Shape<start = 1, end = 2>(raw) n = Cast<to = 1>(count) scores = Div(raw, n)",
    ),
    "something added to the result": USUAL.replace(
        "merged = Reshape(rt, flat)", "sum = Reshape(rt, flat) merged = Add(sum, x)"
    ),
    "features in another order": USUAL.replace(
        "rt = Transpose<perm = [0, 2, 1, 3]>", "rt = Transpose<perm = [0, 2, 3, 1]>"
    ),
}


@pytest.mark.parametrize("between", LEFT.values(), ids=LEFT)
def test_what_is_no_plain_attention_is_left_alone(between):
    before = empty(attention(between), values=head(1))
    after, removal = remove(before)
    assert removal.kept == {}
    assert removal.report.heads_before == 0
    np.testing.assert_array_equal(logits(after, feeds()), logits(before, feeds()))


@pytest.mark.parametrize(
    "shapes",
    [{"heads": "0, 0, 3, 4"}, {"flat": "0, 0, 12"}, {"heads": "0, 0, 3, -1"}],
    ids=["heads", "features", "heads, of any size"],
)
def test_a_graph_that_holds_the_number_of_heads_is_left_alone(shapes):
    before = empty(attention(**shapes), values=head(1))
    after, removal = remove(before)
    assert removal.kept == {}
    np.testing.assert_array_equal(logits(after, feeds()), logits(before, feeds()))


def test_a_text_of_padding_only_is_the_exception():
    guarded = SPLIT + MASK.replace("far", "minus_infinity") + WEIGHTS.replace("weights", "may_be")
    guarded += "nan = IsNaN(may_be) weights = Where(nan, zero, may_be)" + MERGE
    before = empty(attention(guarded), values=head(1))
    infinity = np.array(-np.inf, np.float32)
    before.graph.initializer.append(onnx.numpy_helper.from_array(infinity, "minus_infinity"))
    after, removal = remove(before)
    assert removal.report.heads == {"2": 1}
    expected, found = (logits(model, feeds((5, 0))) for model in (before, after))
    np.testing.assert_allclose(found[0], expected[0], rtol=0, atol=5e-6)
    # Attention to nothing is zero, not the value's bias, which is in the last bias now.
    tensors = {
        tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in before.graph.initializer
    }
    added = tensors["bv"][head(1)] @ tensors["a.layer.2.o.weight"][head(1)]
    np.testing.assert_allclose(found[1] - expected[1], np.tile(added, (5, 1)), rtol=0, atol=5e-6)
