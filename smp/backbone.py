"""The pretrained model's side of a run: tokenizer, length limit, pooling, head."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedModel
from transformers.utils import cached_file

from pipeline.artifacts.classifier import Head, TextClassifier, model_source
from pipeline.artifacts.run import HeadLayout, Pooling, TaskKind, is_by_token
from pipeline.config import TrainConfig
from pipeline.errors import ConfigurationError, ModelError
from smp.examples import Examples, length_sorted_batches
from smp.heads import (
    ANSWER_WORDS,
    LABEL_WORDS,
    MaskedLM,
    class_means_head,
    label_word_head,
    least_squares_head,
    linear_head,
    masked_lm_head,
)
from smp.token_heads import token_least_squares_head

__all__ = [
    "build_head",
    "check_vocabulary",
    "choose_pooling",
    "load_tokenizer",
    "longest_input",
    "pooled_states",
]


def load_tokenizer(model: str, *, revision: str | None) -> Any:
    """The model's fast tokenizer.

    Raises:
        ModelError: there is none, or it has no padding token.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            model_source(model), revision=revision, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError) as error:
        first_line = str(error).strip().splitlines()[0]
        raise ModelError(
            f"--model {model}: its tokenizer cannot be loaded ({first_line}); "
            "put tokenizer.json beside the model"
        ) from error
    if not tokenizer.is_fast or tokenizer.pad_token_id is None:
        raise ModelError(
            f"--model {model}: a fast tokenizer (tokenizer.json) with a padding token is needed"
        )
    # Without its files, transformers builds an empty tokenizer of the model's class.
    if len(tokenizer) <= len(tokenizer.all_special_ids):
        raise ModelError(
            f"--model {model}: its tokenizer has no vocabulary; put tokenizer.json beside the model"
        )
    tokenizer.padding_side = "right"
    return tokenizer


def check_vocabulary(model: str, tokenizer: Any, encoder: PreTrainedModel) -> None:
    """Check that the encoder has an embedding for every token.

    Raises:
        ModelError: it has fewer: the tokenizer is another model's.
    """
    rows = encoder.get_input_embeddings().num_embeddings
    if len(tokenizer) > rows:
        raise ModelError(
            f"--model {model}: its tokenizer has {len(tokenizer)} tokens, its embeddings {rows}; "
            "put the tokenizer that belongs to the model beside it"
        )


def longest_input(encoder: PreTrainedModel) -> int:
    """How many tokens the encoder takes; position tables of RoBERTa's kind lose the first two."""
    config = encoder.config
    offset = 0
    if config.model_type in ("roberta", "xlm-roberta", "camembert", "mpnet"):
        offset = config.pad_token_id + 1
    return int(config.max_position_embeddings) - offset


def choose_pooling(
    config: TrainConfig, *, label_words: bool, task: TaskKind = "classification"
) -> Pooling:
    """The pooling that was asked for, else the model's own.

    Question answering and token classification see all tokens. For other kinds a label-word head
    sees the mask token (the first token where there is none), a sentence encoder's
    1_Pooling/config.json says mean or first, and any other model's head sees the first token.

    Raises:
        ConfigurationError: one was asked for, and the task needs another.
        ModelError: that file cannot be read.
    """
    if is_by_token(task):
        if config.pooling != "auto":
            raise ConfigurationError(
                f"--pooling {config.pooling}: {task} sees every token; leave --pooling away"
            )
        return "tokens"
    if config.pooling != "auto":
        return config.pooling
    if label_words:
        return "mask"
    found = cached_file(
        model_source(config.model),
        "1_Pooling/config.json",
        revision=config.revision,
        _raise_exceptions_for_gated_repo=False,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    if found is not None:
        try:
            modes = dict(json.loads(Path(found).read_text(encoding="utf-8")))
        except (ValueError, TypeError, RecursionError) as error:
            raise ModelError(
                f"--model {config.model}: 1_Pooling/config.json is corrupt; give --pooling"
            ) from error
        if modes.get("pooling_mode_mean_tokens") or modes.get("pooling_mode") == "mean":
            return "mean"
    return "first"


def build_head(
    config: TrainConfig,
    encoder: PreTrainedModel,
    tokenizer: Any,
    examples: Examples,
    labels: tuple[str, ...],
    device: torch.device,
    *,
    task: TaskKind = "classification",
) -> tuple[Head, HeadLayout]:
    """The head that the configuration asks for.

    Args:
        config: the configuration.
        encoder: the encoder, plain and frozen.
        tokenizer: its tokenizer.
        examples: the training examples, for heads in closed form.
        labels: class names, empty for regression and question answering.
        device: where the features are computed.
        task: the kind of the task; regression is known by its lack of labels, too.

    Raises:
        ConfigurationError: the head does not fit the model or the task.
    """
    if task == "question-answering":
        labels = ("start", "end")
    outputs = len(labels) or 1
    kind, language_model, words = _choose_kind(config, encoder.config.model_type, task, labels)
    pooling = choose_pooling(config, label_words=kind == "label-words", task=task)
    if pooling == "mask" and tokenizer.mask_token_id is None:
        raise ConfigurationError("--pooling mask: the tokenizer has no mask token; use first")
    hidden_size = int(encoder.config.hidden_size)
    if language_model is not None:
        return label_word_head(
            language_model, tokenizer, words, pooling=pooling, hidden_size=hidden_size
        )
    mask_token_id = tokenizer.mask_token_id if pooling == "mask" else None
    if kind == "linear":
        generator = torch.Generator().manual_seed(config.seed)
        head, layout = linear_head(hidden_size, outputs, pooling=pooling, generator=generator)
        return head, dataclasses.replace(layout, mask_token_id=mask_token_id)
    if kind == "class-means":
        if pooling == "tokens":
            raise ConfigurationError(f"--head class-means: not for {task}; use least-squares")
        _check_class_means(examples, labels)
    layout = HeadLayout(
        kind="least-squares",
        pooling=pooling,
        hidden_size=hidden_size,
        outputs=outputs,
        mask_token_id=mask_token_id,
    )
    classifier = TextClassifier(encoder, Head(layout), layout)
    if pooling == "tokens":
        return token_least_squares_head(classifier, examples, task, tokenizer.pad_token_id, device)
    features = pooled_states(classifier, examples, tokenizer.pad_token_id, device)
    if kind == "class-means":
        head, layout = class_means_head(
            features, examples.targets, classes=outputs, pooling=pooling
        )
    else:
        classes = outputs if labels else None
        head, layout = least_squares_head(
            features, examples.targets, classes=classes, pooling=pooling
        )
    return head, dataclasses.replace(layout, mask_token_id=mask_token_id)


def _choose_kind(
    config: TrainConfig, model_type: str, task: TaskKind, labels: tuple[str, ...]
) -> tuple[str, MaskedLM | None, tuple[str, ...]]:
    """The kind of head that was asked for, or that fits; for label words the model's and these."""
    kind: str = config.head
    if kind == "auto" and config.trains_weights:
        kind = "linear"
    language_model, words = None, None
    if kind in ("auto", "label-words"):
        language_model = masked_lm_head(
            config.model, revision=config.revision, model_type=model_type
        )
        words = _label_words(config, task, labels)
        if kind == "label-words" and language_model is None:
            raise ConfigurationError(
                "--head label-words: the checkpoint has no masked-language-model head; "
                "use --head least-squares"
            )
        if kind == "label-words" and words is None:
            raise ConfigurationError(
                f"--head label-words: give --label-words, one for each of {', '.join(labels)}"
            )
        kind = "least-squares" if language_model is None or words is None else "label-words"
    if kind == "label-words":
        return kind, language_model, words or ()
    if config.label_words:
        raise ConfigurationError(
            f"--label-words: this run has a {kind} head, which takes no words; leave them away"
        )
    return kind, None, ()


def _check_class_means(examples: Examples, labels: tuple[str, ...]) -> None:
    if not labels:
        raise ConfigurationError("--head class-means needs classes; use least-squares")
    seen = set(examples.targets.tolist())
    for index, label in enumerate(labels):
        if index not in seen:
            raise ConfigurationError(
                f"--head class-means: no training example has the label {label!r}; "
                "use least-squares or raise --max-train-samples"
            )


def _label_words(
    config: TrainConfig, task: TaskKind, labels: tuple[str, ...]
) -> tuple[str, ...] | None:
    if config.label_words:
        wanted = len(labels) or 1
        if len(config.label_words) != wanted:
            raise ConfigurationError(
                f"--label-words: expected {wanted} words for {', '.join(labels) or 'one number'}, "
                f"got {len(config.label_words)}"
            )
        return config.label_words
    if task == "question-answering":
        return ANSWER_WORDS
    if config.task is not None:
        words = LABEL_WORDS[config.task]
        return tuple(words[label] for label in labels) if labels else tuple(words.values())
    return None


@torch.no_grad()
def pooled_states(
    classifier: TextClassifier, examples: Examples, pad_token_id: int, device: torch.device
) -> Tensor:
    """The frozen encoder's pooled states.

    Returns:
        float32 [examples, hidden], on the CPU.
    """
    classifier.to(device).eval()
    features = torch.zeros(len(examples), classifier.layout.hidden_size)
    for indices, batch in length_sorted_batches(examples, pad_token_id, device):
        features[indices] = classifier.features(**batch).float().cpu()
    return features
