"""Token classification: sentences of words as examples, and labels of words from their logits."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.entities import tag_metrics
from pipeline.tagged_words import TaggedWords
from pipeline.word_tokens import first_tokens, join_words
from smp.examples import TOKENISE_BATCH, Examples
from smp.losses import NO_TARGET

__all__ = ["WordExamples", "score_words", "tokenise_words"]


@dataclass(frozen=True)
class WordExamples(Examples):
    """Sentences as examples; their targets are int64 [sentences, longest].

    The first token of a word has the index of its label, all other places have
    :data:`smp.losses.NO_TARGET`.

    Attributes:
        first_tokens: for each sentence, int64 [words], the position of each word's first token,
            -1 for those that were cut.
    """

    first_tokens: Sequence[NDArray[np.int64]] = ()

    def __getitem__(self, index: int) -> dict[str, Any]:
        example = super().__getitem__(index)
        example["labels"] = example["labels"][: len(example["input_ids"])]
        return example


def tokenise_words(
    data: TaggedWords, tags: Sequence[Sequence[int]], tokenizer: Any, max_length: int
) -> WordExamples:
    """Tokenise one file.

    Args:
        data: the sentences.
        tags: the index of each word's label.
        tokenizer: a transformers tokenizer.
        max_length: tokens after which a sentence is cut, special tokens included.
    """
    inputs: dict[str, list[list[int]]] = {}
    firsts: list[NDArray[np.int64]] = []
    for start in range(0, len(data), TOKENISE_BATCH):
        joined = [join_words(words) for words in data.words[start : start + TOKENISE_BATCH]]
        encoded = tokenizer(
            [text for text, _ in joined],
            truncation=True,
            max_length=max_length,
            return_offsets_mapping=True,
        )
        offsets = encoded.pop("offset_mapping")
        firsts += [
            first_tokens(each, spans, text)
            for each, (text, spans) in zip(offsets, joined, strict=True)
        ]
        for name in encoded:
            inputs.setdefault(name, []).extend(encoded[name])
    targets = torch.full((len(data), max(map(len, inputs["input_ids"]))), NO_TARGET)
    truncated = 0
    for row, (first, indices) in enumerate(zip(firsts, tags, strict=True)):
        seen = first >= 0
        targets[row, first[seen]] = torch.from_numpy(np.asarray(indices)[seen])
        truncated += bool(len(first) > 0 and first[-1] < 0)
    return WordExamples(inputs, targets, truncated, firsts)


def score_words(
    data: TaggedWords,
    examples: WordExamples,
    logits: Sequence[NDArray[Any]],
    labels: Sequence[str],
) -> dict[str, float]:
    """The metrics of :func:`pipeline.entities.tag_metrics`; words that were cut count as O.

    Args:
        data: the sentences.
        examples: the same, tokenised.
        logits: for each sentence, float [tokens or more, labels].
        labels: the label names.
    """
    unseen = "O" if "O" in labels else ""
    predictions = []
    for first, values in zip(examples.first_tokens, logits, strict=True):
        best = values[np.maximum(first, 0)].argmax(axis=-1)
        pairs = zip(first, best, strict=True)
        predictions.append([labels[index] if at >= 0 else unseen for at, index in pairs])
    return tag_metrics(predictions, data.tags, labels)
