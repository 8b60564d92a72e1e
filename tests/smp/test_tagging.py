"""Sentences as training examples, and the whole way from a file to labelled words."""

import numpy as np
import pytest
from transformers import AutoTokenizer

from pipeline.artifacts.run import read_run
from pipeline.tagged_words import TaggedWords
from smp.examples import collate
from smp.losses import NO_TARGET
from smp.tagging import score_words, tokenise_words

LABELS = ("O", "B-POS")
WORDS = [("the", "film's", "good"), ("bad",)]
TAGS = [("O", "O", "B-POS"), ("O",)]
DATA = TaggedWords("here", WORDS, TAGS, "tokens", "tags")


@pytest.fixture(scope="module")
def tokenizer(tiny_bert):
    return AutoTokenizer.from_pretrained(tiny_bert)


def tokenised(tokenizer, max_length=16):
    return tokenise_words(DATA, [[0, 0, 1], [0]], tokenizer, max_length)


def test_the_first_token_of_a_word_has_its_label(tokenizer):
    examples = tokenised(tokenizer)
    tokens = tokenizer.convert_ids_to_tokens(examples[0]["input_ids"])
    assert tokens == ["[CLS]", "the", "film", "[UNK]", "[UNK]", "good", "[SEP]"]
    none = NO_TARGET
    assert examples[0]["labels"].tolist() == [none, 0, 0, none, none, 1, none]
    assert examples[1]["labels"].tolist() == [none, 0, none]
    assert examples.truncated == 0
    assert set(examples.inputs) == {"input_ids", "attention_mask", "token_type_ids"}


def test_a_batch_pads_labels_as_tokens(tokenizer):
    examples = tokenised(tokenizer)
    batch = collate([examples[0], examples[1]], pad_token_id=0)
    assert batch["labels"].shape == batch["input_ids"].shape == (2, 7)
    assert batch["labels"][1].tolist() == [NO_TARGET, 0, *[NO_TARGET] * 5]


def test_words_beyond_the_maximum_are_counted_and_judged_as_outside(tokenizer):
    examples = tokenised(tokenizer, max_length=4)
    assert examples.truncated == 1
    assert [first.tolist() for first in examples.first_tokens] == [[1, 2, -1], [1]]
    logits = [np.tile([0.0, 1.0], (4, 1)), np.tile([1.0, 0.0], (4, 1))]
    metrics = score_words(DATA, examples, logits, LABELS)
    # B-POS for the first two words, O for the third, which was cut, and for the last.
    assert metrics == {
        "entity_f1": 0.0,
        "entity_precision": 0.0,
        "entity_recall": 0.0,
        "accuracy": 0.25,
    }


def test_right_logits_give_full_marks(tokenizer):
    examples = tokenised(tokenizer)
    logits = []
    for first, tags in zip(examples.first_tokens, TAGS, strict=True):
        values = np.zeros((9, 2))
        values[first, [LABELS.index(tag) for tag in tags]] = 1.0
        logits.append(values)
    metrics = score_words(DATA, examples, logits, LABELS)
    assert metrics["entity_f1"] == metrics["accuracy"] == 1.0


def test_training_finds_entities_better_than_chance(tagging_run):
    manifest = read_run(tagging_run)
    # The head alone is at some 0.54, and calling nothing an entity gives 0.
    assert manifest.metrics["entity_f1"] > 0.6
    assert manifest.metrics["accuracy"] > 0.8
    assert manifest.task.kind == "token-classification"
    assert manifest.task.labels == ("O", "B-NEG", "B-POS", "I-NEG", "I-POS")
    assert manifest.task.metric == "entity_f1"
    assert manifest.task.answers is None
    assert (manifest.head.pooling, manifest.head.outputs) == ("tokens", 5)
    assert manifest.train_data.rows == 96
