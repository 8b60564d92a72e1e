"""Encoded tables give numpy's rows bit for bit, and stay small in ONNX Runtime."""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps

from export.embeddings import EncodeEmbeddings
from export.engine import convert
from export.quantise import quantise
from pipeline.errors import ModelError

pytestmark = pytest.mark.usefixtures("traced_once")

ROWS, COLUMNS = 40, 8
DTYPES = {"fp16": onnx.TensorProto.FLOAT16, "int8": onnx.TensorProto.INT8}


def random_table(rows: int = ROWS, columns: int = COLUMNS, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, columns)).astype(np.float32)


def rounded(table: np.ndarray, values: str) -> np.ndarray:
    """What is left of a table, in numpy."""
    if values == "fp16":
        return table.astype(np.float16).astype(np.float32)
    rows, scales = quantise(table)
    return rows.astype(np.float32) * scales[:, None]


def make_model(body: str, tables: dict[str, np.ndarray], outputs: str = "float[b, s, c] y"):
    text = f"""<ir_version: 9, opset_import: ["" : 20]>
        g (int64[b, s] ids) => ({outputs}) {{ {body} }}"""
    proto = onnx.parser.parse_model(text)
    for name, table in tables.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(table, name))
    return ir.from_proto(proto)


def encode(model: ir.Model, values: str) -> tuple[onnx.ModelProto, dict[str, str]]:
    encoding = EncodeEmbeddings(values)
    result = encoding(model)
    assert result.modified == bool(encoding.encoded)
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    return proto, encoding.encoded


def run(proto: onnx.ModelProto, ids: np.ndarray, optimised: Path | None = None) -> list[np.ndarray]:
    options = ort.SessionOptions()
    if optimised is not None:
        options.optimized_model_filepath = str(optimised)
        options.log_severity_level = 3
    session = ort.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"ids": ids})


def stored_types(proto: onnx.ModelProto) -> dict[str, int]:
    return {tensor.name: tensor.data_type for tensor in proto.graph.initializer}


finite = st.floats(-60000, 60000, width=32)
tables = nps.arrays(
    np.float32,
    st.tuples(st.integers(16, 40), st.integers(1, 9)),
    elements=st.one_of(finite, st.floats(-(2.0**-120), 2.0**-120, width=32), st.just(0.0)),
)


@pytest.mark.parametrize("values", ["fp16", "int8"])
@settings(max_examples=60, deadline=None)
@given(table=tables, ids=nps.arrays(np.int64, (3, 5), elements=st.integers(0, 15)))
def test_rows_are_numpys_bit_for_bit(values: str, table: np.ndarray, ids: np.ndarray) -> None:
    proto, encoded = encode(make_model("y = Gather(table, ids)", {"table": table}), values)
    assert encoded == {"table": values}
    (rows,) = run(proto, ids)
    np.testing.assert_array_equal(rows, rounded(table, values)[ids])


@pytest.mark.parametrize("values", ["fp16", "int8"])
def test_a_lookup_that_is_read_twice_and_is_an_output(values: str) -> None:
    table = random_table()
    model = make_model(
        "rows = Gather(table, ids)\nneg = Neg(rows)\ny = Mul(neg, rows)",
        {"table": table},
        "float[b, s, c] y, float[b, s, c] rows",
    )
    ids = np.array([[0, 39, -1]])
    squares, rows = run(encode(model, values)[0], ids)
    np.testing.assert_array_equal(rows, rounded(table, values)[ids])
    np.testing.assert_array_equal(squares, -(rows * rows))


@pytest.mark.parametrize("values", ["fp16", "int8"])
def test_several_lookups_share_one_stored_table(values: str) -> None:
    table = random_table()
    model = make_model(
        """one = Constant<value = int64 {1}>()
        next = Add(ids, one)
        first = Gather(table, ids)
        second = Gather<axis = -2>(table, next)
        y = Sub(first, second)""",
        {"table": table},
    )
    proto, encoded = encode(model, values)
    assert encoded == {"table": values}
    assert stored_types(proto)["table"] == DTYPES[values]
    assert len(proto.graph.initializer) == (1 if values == "fp16" else 2)
    ids = np.array([[0, 7, 38]])
    expected = rounded(table, values)
    np.testing.assert_array_equal(run(proto, ids)[0], expected[ids] - expected[ids + 1])


@pytest.mark.parametrize("values", ["fp16", "int8"])
def test_a_lookup_inside_of_a_branch(values: str) -> None:
    table = random_table()
    model = make_model(
        """shape = Shape<start = 1>(ids)
        one = Constant<value_ints = [1]>()
        many = Greater(shape, one)
        scalar = Squeeze(many)
        y = If (scalar) <
            then_branch = t () => (float[b, s, c] then) { then = Gather(table, ids) },
            else_branch = e () => (float[b, s, c] other) {
                rows = Gather(table, ids)
                other = Neg(rows)
            }
        >""",
        {"table": table},
    )
    proto, encoded = encode(model, values)
    assert encoded == {"table": values}
    expected = rounded(table, values)
    np.testing.assert_array_equal(run(proto, np.array([[3, 5]]))[0], expected[[[3, 5]]])
    np.testing.assert_array_equal(run(proto, np.array([[3]]))[0], -expected[[[3]]])


@pytest.mark.parametrize(
    ("body", "shape"),
    [
        ("rows = Gather(table, ids)\nt = Transpose(table)\ny = MatMul(rows, t)", (40, 8)),
        ("y = Gather<axis = 1>(table, ids)", (40, 8)),
        # Rows of constant numbers are computed when the session opens.
        (
            """fixed = Constant<value = int64[1, 2] {3, 5}>()
            rows = Gather(table, fixed)
            one = Gather(ids, fixed)
            y = Expand(rows, one)""",
            (40, 8),
        ),
        ("y = Gather(table, ids)", (15, 8)),
        ("y = Gather(table, ids)", (40, 2, 3)),
        ("y = GatherElements(table, ids)", (40, 8)),
    ],
    ids=["also multiplied", "columns", "constant rows", "few rows", "three axes", "elements"],
)
def test_other_tables_stay(body: str, shape: tuple[int, ...]) -> None:
    table = np.zeros(shape, np.float32)
    encoding = EncodeEmbeddings("fp16")
    model = make_model(body, {"table": table}, "float y")
    before = ir.to_proto(model)
    assert not encoding(model).modified
    assert not encoding.encoded
    assert ir.to_proto(model) == before


def test_a_table_that_a_caller_may_replace_stays() -> None:
    model = make_model("y = Gather(table, ids)", {"table": random_table()})
    model.graph.inputs.append(model.graph.initializers["table"])
    assert encode(model, "int8")[1] == {}


@pytest.mark.parametrize(
    ("values", "weight", "message"),
    [
        ("fp16", 65520.0, "table cannot be stored: .* float16's range; use --embeddings"),
        ("fp16", np.inf, "table cannot be stored: it has values that are not"),
        ("int8", np.nan, "table cannot be stored: it has values that are not"),
    ],
)
def test_what_cannot_be_stored_is_refused(values: str, weight: float, message: str) -> None:
    table = random_table()
    table[3, 4] = weight
    with pytest.raises(ModelError, match=message):
        encode(make_model("y = Gather(table, ids)", {"table": table}), values)


ENCODER = """
    words = Gather(word, ids)
    shape = Shape(ids)
    zero = Constant<value = int64 {0}>()
    one = Constant<value = int64 {1}>()
    length = Gather(shape, one)
    steps = Range(zero, length, one)
    places = Gather(position, steps)
    states = Add(words, places)
    y = LayerNormalization(states, gain)
"""


@pytest.mark.parametrize("values", ["fp16", "int8"])
def test_onnxruntime_keeps_the_small_tables(values: str, tmp_path: Path) -> None:
    tables = {"word": random_table(300, 16), "position": random_table(64, 16, seed=1)}
    gain = {"gain": np.ones(16, np.float32)}
    proto, encoded = encode(make_model(ENCODER, {**tables, **gain}), values)
    assert encoded == dict.fromkeys(tables, values)
    ids = np.array([[5, 299, 17]])
    (y,) = run(proto, ids, tmp_path / "optimised.onnx")
    optimised = onnx.load(tmp_path / "optimised.onnx")
    types = stored_types(optimised)
    assert [types[name] for name in tables] == [DTYPES[values]] * 2
    floats = [
        np.prod(tensor.dims)
        for tensor in optimised.graph.initializer
        if tensor.data_type == onnx.TensorProto.FLOAT
    ]
    assert max(floats) <= 300  # the scales, one a row
    plain = {name: rounded(table, values) for name, table in tables.items()}
    (expected,) = run(ir.to_proto(make_model(ENCODER, {**plain, **gain})), ids)
    np.testing.assert_allclose(y, expected, atol=1e-5)


@pytest.mark.parametrize("values", ["fp16", "int8"])
def test_the_file_has_one_or_two_bytes_a_weight(values: str) -> None:
    table = random_table(1000, 64)
    proto, _ = encode(make_model("y = Gather(table, ids)", {"table": table}), values)
    scales = 4 * 1000 if values == "int8" else 0
    expected = table.size * {"fp16": 2, "int8": 1}[values] + scales
    assert expected < proto.ByteSize() < expected + 1000


@pytest.mark.parametrize("values", ["fp16", "int8"])
def test_the_engine_finds_the_encoder_behind_encoded_tables(values: str, random_run: Path) -> None:
    from export.graph import export_graph, graph_inputs
    from pipeline.artifacts.run import read_run
    from pipeline.artifacts.trained import load_run

    trained = load_run(random_run, read_run(random_run), model=None)
    inputs = graph_inputs(trained.tokenizer.model_input_names, trained.classifier)
    model = export_graph(trained.classifier, tuple(trained.masks), inputs, 20)
    plain = convert(ir.to_proto(model), values="int8", compute="int8")
    proto, encoded = encode(model, values)
    assert set(encoded) == {f"embeddings.{name}_embeddings.weight" for name in ("word", "position")}
    converted = convert(proto, values="int8", compute="int8")
    assert converted.report == plain.report
    assert converted.report.encoder_layers == 2
    types = stored_types(converted.model)
    assert {types[name] for name in encoded} == {DTYPES[values]}
    operators, before = (
        Counter(node.op_type for node in each.model.graph.node) for each in (converted, plain)
    )
    decoders = {"fp16": {"Cast": 2}, "int8": {"Cast": 2, "Mul": 2, "Gather": 2}}
    assert operators - before == Counter(decoders[values])
