"""Which linear layers of which architecture are pruned, and of what type each one is.

The method prunes six dense matrices of every encoder layer (SMP, section 3): query, key, value,
attention output, intermediate (up) and output (down).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from pipeline.errors import ModelError

__all__ = ["ARCHITECTURES", "MATRIX_TYPES", "MaskedLMHead", "PrunedMatrix", "pruned_matrices"]

MATRIX_TYPES = ("query", "key", "value", "attention_output", "intermediate", "output")


@dataclass(frozen=True)
class MaskedLMHead:
    """Where the pieces of a masked-language-model head are in the MLM class of an architecture.

    Attributes:
        dense: the dense layer; its activation follows.
        norm: the LayerNorm.
        decoder: the linear layer over the vocabulary.
        activation: the configuration's attribute that names the activation, or None for gelu.
    """

    dense: str
    norm: str
    decoder: str
    activation: str | None = "hidden_act"


@dataclass(frozen=True)
class Architecture:
    """One row of the table.

    Attributes:
        layer: pattern of a layer's prefix in the encoder; its group is the layer's number.
        matrices: one module name below the prefix for each of :data:`MATRIX_TYPES`.
        mlm_head: the masked-language-model head.
    """

    layer: str
    matrices: tuple[str, ...]
    mlm_head: MaskedLMHead


_BERT_LAYER = r"encoder\.layer\.(\d+)\."
_BERT_MATRICES = (
    "attention.self.query",
    "attention.self.key",
    "attention.self.value",
    "attention.output.dense",
    "intermediate.dense",
    "output.dense",
)
_BERT_HEAD = MaskedLMHead(
    "cls.predictions.transform.dense",
    "cls.predictions.transform.LayerNorm",
    "cls.predictions.decoder",
)
_ROBERTA_HEAD = MaskedLMHead("lm_head.dense", "lm_head.layer_norm", "lm_head.decoder", None)
_ROBERTA = Architecture(_BERT_LAYER, _BERT_MATRICES, _ROBERTA_HEAD)

ARCHITECTURES: Mapping[str, Architecture] = {
    "bert": Architecture(_BERT_LAYER, _BERT_MATRICES, _BERT_HEAD),
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "camembert": _ROBERTA,
    "electra": Architecture(
        _BERT_LAYER,
        _BERT_MATRICES,
        MaskedLMHead(
            "generator_predictions.dense",
            "generator_predictions.LayerNorm",
            "generator_lm_head",
            None,
        ),
    ),
    "distilbert": Architecture(
        r"transformer\.layer\.(\d+)\.",
        (
            "attention.q_lin",
            "attention.k_lin",
            "attention.v_lin",
            "attention.out_lin",
            "ffn.lin1",
            "ffn.lin2",
        ),
        MaskedLMHead("vocab_transform", "vocab_layer_norm", "vocab_projector", "activation"),
    ),
    "mpnet": Architecture(
        _BERT_LAYER,
        (
            "attention.attn.q",
            "attention.attn.k",
            "attention.attn.v",
            "attention.attn.o",
            "intermediate.dense",
            "output.dense",
        ),
        _ROBERTA_HEAD,
    ),
    "deberta-v2": Architecture(
        _BERT_LAYER,
        (
            "attention.self.query_proj",
            "attention.self.key_proj",
            "attention.self.value_proj",
            "attention.output.dense",
            "intermediate.dense",
            "output.dense",
        ),
        _BERT_HEAD,
    ),
}


@dataclass(frozen=True)
class PrunedMatrix:
    """A linear layer whose weight is pruned.

    Attributes:
        name: the weight's parameter name in the encoder.
        matrix_type: one of :data:`MATRIX_TYPES`.
        layer: the number of its encoder layer, from 0.
        module: the layer itself; its weight is float [out_features, in_features].
    """

    name: str
    matrix_type: str
    layer: int
    module: nn.Linear


def architecture(model_type: str) -> Architecture:
    """The row of the table for a configuration's ``model_type``.

    Raises:
        ModelError: the architecture is not in the table.
    """
    if model_type not in ARCHITECTURES:
        raise ModelError(
            f"--model: architecture {model_type!r} is not supported; "
            f"supported are {', '.join(sorted(ARCHITECTURES))}"
        )
    return ARCHITECTURES[model_type]


def pruned_matrices(encoder: nn.Module, model_type: str) -> list[PrunedMatrix]:
    """The linear layers of an encoder that the method prunes, by type, then by layer.

    Args:
        encoder: what `AutoModel` gives.
        model_type: its configuration's ``model_type``.

    Raises:
        ModelError: the architecture is not in the table, or the model lacks some of its layers.
    """
    row = architecture(model_type)
    pattern = re.compile(row.layer + "(" + "|".join(map(re.escape, row.matrices)) + ")")
    found = []
    for name, module in encoder.named_modules():
        match = pattern.fullmatch(name)
        if match and isinstance(module, nn.Linear):
            matrix_type = MATRIX_TYPES[row.matrices.index(match.group(2))]
            found.append(PrunedMatrix(f"{name}.weight", matrix_type, int(match.group(1)), module))
    layers = {matrix.layer for matrix in found}
    if not found or len(found) != len(layers) * len(MATRIX_TYPES):
        raise ModelError(
            f"--model: expected {len(MATRIX_TYPES)} linear layers in every encoder layer of a "
            f"{model_type} model, found {len(found)} in {len(layers)} layers; "
            "give an unmodified model of this architecture"
        )
    return sorted(found, key=lambda matrix: (MATRIX_TYPES.index(matrix.matrix_type), matrix.layer))
