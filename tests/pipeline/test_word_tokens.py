"""The first token of each word, by the tokenizers of BERT's, RoBERTa's and T5's kind."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from tokenizers.trainers import BpeTrainer, UnigramTrainer, WordPieceTrainer

from pipeline.word_tokens import first_tokens, join_words

WORDS = ["London", "is", "larger", "than", "Leeds-Bradford", "and", "U.K.", "x"]


def wordpiece():
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = WordPieceTrainer(vocab_size=60, special_tokens=["[UNK]"], show_progress=False)
    tokenizer.train_from_iterator(WORDS, trainer)
    return tokenizer


def byte_level(*, trim_offsets):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=trim_offsets)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(WORDS, trainer)
    return tokenizer


def unigram():
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = UnigramTrainer(vocab_size=60, show_progress=False, unk_token="<unk>")
    tokenizer.train_from_iterator(WORDS, trainer)
    return tokenizer


@pytest.fixture(
    scope="module",
    params=[
        wordpiece,
        lambda: byte_level(trim_offsets=True),
        lambda: byte_level(trim_offsets=False),
        unigram,
    ],
    ids=["wordpiece", "byte-level", "byte-level-spaces", "unigram"],
)
def tokenizer(request):
    return request.param()


@given(words=st.lists(st.sampled_from(WORDS), min_size=1, max_size=8))
def test_every_word_has_its_first_token(tokenizer, words):
    text, spans = join_words(words)
    assert [text[start:end] for start, end in spans] == words
    offsets = tokenizer.encode(text).offsets
    found = first_tokens(offsets, spans, text)
    assert (np.diff(found) > 0).all()
    for word, position in zip(words, found, strict=True):
        start, end = offsets[position]
        assert word.startswith(text[start:end].strip())


def test_words_that_are_cut_or_empty_have_no_token():
    text, spans = join_words(["a", "", "b", "c"])
    assert text == "a  b c"
    offsets = [(0, 0), (0, 1), (3, 4), (0, 0)]
    assert first_tokens(offsets, spans, text).tolist() == [1, -1, 2, -1]
    assert first_tokens([(0, 0)], spans[:0], "").tolist() == []
