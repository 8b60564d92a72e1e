import copy
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers

from export.vocabulary.checks import check_corpus, check_logits, label_agreement, same_tokens
from export.vocabulary.embeddings import token_embedding
from pipeline.artifacts.classifier import TextClassifier
from pipeline.errors import VerificationError

NEW_IDS = {0: 0, 1: 1, 3: 2}


def word_level(*words: str) -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, "?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer


BEFORE = word_level("?", "good", "bad", "film")
AFTER = word_level("?", "good", "film")


def test_a_corpus_with_the_same_tokens_passes_and_one_with_others_does_not():
    check_corpus([["good film", "film"], ["good unheard"]], BEFORE, AFTER, NEW_IDS.get)
    with pytest.raises(VerificationError, match="text 'bad film' of the corpus becomes other"):
        check_corpus([["good film"], ["film", "bad film"]], BEFORE, AFTER, NEW_IDS.get)


def test_same_tokens_looks_at_both_texts_of_a_pair():
    texts = [("good", "film"), ("bad", "good"), ("film", "bad film")]
    assert same_tokens(texts, BEFORE, AFTER, NEW_IDS.get).tolist() == [True, False, False]
    alone = ["good", "bad", "film"]
    assert same_tokens(alone, BEFORE, AFTER, NEW_IDS.get).tolist() == [True, False, True]


def test_logits_must_be_the_same(classifiers: dict[str, TextClassifier]):
    classifier = classifiers["wordpiece"]
    batch: dict[str, Any] = {
        "input_ids": np.array([[5, 9, 12], [6, 7, 8]]),
        "attention_mask": np.ones((2, 3), dtype=np.int64),
    }
    check_logits((classifier, [batch]), (classifier, [batch]))
    other = copy.deepcopy(classifier)
    with torch.no_grad():
        token_embedding(other).weight[9, 0] += 0.1
    with pytest.raises(VerificationError, match="a logit of a text that keeps its tokens differs"):
        check_logits((classifier, [batch]), (other, [batch]))
    with torch.no_grad():
        token_embedding(other).weight[9] = torch.nan
    with pytest.raises(VerificationError, match="differs by nan"):
        check_logits((classifier, [batch]), (other, [batch]))


def test_the_share_of_texts_that_keep_their_label(classifiers: dict[str, TextClassifier]):
    classifier = classifiers["wordpiece"]
    batch: dict[str, Any] = {
        "input_ids": np.array([[5, 9, 12], [6, 7, 8]]),
        "attention_mask": np.ones((2, 3), dtype=np.int64),
    }
    assert label_agreement((classifier, [batch]), (classifier, [batch])) == 1.0
    other = copy.deepcopy(classifier)
    with torch.no_grad():
        other.head.output.weight *= -1.0
        other.head.output.bias *= -1.0
    assert label_agreement((classifier, [batch]), (other, [batch])) == 0.0
