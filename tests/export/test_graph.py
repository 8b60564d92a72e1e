from collections import Counter

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from transformers import (
    AutoModel,
    BertConfig,
    DebertaV2Config,
    DistilBertConfig,
    ElectraConfig,
    MPNetConfig,
    PretrainedConfig,
    RobertaConfig,
)

from export.graph import export_graph, graph_inputs
from pipeline.artifacts.bake import apply_masks
from pipeline.artifacts.classifier import Head, TextClassifier
from pipeline.artifacts.run import HeadLayout
from pipeline.errors import ModelError

SIZES = {
    "vocab_size": 64,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 40,
}
CONFIGS: dict[str, PretrainedConfig] = {
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
# Shapes other than the traced one: no batch, no sequence, both ends of the range.
SHAPES = [(1, 1), (1, 2), (1, 38), (2, 3), (2, 1), (7, 20), (32, 38)]
INPUTS = ("input_ids", "attention_mask")


def classifier_of(config: PretrainedConfig, pooling: str = "mean") -> TextClassifier:
    torch.manual_seed(0)
    encoder = AutoModel.from_config(config)
    if hasattr(encoder, "pooler"):
        encoder.pooler = None
    layout = HeadLayout("linear", pooling, 32, 3, mask_token_id=5)
    head = Head(layout)
    torch.nn.init.normal_(head.output.weight)
    return TextClassifier(encoder, head, layout).eval()


def prune(classifier: TextClassifier, density: float = 0.2) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    masks = {
        name: generator.random(tuple(weight.shape)) < density
        for name, weight in classifier.encoder.named_parameters()
        if weight.ndim == 2 and ".layer." in name
    }
    apply_masks(classifier.encoder, masks)
    assert len(masks) == 12
    return masks


def assert_parity(model: onnx.ModelProto, classifier: TextClassifier) -> None:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    torch.manual_seed(1)
    for batch, sequence in SHAPES:
        ids = torch.randint(6, 64, (batch, sequence))
        mask = torch.ones_like(ids)
        if sequence > 2:
            mask[1:, sequence // 2 :] = 0
            ids[0, 1] = 5  # a mask token, for that pooling
        with torch.inference_mode():
            expected = classifier(ids, mask).numpy()
        found = session.run(None, {"input_ids": ids.numpy(), "attention_mask": mask.numpy()})
        np.testing.assert_allclose(found[0], expected, atol=2e-5, err_msg=f"{batch}, {sequence}")


@pytest.mark.parametrize("model_type", CONFIGS)
def test_each_architecture_agrees_with_pytorch_at_any_shape(model_type: str):
    classifier = classifier_of(CONFIGS[model_type])
    masks = prune(classifier)
    model = ir.to_proto(export_graph(classifier, masks, INPUTS, 20))
    onnx.checker.check_model(model, full_check=True)
    assert_parity(model, classifier)
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for name in masks:
        baked = classifier.encoder.get_parameter(name).detach().numpy()
        np.testing.assert_array_equal(stored[name].T, baked)


@pytest.mark.parametrize("pooling", ["first", "mask"])
def test_each_pooling_agrees_with_pytorch(pooling: str):
    classifier = classifier_of(CONFIGS["bert"], pooling)
    assert_parity(ir.to_proto(export_graph(classifier, (), INPUTS, 20)), classifier)


@pytest.mark.parametrize("opset", [18, 21, 23])
def test_each_opset_gives_a_valid_graph(opset: int):
    classifier = classifier_of(CONFIGS["bert"])
    masks = prune(classifier)
    model = ir.to_proto(export_graph(classifier, masks, INPUTS, opset))
    onnx.checker.check_model(model, full_check=True)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", opset)]
    assert_parity(model, classifier)


def test_folding_computes_beforehand_what_depends_on_no_input():
    classifier = classifier_of(CONFIGS["electra"])  # it has a projection that is not pruned
    masks = prune(classifier)
    name = "embeddings_project.weight"
    weight = classifier.encoder.get_parameter(name).detach().numpy()
    unfolded, folded = (
        export_graph(classifier, masks, INPUTS, 20, fold_constants=fold) for fold in (False, True)
    )
    before = Counter(node.op_type for node in unfolded.graph)
    after = Counter(node.op_type for node in folded.graph)
    stored = unfolded.graph.initializers[name]
    assert [node.op_type for node, _ in stored.uses()] == ["Transpose"]
    np.testing.assert_array_equal(stored.const_value.numpy(), weight)
    assert name not in folded.graph.initializers
    # Sizes of attention, which are known, and constants in nodes of their own.
    assert before["Sqrt"] > after["Sqrt"] == 0
    assert before["Constant"] > after["Constant"] == 0
    for model in (unfolded, folded):
        proto = ir.to_proto(model)
        onnx.checker.check_model(proto, full_check=True)
        assert_parity(proto, classifier)
        for pruned in masks:
            baked = classifier.encoder.get_parameter(pruned).detach().numpy()
            tensor = model.graph.initializers[pruned].const_value
            np.testing.assert_array_equal(tensor.numpy().T, baked)


@pytest.mark.parametrize("model_type", ["bert", "deberta-v2"])
def test_unfolded_graphs_are_valid_and_right(model_type: str):
    classifier = classifier_of(CONFIGS[model_type])
    masks = prune(classifier)
    model = ir.to_proto(export_graph(classifier, masks, INPUTS, 20, fold_constants=False))
    onnx.checker.check_model(model, full_check=True)
    assert_parity(model, classifier)


def test_inputs_and_outputs_are_named_and_dynamic():
    names = ("input_ids", "token_type_ids", "attention_mask")
    model = ir.to_proto(export_graph(classifier_of(CONFIGS["bert"]), (), names, 20))
    assert tuple(value.name for value in model.graph.input) == names
    for value in model.graph.input:
        dimensions = value.type.tensor_type.shape.dim
        assert [dimension.dim_param for dimension in dimensions] == ["batch", "sequence"]
        assert value.type.tensor_type.elem_type == onnx.TensorProto.INT64
    assert [value.name for value in model.graph.output] == ["logits"]


def test_an_input_that_the_model_ignores_stays_an_input():
    # DeBERTa's tokenizer gives token types, and most of its models have none.
    names = (*INPUTS, "token_type_ids")
    model = ir.to_proto(export_graph(classifier_of(CONFIGS["deberta-v2"]), (), names, 20))
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    assert tuple(value.name for value in session.get_inputs()) == names
    session.run(None, {name: np.ones((1, 4), np.int64) for name in names})


def test_equal_matrices_are_stored_once_each():
    classifier = classifier_of(CONFIGS["bert"])
    masks = prune(classifier, density=0.0)
    model = ir.to_proto(export_graph(classifier, masks, INPUTS, 20))
    names = [tensor.name for tensor in model.graph.initializer]
    assert all(names.count(name) == 1 for name in masks)


def test_the_file_has_no_trace_of_this_machine_and_is_the_same_each_time():
    files = [
        ir.to_proto(export_graph(classifier_of(CONFIGS["bert"]), (), INPUTS, 20)).SerializeToString(
            deterministic=True
        )
        for _ in range(2)
    ]
    assert files[0] == files[1]
    assert b"stack_trace" not in files[0]
    assert b".py" not in files[0]


def test_the_exporter_prints_nothing(capfd: pytest.CaptureFixture[str]):
    export_graph(classifier_of(CONFIGS["deberta-v2"]), (), INPUTS, 20)
    assert capfd.readouterr() == ("", "")


def test_inputs_are_those_of_tokenizer_and_encoder_alike():
    names = ("input_ids", "token_type_ids", "attention_mask")
    assert graph_inputs(names, classifier_of(CONFIGS["bert"])) == names
    assert graph_inputs(names, classifier_of(CONFIGS["distilbert"])) == INPUTS
    with pytest.raises(ModelError, match="input_ids and attention_mask"):
        graph_inputs(("input_ids",), classifier_of(CONFIGS["bert"]))


def test_what_torch_cannot_export_is_one_clear_line():
    class DataDependent(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.config = BertConfig(**SIZES)

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            if input_ids.sum() > 3:
                return input_ids
            return attention_mask

    classifier = classifier_of(CONFIGS["bert"])
    classifier.encoder = DataDependent()
    with pytest.raises(ModelError, match=r"models of type bert cannot be exported") as caught:
        export_graph(classifier, (), INPUTS, 20)
    assert "\n" not in str(caught.value)
