"""The model's side of a smaller vocabulary: rows of the embeddings, and ids in configurations."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace

from torch import nn

from pipeline.artifacts.classifier import TextClassifier
from pipeline.errors import ModelError

__all__ = ["configured_ids", "token_embedding", "with_tokens"]


def token_embedding(classifier: TextClassifier) -> nn.Embedding:
    """The embedding of the encoder's token ids.

    Raises:
        ModelError: it has none.
    """
    try:
        embedding = classifier.encoder.get_input_embeddings()
    except NotImplementedError:  # how transformers says that an encoder has no such table
        embedding = None
    if not isinstance(embedding, nn.Embedding):
        raise ModelError(
            f"models of type {classifier.encoder.config.model_type} have no plain token "
            "embeddings to prune; leave out --prune-vocabulary"
        )
    return embedding


def configured_ids(classifier: TextClassifier) -> set[int]:
    """The token ids that the model's configuration, embeddings and head name."""
    named = {classifier.layout.mask_token_id, token_embedding(classifier).padding_idx}
    for value in _token_ids(classifier).values():
        named.update(value if isinstance(value, list) else [value])
    return {index for index in named if isinstance(index, int)}


def with_tokens(
    classifier: TextClassifier, old_ids: Sequence[int], renumber: Callable[[int], int | None]
) -> TextClassifier:
    """A classifier with some of the tokens; it shares all other weights with the given one.

    Args:
        classifier: it stays as it is.
        old_ids: the old id of each token that is kept, by new id.
        renumber: the new id of an old one, None for a token that went.
    """
    # What stands in the memo is not copied.
    result = deepcopy(classifier, {id(weight): weight for weight in classifier.parameters()})
    embedding = token_embedding(result)
    embedding.weight = nn.Parameter(
        embedding.weight.detach()[list(old_ids)], requires_grad=embedding.weight.requires_grad
    )
    embedding.num_embeddings = len(old_ids)
    if embedding.padding_idx is not None:
        embedding.padding_idx = renumber(embedding.padding_idx)
    config = result.encoder.config
    config.vocab_size = len(old_ids)
    for name, value in _token_ids(result).items():
        ids = [renumber(index) for index in value] if isinstance(value, list) else renumber(value)
        setattr(config, name, ids)
    if result.layout.mask_token_id is not None:
        mask = renumber(result.layout.mask_token_id)
        result.layout = replace(result.layout, mask_token_id=mask)
    return result


def _token_ids(classifier: TextClassifier) -> dict[str, int | list[int]]:
    """Settings like ``pad_token_id`` in the encoder's configuration that have a value."""
    return {
        name: value
        for name, value in vars(classifier.encoder.config).items()
        if name.endswith("_token_id") and isinstance(value, int | list)
    }
