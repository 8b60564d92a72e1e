"""A classifier and its tokenizer without the tokens that a corpus never uses."""

import json
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from export.comparison_texts import Row, text_batches
from export.graph import graph_inputs
from export.vocabulary.checks import check_corpus, check_logits, label_agreement, same_tokens
from export.vocabulary.corpus import Corpus
from export.vocabulary.embeddings import configured_ids, token_embedding, with_tokens
from export.vocabulary.needed import needed_tokens
from export.vocabulary.rewrite import Rewritten, model_vocabulary, referenced_ids, rewrite
from pipeline.artifacts.classifier import TextClassifier
from pipeline.artifacts.exported import TOKENIZER_FILE, VocabularyReport
from pipeline.artifacts.files import sha256_file
from pipeline.errors import ModelError, first_line

__all__ = ["Pruned", "prune_vocabulary"]

_SAMPLE_TEXTS = 32
# What a tokenizer does to a text; truncation and padding are settings of a call.
_SECTIONS = ("model", "added_tokens", "normalizer", "pre_tokenizer", "post_processor")


@dataclass(frozen=True)
class Pruned:
    """What is left of a model.

    Attributes:
        classifier: shares all weights but the embeddings of tokens with the one it was made from;
            its configuration and its head's layout have the new ids.
        tokenizer: a fast tokenizer of transformers.
        report: what went.
    """

    classifier: TextClassifier
    tokenizer: Any
    report: VocabularyReport


@dataclass(frozen=True)
class _Use:
    """What a corpus uses: token ids, its number of texts, and the first few of them."""

    ids: set[int]
    texts: int
    sample: list[str]


def prune_vocabulary(
    classifier: TextClassifier,
    tokenizer: Any,
    corpus: Path,
    *,
    texts: Sequence[Row],
    max_length: int,
    progress: Callable[[str], None] = lambda line: None,
) -> Pruned:
    """Drop the tokens that a corpus never uses from the tokenizer and the embeddings.

    Every text of the corpus keeps its tokens, which is checked on all of them. Others may become
    more and shorter tokens. Where the tokens are the same, so are the logits, which is checked on
    ``texts``.

    Args:
        classifier: the model, in evaluation mode; it and the tokenizer stay as they are.
        tokenizer: a fast tokenizer of transformers.
        corpus: a UTF-8 file, a text a line; it is read three times and never held in memory.
        texts: validation texts.
        max_length: tokens after which these are cut.
        progress: is told in a line what is going on.

    Raises:
        DataError: the corpus cannot be read.
        ModelError: the tokenizer is of an unknown kind, or does not fit the model.
        VerificationError: tokens or logits differ where they must not.
    """
    file = Corpus(corpus)
    before = _without_limits(tokenizer)
    use = _count(before, file.batches(lambda share: progress(f"counting tokens: {share}")))
    named = use.ids | configured_ids(classifier) | set(tokenizer.all_special_ids)
    rewritten = _rewrite(classifier, tokenizer, named)
    new_ids = {old: new for new, old in enumerate(rewritten.old_ids)}
    reloaded = _reload(tokenizer, rewritten.content)
    after = _without_limits(reloaded)
    comparing = file.batches(lambda share: progress(f"comparing tokens: {share}"))
    check_corpus(comparing, before, after, new_ids.get)

    pruned = with_tokens(classifier, rewritten.old_ids, new_ids.get)
    before.enable_truncation(max_length)
    after.enable_truncation(max_length)
    same = same_tokens(texts, before, after, new_ids.get)
    unchanged = [text for text, is_same in zip(texts, same, strict=True) if is_same] or use.sample
    check_logits(
        (classifier, _batches(classifier, tokenizer, unchanged, max_length)),
        (pruned, _batches(pruned, reloaded, unchanged, max_length)),
    )
    agreement = None
    if classifier.layout.pooling != "tokens":
        # The last two batches are one text again.
        agreement = label_agreement(
            (classifier, _batches(classifier, tokenizer, texts, max_length)[:-2]),
            (pruned, _batches(pruned, reloaded, texts, max_length)[:-2]),
        )
    report = VocabularyReport(
        corpus=corpus.name,
        corpus_sha256=sha256_file(corpus),
        texts=use.texts,
        tokens=len(rewritten.old_ids),
        tokens_before=token_embedding(classifier).num_embeddings,
        compared=len(texts),
        changed=1.0 - float(same.mean()),
        label_agreement=agreement,
    )
    return Pruned(pruned, reloaded, report)


def _without_limits(tokenizer: Any) -> Tokenizer:
    """A copy of the backend that neither cuts nor pads; the tokenizer's own stays as it is."""
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.no_truncation()
    backend.no_padding()
    return backend


def _count(tokenizer: Tokenizer, batches: Iterable[list[str]]) -> _Use:
    ids: set[int] = set()
    texts = 0
    sample: list[str] = []
    for batch in batches:
        for encoding in tokenizer.encode_batch_fast(batch):
            ids.update(encoding.ids)
        texts += len(batch)
        sample.extend(batch[: _SAMPLE_TEXTS - len(sample)])
    return _Use(ids, texts, sample)


def _rewrite(classifier: TextClassifier, tokenizer: Any, named: Set[int]) -> Rewritten:
    """Keep the tokens of these ids and those that the tokenizer cannot do without."""
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    ids = named | referenced_ids(content)
    vocabulary = model_vocabulary(content["model"])
    used = {token for token, index in vocabulary.items() if index in ids}
    embedding = token_embedding(classifier)
    rewritten = rewrite(
        content, needed_tokens(content["model"], used), pinned=embedding.padding_idx
    )
    largest = max(rewritten.old_ids)
    if largest >= embedding.num_embeddings:
        raise ModelError(
            f"the tokenizer has {tokenizer.convert_ids_to_tokens(largest)!r} as token {largest}, "
            f"the model has embeddings for {embedding.num_embeddings:,} tokens; leave out "
            "--prune-vocabulary"
        )
    return rewritten


def _reload(tokenizer: Any, content: Mapping[str, Any]) -> Any:
    """A tokenizer like the given one, with another tokenizer.json.

    Raises:
        ModelError: its class in transformers makes something else of it.
    """
    with tempfile.TemporaryDirectory() as scratch:
        tokenizer.save_pretrained(scratch)
        path = Path(scratch, TOKENIZER_FILE)
        path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
        try:
            reloaded = AutoTokenizer.from_pretrained(scratch, trust_remote_code=False)
            found = json.loads(reloaded.backend_tokenizer.to_str())
        except Exception as error:  # tokenizers raises plain Exception
            reason = first_line(error)
            raise ModelError(
                f"the tokenizer ({type(tokenizer).__name__}) cannot be loaded without the tokens "
                f"that the corpus never uses ({reason}); leave out --prune-vocabulary"
            ) from error
    different = [name for name in _SECTIONS if found[name] != content[name]]
    if different:
        raise ModelError(
            f"{type(tokenizer).__name__} of transformers needs tokens where they were "
            f"({different[0]} of tokenizer.json changes when it is loaded); leave out "
            "--prune-vocabulary"
        )
    reloaded.name_or_path = tokenizer.name_or_path  # not the scratch directory
    return reloaded


def _batches(
    classifier: TextClassifier, tokenizer: Any, texts: Sequence[Row], max_length: int
) -> list[dict[str, NDArray[np.int64]]]:
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, TOKENIZER_FILE)
        tokenizer.backend_tokenizer.save(str(path))
        return text_batches(
            path,
            texts,
            inputs=graph_inputs(tokenizer.model_input_names, classifier),
            max_length=max_length,
            pad_token_id=int(tokenizer.pad_token_id or 0),
        )
