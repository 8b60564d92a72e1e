"""What must hold once tokens are gone: a corpus keeps its tokens, and such texts their logits."""

import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from export.comparison_texts import Row
from pipeline.artifacts.classifier import TextClassifier
from pipeline.errors import VerificationError

__all__ = ["check_corpus", "check_logits", "label_agreement", "same_tokens"]

# The same rows go through the same layers: a difference beyond rounding is a mistake.
_TOLERANCE = 1e-5

Renumber = Callable[[int], int | None]
Batch = Mapping[str, NDArray[np.int64]]


def check_corpus(
    batches: Iterable[list[str]], before: Tokenizer, after: Tokenizer, renumber: Renumber
) -> None:
    """Tokenise a corpus both ways and compare.

    Args:
        batches: texts.
        before: the tokenizer with all tokens.
        after: the tokenizer with some of them.
        renumber: the new id of an old one, None for a token that went.

    Raises:
        VerificationError: a text becomes other tokens.
    """
    for batch in batches:
        encodings = zip(
            batch, before.encode_batch_fast(batch), after.encode_batch_fast(batch), strict=True
        )
        for text, old, new in encodings:
            if not _same(old, new, renumber):
                raise VerificationError(
                    f"the text {textwrap.shorten(text, 60)!r} of the corpus becomes other tokens "
                    "without those that no text uses; nothing was written, leave out "
                    "--prune-vocabulary and please report this with the tokenizer's type"
                )


def same_tokens(
    texts: Sequence[Row], before: Tokenizer, after: Tokenizer, renumber: Renumber
) -> NDArray[np.bool_]:
    """Which texts (or pairs of texts) become the same tokens both ways: bool [texts]."""
    encodings = zip(before.encode_batch(texts), after.encode_batch(texts), strict=True)
    return np.array([_same(old, new, renumber) for old, new in encodings], dtype=np.bool_)


def _same(old: Encoding, new: Encoding, renumber: Renumber) -> bool:
    return [renumber(index) for index in old.ids] == new.ids


def check_logits(
    before: tuple[TextClassifier, Iterable[Batch]], after: tuple[TextClassifier, Iterable[Batch]]
) -> None:
    """Compare the logits of two classifiers, each on its own ids of the same texts.

    Raises:
        VerificationError: they differ.
    """
    (reference, old_batches), (pruned, new_batches) = before, after
    for old, new in zip(old_batches, new_batches, strict=True):
        expected, found = _logits(reference, old), _logits(pruned, new)
        largest = float((found - expected).abs().max())
        if not largest <= _TOLERANCE * max(1.0, float(expected.abs().max())):
            raise VerificationError(
                f"a logit of a text that keeps its tokens differs by {largest:.3g} without the "
                "tokens that the corpus never uses; nothing was written, leave out "
                "--prune-vocabulary and please report this with the model's type"
            )


def label_agreement(
    before: tuple[TextClassifier, Iterable[Batch]], after: tuple[TextClassifier, Iterable[Batch]]
) -> float:
    """Share of texts that two classifiers, each on its own ids, give the same label, in [0, 1]."""
    (reference, old_batches), (pruned, new_batches) = before, after
    same = [
        _logits(reference, old).argmax(dim=1) == _logits(pruned, new).argmax(dim=1)
        for old, new in zip(old_batches, new_batches, strict=True)
    ]
    return float(torch.cat(same).float().mean())


def _logits(classifier: TextClassifier, batch: Batch) -> torch.Tensor:
    with torch.inference_mode():
        logits: torch.Tensor = classifier(
            **{name: torch.from_numpy(array) for name, array in batch.items()}
        )
    return logits
