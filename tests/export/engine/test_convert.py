"""Whole graphs: what is found, and that the rewritten graph computes the same."""

from collections import Counter

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from torch import nn
from transformers import (
    AutoModel,
    BertConfig,
    DebertaV2Config,
    DistilBertConfig,
    ElectraConfig,
    MPNetConfig,
    RobertaConfig,
)

from export.encodings import encode_bitmap, encode_dense, encode_gaps
from export.engine import convert
from export.graph import export_graph
from export.packed_graph import EncodeWeights
from pipeline import native
from pipeline.artifacts.bake import apply_masks
from pipeline.artifacts.classifier import Head, TextClassifier
from pipeline.artifacts.run import HeadLayout
from pipeline.errors import ModelError

pytestmark = pytest.mark.usefixtures("traced_once")

SIZES = {
    "vocab_size": 64,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 40,
}
CONFIGS = {
    "bert": BertConfig(**SIZES),
    "roberta": RobertaConfig(**SIZES, pad_token_id=1),
    "distilbert": DistilBertConfig(
        vocab_size=64, dim=32, n_layers=2, n_heads=4, hidden_dim=64, max_position_embeddings=40
    ),
    "electra": ElectraConfig(**SIZES, embedding_size=16),
    "mpnet": MPNetConfig(**SIZES),
    "deberta-v2": DebertaV2Config(
        **SIZES,
        relative_attention=True,
        position_buckets=16,
        norm_rel_ebd="layer_norm",
        share_att_key=True,
        pos_att_type=["p2c", "c2p"],
        type_vocab_size=0,
        position_biased_input=False,
    ),
}
INPUTS = ("input_ids", "attention_mask")


def exported(model_type: str, opset: int = 20, pooling: str = "mean") -> tuple[ir.Model, list[str]]:
    """A random pruned classifier through our own exporter, and its pruned weights."""
    torch.manual_seed(0)
    encoder = AutoModel.from_config(CONFIGS[model_type])
    if hasattr(encoder, "pooler"):
        encoder.pooler = None
    layout = HeadLayout("linear", pooling, 32, 3)
    head = Head(layout)
    nn.init.normal_(head.output.weight)
    classifier = TextClassifier(encoder, head, layout).eval()
    generator = np.random.default_rng(0)
    masks = {
        name: generator.random(tuple(weight.shape)) < 0.2
        for name, weight in encoder.named_parameters()
        if weight.ndim == 2 and ".layer." in name
    }
    apply_masks(encoder, masks)
    return export_graph(classifier, masks, INPUTS, opset), list(masks)


def engine_nodes(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if node.domain == "smp"]


def settings_of(node: onnx.NodeProto) -> dict[str, object]:
    return {
        attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute
    }


def batches(names=INPUTS):
    generator = np.random.default_rng(1)
    for batch, sequence in ((1, 1), (2, 7), (3, 20)):
        kept = np.ones((batch, sequence), np.int64)
        kept[1:, sequence // 2 :] = 0
        ids = generator.integers(6, 50, (batch, sequence))
        yield {name: kept if name == "attention_mask" else ids for name in names}


def run_original(model: onnx.ModelProto, feeds):
    options = ort.SessionOptions()
    # Its optimiser quantises the activations before weights that are dequantised.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, feeds)


@pytest.mark.parametrize("opset", [18, 20, 23])
@pytest.mark.parametrize("model_type", ["bert", "roberta", "distilbert", "electra"])
def test_bert_like_encoders_become_one_operator(model_type, opset, run_reference):
    model, masks = exported(model_type, opset)
    original = ir.to_proto(model)
    converted = convert(original, values="fp32", compute="fp32")
    (node,) = engine_nodes(converted.model)
    facts = settings_of(node)
    assert node.op_type == "SmpEncoder"
    assert (facts["layers"], facts["heads"], facts["hidden"]) == (2, 4, 32)
    assert (facts["activation"], facts["compute"], facts["tokens"]) == (b"gelu", b"fp32", b"all")
    assert facts["scale"] == pytest.approx(8**-0.5)
    assert facts["epsilon"] == np.float32(1e-12)
    assert node.input[1] == "attention_mask"
    assert set(converted.encodings) == set(masks)
    names = {tensor.name for tensor in converted.model.graph.initializer}
    assert set(masks) <= names
    for feeds in batches():
        expected = run_original(original, feeds)[0]
        np.testing.assert_allclose(
            run_reference(converted.model, feeds)[0], expected, atol=2e-5, rtol=0
        )


def test_relative_positions_stay_and_their_linear_layers_do_not(run_reference):
    original = ir.to_proto(exported("mpnet")[0])
    converted = convert(original, values="fp32", compute="fp32")
    nodes = engine_nodes(converted.model)
    assert {node.op_type for node in nodes} == {"SmpLinear"}
    assert Counter(settings_of(node)["activation"] for node in nodes) == {b"none": 10, b"gelu": 2}
    # The two that end in residual and LayerNorm, in each layer.
    assert sum(len(node.input) == 6 for node in nodes) == 4
    assert {node.op_type for node in converted.model.graph.node} & {"Gelu", "Erf"} == set()
    for feeds in batches():
        expected = run_original(original, feeds)[0]
        np.testing.assert_allclose(
            run_reference(converted.model, feeds)[0], expected, atol=2e-5, rtol=0
        )


@pytest.mark.parametrize("model_type", CONFIGS)
@pytest.mark.parametrize("pooling", ["first", "mean"])
def test_the_library_computes_the_same(model_type, pooling, native_library):
    original = ir.to_proto(exported(model_type, pooling=pooling)[0])
    converted = convert(original, values="fp32", compute="fp32")
    options = ort.SessionOptions()
    native.register(options)
    session = ort.InferenceSession(
        converted.model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    for feeds in batches():
        expected = run_original(original, feeds)[0]
        np.testing.assert_allclose(session.run(None, feeds)[0], expected, atol=5e-5, rtol=0)


def test_a_packed_graph_is_the_same_as_a_dense_one():
    model, masks = exported("bert")
    dense = convert(ir.to_proto(model), values="int8", compute="int8").model
    EncodeWeights(masks, "fp32", packed=True)(model)
    packed = convert(ir.to_proto(model), values="int8", compute="int8").model
    assert list(packed.graph.node) == list(dense.graph.node)
    stored = [
        sorted((tensor.name, tensor.raw_data) for tensor in model.graph.initializer)
        for model in (packed, dense)
    ]
    assert stored[0] == stored[1]


def test_the_first_token_alone_is_computed_where_it_alone_is_read():
    for pooling, tokens in (("first", b"first"), ("mean", b"all")):
        converted = convert(
            ir.to_proto(exported("bert", pooling=pooling)[0]), values="fp32", compute="fp32"
        )
        (node,) = engine_nodes(converted.model)
        assert settings_of(node)["tokens"] == tokens


def test_the_embeddings_norm_goes_into_the_encoder_where_epsilon_is_the_same():
    model = ir.to_proto(exported("bert")[0])
    converted = convert(model, values="fp32", compute="fp32").model
    (node,) = engine_nodes(converted)
    assert len(node.input) == 2 + 2 * 16 + 2
    assert not any(each.op_type == "LayerNormalization" for each in converted.graph.node)
    read = {name for each in converted.graph.node for name in each.input}
    assert {tensor.name for tensor in converted.graph.initializer} <= read

    first = next(each for each in model.graph.node if each.op_type == "LayerNormalization")
    (epsilon,) = (attribute for attribute in first.attribute if attribute.name == "epsilon")
    epsilon.f = 1e-3
    converted = convert(model, values="fp32", compute="fp32").model
    (node,) = engine_nodes(converted)
    assert len(node.input) == 2 + 2 * 16
    assert sum(each.op_type == "LayerNormalization" for each in converted.graph.node) == 1


def basic(model: onnx.ModelProto, path) -> onnx.ModelProto:
    """As ONNX Runtime's own offline optimisation leaves a graph."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(path)
    options.log_severity_level = 4
    ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return onnx.load(path)


@pytest.mark.parametrize("optimised", [False, True])
@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("opset", [11, 14, 17])
def test_graphs_of_the_torchscript_exporter_are_understood(
    opset, static, optimised, make_encoder, run_reference, tmp_path
):
    original, feeds = make_encoder(opset=opset, static=static)
    assert ("LayerNormalization" in {node.op_type for node in original.graph.node}) == (opset == 17)
    given = basic(original, tmp_path / "basic.onnx") if optimised else original
    converted = convert(given, values="fp32", compute="fp32")
    assert converted.report.encoder_layers == 2
    assert converted.report.encoder_nodes == 1
    assert len(engine_nodes(converted.model)) == 1
    expected = run_original(original, feeds)
    np.testing.assert_allclose(run_reference(converted.model, feeds)[0], expected[0], atol=2e-5)


ACTIVATIONS = {
    "gelu": nn.functional.gelu,
    "gelu_tanh": nn.GELU(approximate="tanh"),
    "relu": nn.functional.relu,
    "tanh": torch.tanh,
    "silu": nn.functional.silu,
    "none": lambda x: x,
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_are_told_by_their_values(name, make_encoder, run_reference):
    original, feeds = make_encoder(activation=ACTIVATIONS[name], layers=1)
    converted = convert(original, values="fp32", compute="fp32")
    (node,) = engine_nodes(converted.model)
    assert node.op_type == "SmpEncoder"
    assert settings_of(node)["activation"] == name.encode()
    expected = run_original(original, feeds)
    np.testing.assert_allclose(run_reference(converted.model, feeds)[0], expected[0], atol=2e-5)


def test_an_activation_of_another_kind_stays(make_encoder, run_reference):
    original, feeds = make_encoder(activation=lambda x: x * torch.sigmoid(1.702 * x), layers=1)
    converted = convert(original, values="fp32", compute="fp32")
    assert converted.report.encoder_layers == 0
    assert converted.report.linear_layers == 6
    assert "Sigmoid" in {node.op_type for node in converted.model.graph.node}
    expected = run_original(original, feeds)
    np.testing.assert_allclose(run_reference(converted.model, feeds)[0], expected[0], atol=2e-5)


@pytest.mark.parametrize("mask", ["int64", "bool", "int32", "float32", "of ids", "none"])
@pytest.mark.parametrize("pooling", ["mean", "states"])
def test_masks_of_any_type_are_found(mask, pooling, make_encoder, run_reference):
    original, feeds = make_encoder(mask=mask, pooling=pooling)
    converted = convert(original, values="fp32", compute="fp32")
    (node,) = engine_nodes(converted.model)
    assert node.op_type == "SmpEncoder"
    assert bool(node.input[1]) == (mask != "none")
    kept = feeds.get("attention_mask", feeds["input_ids"]) != 0
    expected = run_original(original, feeds)[0]
    found = run_reference(converted.model, feeds)[0]
    if pooling == "states":  # tokens that are masked away are not computed
        expected, found = expected[kept], found[kept]
    np.testing.assert_allclose(found, expected, atol=2e-5)


@pytest.mark.parametrize(
    "options", [{"causal": True}, {"distance": True}, {"pre_norm": True}, {"epsilons": (1e-5, 0.1)}]
)
def test_other_layers_fall_back_to_linear_operators(options, make_encoder, run_reference):
    original, feeds = make_encoder(**options)
    converted = convert(original, values="fp32", compute="fp32")
    assert {node.op_type for node in engine_nodes(converted.model)} == {"SmpLinear"}
    assert converted.report.linear_layers == 12
    expected = run_original(original, feeds)
    np.testing.assert_allclose(run_reference(converted.model, feeds)[0], expected[0], atol=2e-5)


def test_scores_that_are_scaled_otherwise_are_measured(make_encoder, run_reference):
    original, feeds = make_encoder(scale=1.0)
    converted = convert(original, values="fp32", compute="fp32")
    (node,) = engine_nodes(converted.model)
    assert settings_of(node)["scale"] == 1.0
    expected = run_original(original, feeds)
    np.testing.assert_allclose(run_reference(converted.model, feeds)[0], expected[0], atol=2e-5)


@pytest.mark.parametrize("epsilon", [1e-12, 1e-7, 1e-5, 3e-3])
@pytest.mark.parametrize("opset", [11, 17])
def test_epsilon_is_found(epsilon, opset, make_encoder):
    original, _ = make_encoder(epsilons=(epsilon, epsilon), opset=opset, layers=1)
    (node,) = engine_nodes(convert(original, values="fp32", compute="fp32").model)
    assert settings_of(node)["epsilon"] == np.float32(epsilon)


def test_states_that_something_else_reads_are_kept(make_encoder, run_reference):
    original, feeds = make_encoder(pooling="states")
    (last,) = (node for node in original.graph.node if "output" in node.output)
    norms = [n for n in original.graph.node if n.op_type == "LayerNormalization"]
    assert last in norms
    first_layer = norms[1].output[0]
    original.graph.output.append(onnx.ValueInfoProto(name=first_layer))
    converted = convert(original, values="fp32", compute="fp32")
    assert converted.report.encoder_layers == 2
    assert len(engine_nodes(converted.model)) == 2
    kept = feeds["attention_mask"] != 0
    for expected, found in zip(
        run_original(original, feeds), run_reference(converted.model, feeds), strict=True
    ):
        np.testing.assert_allclose(found[kept], expected[kept], atol=2e-5)


def test_a_dense_matrix_in_a_sparse_layer_goes_along(make_encoder, run_reference):
    original, feeds = make_encoder(layers=1)
    names = [tensor.name for tensor in original.graph.initializer if list(tensor.dims) == [32, 32]]
    (tensor,) = (tensor for tensor in original.graph.initializer if tensor.name == names[0])
    dense = np.random.default_rng(0).standard_normal((32, 32)).astype(np.float32)
    tensor.CopyFrom(onnx.numpy_helper.from_array(dense, tensor.name))
    converted = convert(original, values="fp32", compute="fp32")
    assert converted.report.encoder_layers == 1
    assert converted.encodings[names[0]] == "dense"
    expected = run_original(original, feeds)
    np.testing.assert_allclose(run_reference(converted.model, feeds)[0], expected[0], atol=2e-5)


def test_rounded_weights_move_the_result_a_little(make_encoder, run_reference):
    original, feeds = make_encoder()
    expected = run_original(original, feeds)[0]
    for values, allowed in (("fp16", 5e-3), ("int8", 0.1)):
        found = run_reference(convert(original, values=values, compute="fp32").model, feeds)[0]
        difference = np.abs(found - expected).max()
        assert 0 < difference < allowed


def test_the_same_graph_gives_the_same_bytes(make_encoder):
    original, _ = make_encoder()
    before = original.SerializeToString(deterministic=True)
    first, second = (
        convert(original, values="int8", compute="int8").model.SerializeToString(deterministic=True)
        for _ in range(2)
    )
    assert first == second
    assert original.SerializeToString(deterministic=True) == before


def test_nothing_but_the_operators_is_left_of_the_layers(make_encoder):
    original, _ = make_encoder(pooling="mean")
    converted = convert(original, values="int8", compute="int8").model
    onnx.checker.check_model(converted)
    assert {(entry.domain, entry.version) for entry in converted.opset_import} == {
        ("", 17),
        ("smp", 1),
    }
    operators = Counter(node.op_type for node in converted.graph.node)
    assert operators["MatMul"] == operators["Softmax"] == operators["LayerNormalization"] == 0
    assert operators["Gemm"] == 1  # the head
    sizes = [
        np.prod(tensor.dims) for tensor in converted.graph.initializer if tensor.data_type == 1
    ]
    assert sum(sizes) < 90 * 32 + 2 * 12 * 64 + 4 * 32  # embeddings, vectors, head


def test_what_was_found_is_reported(make_encoder):
    original, _ = make_encoder()
    report = convert(original, values="int8", compute="int8").report
    assert report.density == pytest.approx(0.3, abs=0.02)
    assert list(report.left.values()) == ["density 1"]
    assert report.summary().startswith("2 encoder layers in 1 operator; density 0.")
    assert "left to ONNX Runtime: " in report.summary()


def test_a_dense_model_is_refused_with_its_density(make_encoder):
    original, _ = make_encoder(density=0.9)
    with pytest.raises(ModelError, match=r"at most 70% of the weights not zero, it has 13 with 9"):
        convert(original, values="int8", compute="int8")


def test_a_graph_without_matrices_is_refused():
    graph = onnx.parser.parse_model(
        '<ir_version: 9, opset_import: ["" : 17]>'
        "g (float[b, s] x) => (float[b, s] y) { y = Relu(x) }"
    )
    with pytest.raises(ModelError, match="no MatMul or Gemm with a constant float32 matrix"):
        convert(graph, values="int8", compute="int8")


def test_a_converted_graph_is_refused(make_encoder):
    original, _ = make_encoder()
    converted = convert(original, values="int8", compute="int8").model
    with pytest.raises(ModelError, match="operators of the engine already"):
        convert(converted, values="int8", compute="int8")


def linear_graph(weight: np.ndarray, form: str) -> onnx.ModelProto:
    """``x @ weight + bias`` with the weight given in some other way than as it is."""
    rows, columns = weight.shape
    bodies = {
        "transposed": "w = Transpose(stored) m = MatMul(x, w) y = Add(bias, m)",
        "cast": "w = Cast<to = 1>(stored) m = MatMul(x, w) y = Add(m, bias)",
        "quantised": "w = DequantizeLinear(stored, scale) m = MatMul(x, w) y = Add(m, bias)",
        "gemm": "y = Gemm<transB = 1, alpha = 2.0, beta = 0.5>(x, stored, bias)",
        "rows": "r = Reshape(x, flat) m = Gemm(r, stored, bias) y = Reshape(m, back)",
        "bare": "m = MatMul(x, stored) y = Identity(m)",
    }
    scale = np.float32(0.01)
    stored = {
        "transposed": np.ascontiguousarray(weight.T),
        "cast": weight.astype(np.float16),
        "quantised": np.rint(weight / scale).clip(-127, 127).astype(np.int8),
        "gemm": np.ascontiguousarray(weight.T),
        "rows": weight,
        "bare": weight,
    }[form]
    shape = {"gemm": f"b, {rows}", "rows": f"2, s, {rows}"}.get(form, f"b, s, {rows}")
    model = onnx.parser.parse_model(
        f"""
        <ir_version: 9, opset_import: ["" : 17]>
        g (float[{shape}] x) => (float[{shape.replace(str(rows), str(columns))}] y)
        <int64[2] flat = {{-1, {rows}}}, int64[3] back = {{2, -1, {columns}}}>
        {{ {bodies[form].replace(") ", ")" + chr(10))} }}
        """
    )
    tensors = {"stored": stored, "scale": scale, "bias": np.arange(columns, dtype=np.float32)}
    used = {name for node in model.graph.node for name in node.input}
    for name, array in tensors.items():
        if name in used:
            model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), name))
    onnx.checker.check_model(model)
    return model


@pytest.mark.parametrize("form", ["transposed", "cast", "quantised", "gemm", "rows", "bare"])
def test_weights_of_other_tools_are_understood(form, run_reference):
    generator = np.random.default_rng(0)
    weight = generator.standard_normal((24, 40)) * (generator.random((24, 40)) < 0.3)
    original = linear_graph(weight.astype(np.float32), form)
    converted = convert(original, values="fp32", compute="fp32")
    (node,) = converted.model.graph.node
    assert node.op_type == "SmpLinear"
    assert list(converted.encodings) == ["stored"]
    shape = (5, 24) if form == "gemm" else (2, 5, 24)
    feeds = {"x": generator.standard_normal(shape).astype(np.float32)}
    expected = run_original(original, feeds)[0]
    np.testing.assert_allclose(run_reference(converted.model, feeds)[0], expected, atol=1e-4)


def test_of_two_layers_that_are_added_one_adds(run_reference):
    original = onnx.parser.parse_model(
        """
        <ir_version: 9, opset_import: ["" : 17]>
        g (float[b, s, 8] x) => (float[b, s, 8] y)
        { m = MatMul(x, v)  r = Relu(m)  n = MatMul(x, w)  sum = Add(r, n)  y = Tanh(sum) }
        """
    )
    generator = np.random.default_rng(0)
    for name in "vw":
        matrix = generator.standard_normal((8, 8)) * (generator.random((8, 8)) < 0.4)
        original.graph.initializer.append(
            onnx.numpy_helper.from_array(matrix.astype(np.float32), name)
        )
    converted = convert(original, values="fp32", compute="fp32")
    assert [len(node.input) for node in engine_nodes(converted.model)] in ([2, 4], [4, 2])
    assert set(converted.encodings) == {"v", "w"}
    feeds = {"x": generator.standard_normal((2, 3, 8)).astype(np.float32)}
    expected = run_original(original, feeds)[0]
    np.testing.assert_allclose(run_reference(converted.model, feeds)[0], expected, atol=1e-5)


def test_encodings_and_blobs_agree_on_what_is_smallest(make_encoder):
    # The two encoders are written apart; of what both know, they choose alike.
    for density in (0.02, 0.4):
        generator = np.random.default_rng(0)
        matrix = generator.standard_normal((64, 64)) * (generator.random((64, 64)) < density)
        graph = linear_graph(matrix.astype(np.float32), "bare")
        converted = convert(graph, values="fp16", compute="fp32")
        half = matrix.astype(np.float16)
        known = (encode_dense(half), encode_bitmap(half), encode_gaps(half))
        smallest = min(known, key=lambda encoding: encoding.size_bytes)
        assert converted.encodings["stored"] == smallest.kind
