"""Which layers are pruned, on a random model of each architecture."""

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModel

from pipeline.errors import ModelError
from smp.architectures import ARCHITECTURES, MATRIX_TYPES, pruned_matrices

SIZES = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 40,
}
DISTILBERT_SIZES = {"vocab_size": 40, "dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24}


def random_encoder(model_type: str) -> nn.Module:
    sizes = DISTILBERT_SIZES if model_type == "distilbert" else SIZES
    with torch.device("meta"):
        return AutoModel.from_config(AutoConfig.for_model(model_type, **sizes))


@pytest.mark.parametrize("model_type", sorted(ARCHITECTURES))
def test_six_matrices_a_layer_are_found_in_every_architecture(model_type):
    encoder = random_encoder(model_type)
    found = pruned_matrices(encoder, model_type)
    parameters = dict(encoder.named_parameters())
    assert [(m.matrix_type, m.layer) for m in found] == [
        (matrix_type, layer) for matrix_type in MATRIX_TYPES for layer in range(2)
    ]
    assert all(parameters[matrix.name] is matrix.module.weight for matrix in found)
    shapes = {m.matrix_type: tuple(m.module.weight.shape) for m in found}
    assert shapes["intermediate"] == (24, 16)
    assert shapes["output"] == (16, 24)
    assert shapes["attention_output"] == (16, 16)


def test_an_unknown_architecture_is_refused_with_the_known_ones():
    with pytest.raises(ModelError, match=r"'gpt2' is not supported; supported are bert, "):
        pruned_matrices(nn.Linear(2, 2), "gpt2")


def test_a_model_that_lacks_layers_is_refused():
    encoder = random_encoder("bert")
    encoder.encoder.layer[1].intermediate.dense = nn.Identity()
    with pytest.raises(ModelError, match=r"expected 6 linear layers .* found 11 in 2 layers"):
        pruned_matrices(encoder, "bert")
