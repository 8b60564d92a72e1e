"""Tokenising and padding."""

import pytest
import torch
from transformers import AutoTokenizer

from pipeline.data import LabelledText
from smp.examples import collate, tokenise


@pytest.fixture(scope="module")
def tokenizer(tiny_bert):
    return AutoTokenizer.from_pretrained(tiny_bert)


def labelled(texts, pairs=None):
    labels = [0] * len(texts)
    column = None if pairs is None else "pair"
    return LabelledText("here", texts, pairs, labels, "text", column, "label")


def test_texts_beyond_the_maximum_are_cut_and_counted(tokenizer):
    data = labelled(["the film was good", "the film", "a very very very good story"])
    examples = tokenise(data, [0, 1, 0], tokenizer, max_length=5)
    assert examples.truncated == 2
    assert [len(ids) for ids in examples.inputs["input_ids"]] == [5, 4, 5]
    for ids in examples.inputs["input_ids"]:
        assert ids[0] == tokenizer.cls_token_id
        assert ids[-1] == tokenizer.sep_token_id


def test_a_pair_is_one_sequence_with_two_token_types(tokenizer):
    examples = tokenise(labelled(["the film"], ["good"]), [1], tokenizer, max_length=16)
    assert examples.inputs["token_type_ids"] == [[0, 0, 0, 0, 1, 1]]


def test_targets_are_classes_or_numbers(tokenizer):
    data = labelled(["the", "film"])
    assert tokenise(data, [1, 0], tokenizer, 8).targets.dtype == torch.int64
    assert tokenise(data, [1.5, 0.0], tokenizer, 8).targets.dtype == torch.float32


def test_a_batch_is_padded_to_its_longest_example_only(tokenizer):
    data = labelled(["the", "the film was", "the film was very very good"])
    examples = tokenise(data, [0, 1, 1], tokenizer, max_length=32)
    batch = collate([examples[0], examples[1]], pad_token_id=7)
    assert batch["input_ids"].shape == (2, 5)
    assert batch["input_ids"][0, 3:].tolist() == [7, 7]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]
    assert batch["labels"].tolist() == [0, 1]
