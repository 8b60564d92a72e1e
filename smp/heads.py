"""The head: from a masked-language-model's rows, or in closed form from frozen features.

The paper's head is the pretrained masked-language-model head, cut to the rows of one label word a
class and frozen (SMP, section 3.1). For an encoder without one the paper is silent; ours is the
regularised least-squares solution on the frozen encoder's pooled states, or class means.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForMaskedLM

from pipeline.artifacts.classifier import Head, model_source
from pipeline.artifacts.run import HeadLayout, HeadTransform
from pipeline.closest import closest
from pipeline.errors import ConfigurationError, ModelError
from smp.architectures import architecture

__all__ = [
    "ANSWER_WORDS",
    "LABEL_WORDS",
    "PENALTIES",
    "MaskedLM",
    "affine_head",
    "class_means_head",
    "label_word_head",
    "least_squares_head",
    "linear_head",
    "masked_lm_head",
]

# SMP, appendix B: one word a class, by the class names of the GLUE data sets; for regression one
# word, whose logit is the number.
LABEL_WORDS = {
    "cola": {"unacceptable": "incorrect", "acceptable": "correct"},
    "mnli": {"entailment": "Yes", "neutral": "Maybe", "contradiction": "No"},
    "mrpc": {"equivalent": "Yes", "not_equivalent": "No"},
    "qnli": {"entailment": "Yes", "not_entailment": "No"},
    "qqp": {"duplicate": "Yes", "not_duplicate": "No"},
    "rte": {"entailment": "Yes", "not_entailment": "No"},
    "sst2": {"positive": "great", "negative": "terrible"},
    "stsb": {"score": "Yes"},
}

# The same, for the start and the end of an answer.
ANSWER_WORDS = ("No", "Yes")

# Of ridge regression, as shares of the mean variance of a feature.
PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
_LOGIT_SCALES = torch.logspace(-1, 2, 61, dtype=torch.float64)


@dataclass(frozen=True)
class MaskedLM:
    """A checkpoint's masked-language-model head.

    Attributes:
        dense: the dense layer.
        norm: the LayerNorm.
        rows: decoder weight, float [vocabulary, size].
        bias: decoder bias, float [vocabulary].
        activation: a name in transformers' activation table.
    """

    dense: nn.Linear
    norm: nn.LayerNorm
    rows: Tensor
    bias: Tensor
    activation: str


def masked_lm_head(model: str, *, revision: str | None, model_type: str) -> MaskedLM | None:
    """The checkpoint's masked-language-model head, None where it has none.

    Args:
        model: a local directory or a hub id that loads as an encoder.
        revision: the hub revision.
        model_type: the configuration's ``model_type``.
    """
    places = architecture(model_type).mlm_head
    try:
        language_model, loading = AutoModelForMaskedLM.from_pretrained(
            model_source(model),
            revision=revision,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except ValueError:  # the architecture has no masked-language-model class
        return None
    needed = {f"{places.dense}.weight", f"{places.norm}.weight"}
    # Not there at all: DeBERTa-v2's class has another head unless config.legacy is true.
    present = {name for name, _ in language_model.named_parameters()}
    if not needed <= present - set(loading["missing_keys"]):
        return None
    decoder = language_model.get_submodule(places.decoder)
    config = language_model.config
    activation = "gelu" if places.activation is None else getattr(config, places.activation)
    bias = decoder.bias if decoder.bias is not None else torch.zeros(decoder.weight.shape[0])
    return MaskedLM(
        dense=language_model.get_submodule(places.dense),
        norm=language_model.get_submodule(places.norm),
        rows=decoder.weight.detach(),
        bias=bias.detach(),
        activation=activation,
    )


def label_word_head(
    language_model: MaskedLM,
    tokenizer: Any,
    words: Sequence[str],
    *,
    pooling: str,
    hidden_size: int,
) -> tuple[Head, HeadLayout]:
    """The frozen label-word head.

    Args:
        language_model: the checkpoint's masked-language-model head.
        tokenizer: the model's tokenizer.
        words: one word a logit, in the order of the labels; each is encoded with a leading space,
            as in the middle of a text, and must be one token.
        pooling: ``mask``, ``first``, ``mean`` or ``tokens``.
        hidden_size: features of the encoder's states.

    Raises:
        ConfigurationError: a word is not a single token of the vocabulary, or two are the same one.
    """
    ids = [_single_token(tokenizer, word) for word in words]
    if len(set(ids)) < len(ids):
        tokens = ", ".join(tokenizer.convert_ids_to_tokens(ids))
        raise ConfigurationError(
            f"--label-words: {', '.join(words)} are the tokens {tokens}, which are not all "
            "different for this model; choose others"
        )
    transform = HeadTransform(
        activation=language_model.activation,
        layer_norm_eps=language_model.norm.eps,
        size=language_model.dense.out_features,
    )
    layout = HeadLayout(
        kind="label-words",
        pooling=pooling,  # type: ignore[arg-type]
        hidden_size=hidden_size,
        outputs=len(words),
        transform=transform,
        mask_token_id=tokenizer.mask_token_id,
        label_words=tuple(words),
    )
    head = Head(layout)
    state = {
        "transform.0.weight": language_model.dense.weight,
        "transform.0.bias": language_model.dense.bias,
        "transform.2.weight": language_model.norm.weight,
        "transform.2.bias": language_model.norm.bias,
        "output.weight": language_model.rows[ids],
        "output.bias": language_model.bias[ids],
    }
    head.load_state_dict({name: tensor.detach() for name, tensor in state.items()})
    return head.requires_grad_(False), layout


def _single_token(tokenizer: Any, word: str) -> int:
    ids = tokenizer.encode(" " + word.strip(), add_special_tokens=False)
    if len(ids) != 1 or ids[0] == tokenizer.unk_token_id:
        pieces = ", ".join(tokenizer.convert_ids_to_tokens(ids))
        similar = closest(word, _whole_words(tokenizer))
        raise ConfigurationError(
            f"--label-words: {word!r} is not one token of this model (it is {pieces}); "
            f"choose a word that is{f', for instance {similar!r}' if similar else ''}"
        )
    return int(ids[0])


def _whole_words(tokenizer: Any) -> list[str]:
    """Words that are one token after a space."""
    words = [tokenizer.decode([index]).strip() for index in range(len(tokenizer))]
    found = tokenizer([f" {word}" for word in words], add_special_tokens=False)["input_ids"]
    return [
        word
        for index, (word, ids) in enumerate(zip(words, found, strict=True))
        if ids == [index] and word.isalpha()
    ]


def least_squares_head(
    features: Tensor, targets: Tensor, *, classes: int | None, pooling: str
) -> tuple[Head, HeadLayout]:
    """The frozen regularised least-squares head.

    Ridge regression of one-hot classes (or of the number) on the pooled states. The penalty, as a
    share of the mean feature variance, is the one with the smallest leave-one-out error, which
    ridge regression gives in closed form (Hastie et al., Elements of Statistical Learning, 7.10).
    Class scores are then multiplied by the number that makes the leave-one-out cross-entropy
    smallest, since one-hot regression says nothing of the scale that a softmax needs.

    Args:
        features: float [examples, hidden], of the frozen encoder on the training data.
        targets: int64 [examples] of class indices, or float [examples] for regression.
        classes: number of classes, None for regression.
        pooling: the pooling that made the features.
    """
    x = features.double()
    wanted = targets.double().unsqueeze(1)
    if classes is not None:
        wanted = nn.functional.one_hot(targets, classes).double()
    feature_mean, target_mean = x.mean(dim=0), wanted.mean(dim=0)
    centred, goal = x - feature_mean, wanted - target_mean
    # Above zero, so that equal features (texts that are all the same) give a constant head.
    variance = centred.square().mean().clamp(min=1e-30)
    values, vectors = torch.linalg.eigh(centred.T @ centred / len(x))
    projected = centred @ vectors
    moments = projected.T @ goal / len(x)

    best_error, weight, left_out = float("inf"), torch.empty(0), torch.empty(0)
    for penalty in PENALTIES:
        shrunk = 1.0 / (values.clamp(min=0.0) + penalty * variance)
        leverage = (projected.square() * shrunk).sum(dim=1) / len(x) + 1.0 / len(x)
        solution = shrunk.unsqueeze(1) * moments
        residual = (goal - projected @ solution) / (1.0 - leverage).clamp(min=1e-6).unsqueeze(1)
        error = float(residual.square().mean())
        if error < best_error:
            best_error, weight, left_out = error, (vectors @ solution).T, wanted - residual
    bias = target_mean - weight @ feature_mean
    if classes is not None:
        centre = 1.0 / classes
        losses = [
            nn.functional.cross_entropy((left_out - centre) * scale, targets)
            for scale in _LOGIT_SCALES
        ]
        scale = _LOGIT_SCALES[int(torch.stack(losses).argmin())]
        weight, bias = weight * scale, (bias - centre) * scale
    return affine_head("least-squares", weight, bias, pooling)


def class_means_head(
    features: Tensor, targets: Tensor, *, classes: int, pooling: str
) -> tuple[Head, HeadLayout]:
    """The frozen class-means head: logits fall with the distance to each class's mean state.

    Distances are squared and measured in units of the mean within-class variance, so the head is
    linear discriminant analysis with a round covariance and equal priors.

    Args:
        features: float [examples, hidden].
        targets: int64 [examples], class indices.
        classes: number of classes.
        pooling: the pooling that made the features.
    """
    x = features.double()
    means = torch.stack([x[targets == label].mean(dim=0) for label in range(classes)])
    variance = (x - means[targets]).square().mean().clamp(min=1e-12)
    weight = means / variance
    bias = -0.5 * means.square().sum(dim=1) / variance
    return affine_head("class-means", weight, bias - bias.mean(), pooling)


def linear_head(
    hidden_size: int, outputs: int, *, pooling: str, generator: torch.Generator
) -> tuple[Head, HeadLayout]:
    """A trainable linear head, started as transformers starts one (normal, deviation 0.02)."""
    weight = torch.randn(outputs, hidden_size, generator=generator, dtype=torch.float64) * 0.02
    head, layout = affine_head("linear", weight, torch.zeros(outputs, dtype=torch.float64), pooling)
    return head.requires_grad_(True), layout


def affine_head(kind: Any, weight: Tensor, bias: Tensor, pooling: Any) -> tuple[Head, HeadLayout]:
    """A frozen head of one linear map.

    Args:
        kind: the kind that the layout names.
        weight: float [outputs, hidden].
        bias: float [outputs].
        pooling: the pooling that the layout names.

    Raises:
        ModelError: a value is not finite.
    """
    outputs, hidden_size = weight.shape
    layout = HeadLayout(kind=kind, pooling=pooling, hidden_size=hidden_size, outputs=outputs)
    if not bool(torch.isfinite(weight).all() and torch.isfinite(bias).all()):
        raise ModelError("--model: the encoder's states are not finite; give another model")
    head = Head(layout)
    head.load_state_dict({"output.weight": weight.float(), "output.bias": bias.float()})
    return head.requires_grad_(False), layout
