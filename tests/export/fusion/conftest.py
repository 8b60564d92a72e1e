"""Tiny random classifiers of several architectures, and their graphs."""

import copy
import functools
from collections import Counter
from collections.abc import Callable, Collection

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

from export.fusion import fuse
from export.graph import export_graph
from pipeline.artifacts.bake import apply_masks
from pipeline.artifacts.classifier import Head, TextClassifier
from pipeline.artifacts.run import HeadLayout

LONGEST = 38
INPUTS = ("input_ids", "attention_mask")
SIZES = {
    "vocab_size": 64,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 40,
}
DEBERTA = {
    "relative_attention": True,
    "position_buckets": 16,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": ["p2c", "c2p"],
    "type_vocab_size": 0,
    "position_biased_input": False,
}


def _config(model_type: str, activation: str) -> PretrainedConfig:
    if model_type == "distilbert":
        return DistilBertConfig(
            vocab_size=64,
            dim=32,
            n_layers=2,
            n_heads=4,
            hidden_dim=64,
            max_position_embeddings=40,
            activation=activation,
        )
    sizes = {**SIZES, "hidden_act": activation}
    return {
        "bert": lambda: BertConfig(**sizes),
        "roberta": lambda: RobertaConfig(**sizes, pad_token_id=1),
        "electra": lambda: ElectraConfig(**sizes, embedding_size=16),
        "mpnet": lambda: MPNetConfig(**sizes),
        "deberta-v2": lambda: DebertaV2Config(**sizes, **DEBERTA),
    }[model_type]()


class Exported:
    """A pruned random classifier and its graph, with biases unlike one another.

    Attributes:
        model: the graph.
        masks: names of the pruned matrices.
    """

    def __init__(self, model_type: str, opset: int, activation: str, inputs: tuple[str, ...]):
        torch.manual_seed(0)
        encoder = AutoModel.from_config(_config(model_type, activation))
        if hasattr(encoder, "pooler"):
            encoder.pooler = None
        with torch.no_grad():
            for name, parameter in encoder.named_parameters():
                if parameter.ndim == 1:  # ones and zeros would be shared, and hide mistakes
                    parameter.normal_(float("norm.weight" in name.lower()), 0.2)
        layout = HeadLayout("linear", "mean", 32, 3, mask_token_id=5)
        head = Head(layout)
        torch.nn.init.normal_(head.output.weight)
        self._classifier = TextClassifier(encoder, head, layout).eval()
        generator = np.random.default_rng(0)
        masks = {
            name: generator.random(tuple(weight.shape)) < 0.3
            for name, weight in encoder.named_parameters()
            if weight.ndim == 2 and ".layer." in name
        }
        apply_masks(encoder, masks)
        self.masks: Collection[str] = tuple(masks)
        self._inputs = inputs
        self.model = export_graph(self._classifier, self.masks, inputs, opset)

    def copy(self) -> "Exported":
        """One with a graph of its own; tracing takes seconds."""
        other = copy.copy(self)
        other.model = self.model.clone()
        return other

    @property
    def operators(self) -> Counter[str]:
        """How often each operator occurs."""
        return Counter(node.op_type for node in self.model.graph)

    def fuse(self, *names: str) -> dict[str, int]:
        return fuse(self.model, names)

    def assert_valid(self) -> None:
        onnx.checker.check_model(ir.to_proto(self.model), full_check=True)

    def assert_parity(self) -> None:
        """ONNX Runtime and PyTorch agree at every length, alone and in padded batches."""
        session = ort.InferenceSession(
            ir.to_proto(self.model).SerializeToString(), providers=["CPUExecutionProvider"]
        )
        torch.manual_seed(1)
        for batch, length in [(1 + length % 4, length) for length in range(1, LONGEST + 1)]:
            ids = torch.randint(6, 64, (batch, length))
            mask = torch.ones_like(ids)
            for text in range(1, batch):
                mask[text, max(1, length // (text + 1)) :] = 0
            ids = torch.where(mask == 1, ids, 1)
            feeds = {"input_ids": ids, "attention_mask": mask}
            if "token_type_ids" in self._inputs:
                feeds["token_type_ids"] = torch.randint(0, 2, (batch, length))
            with torch.inference_mode():
                expected = self._classifier(**feeds).numpy()
            (found,) = session.run(None, {name: ids.numpy() for name, ids in feeds.items()})
            np.testing.assert_allclose(found, expected, atol=5e-5, err_msg=f"{batch}, {length}")


MakeExported = Callable[..., Exported]


@pytest.fixture(scope="session")
def exported() -> MakeExported:
    traced = functools.cache(Exported)

    def make(
        model_type: str = "bert",
        opset: int = 20,
        activation: str = "gelu",
        inputs: tuple[str, ...] = INPUTS,
    ) -> Exported:
        return traced(model_type, opset, activation, inputs).copy()

    return make
