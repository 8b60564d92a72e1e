"""Windows of contexts, against those that transformers makes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer
from tokenizers.pre_tokenizers import Split
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer

from pipeline.errors import DataError
from pipeline.windows import encode_windows, span_tokens

WORDS = ("the", "film", "plot", "was", "good", "bad", "story")
text = st.lists(st.sampled_from(WORDS), min_size=1, max_size=40).map(" ".join)


@pytest.fixture(scope="module")
def tokenizer(tiny_bert):
    return Tokenizer.from_file(str(tiny_bert / "tokenizer.json"))


@pytest.fixture(scope="module")
def of_transformers(tiny_bert):
    return AutoTokenizer.from_pretrained(tiny_bert)


def windows(tokenizer, question, context, *, max_length=16, stride=4):
    return list(
        encode_windows(tokenizer, [question], [context], max_length=max_length, stride=stride)
    )


@given(context=text, stride=st.integers(0, 5))
def test_windows_are_those_of_transformers(tokenizer, of_transformers, context, stride):
    found = windows(tokenizer, "was it good", context, stride=stride)
    expected = of_transformers(
        "was it good",
        context,
        max_length=16,
        stride=stride,
        truncation="only_second",
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    assert [window.ids for window in found] == expected["input_ids"]
    assert [window.type_ids for window in found] == expected["token_type_ids"]
    for index, window in enumerate(found):
        in_context = [part == 1 for part in expected.sequence_ids(index)]
        offsets = np.array(expected["offset_mapping"][index])[in_context]
        assert window.context_start == in_context.index(True)
        np.testing.assert_array_equal(window.offsets, offsets)


@given(context=text, data=st.data())
def test_a_span_is_found_whole_or_not_at_all(tokenizer, context, data):
    words = context.split()
    first = data.draw(st.integers(0, len(words) - 1))
    last = data.draw(st.integers(first, min(first + 2, len(words) - 1)))
    start = len(" ".join(words[:first])) + (first > 0)
    end = start + len(" ".join(words[first : last + 1]))
    places = []
    for window in windows(tokenizer, "was it", context):
        place = span_tokens(window, start, end)
        if place is not None:
            offsets = window.offsets[np.array(place) - window.context_start]
            assert context[offsets[0, 0] : offsets[1, 1]] == context[start:end]
            places.append(place)
    # Neighbours share 4 tokens, so a span of 3 is whole in one of them.
    assert places


def test_a_span_inside_a_token_takes_the_token(tokenizer):
    (window,) = windows(tokenizer, "was it", "the film was good")
    assert span_tokens(window, 5, 7) == (window.context_start + 1, window.context_start + 1)
    assert span_tokens(window, 0, 40) is None


def test_spaces_are_no_part_of_tokens(tiny_bert):
    tokenizer = Tokenizer.from_file(str(tiny_bert / "tokenizer.json"))
    # As SentencePiece's models do it: the space before a word belongs to it.
    tokenizer.pre_tokenizer = Split(Regex(r"\s*\S+"), "isolated")
    context = "the film  was good"
    (window,) = windows(tokenizer, "was", context)
    assert [context[start:end] for start, end in window.offsets] == context.split()
    assert span_tokens(window, 10, 13) == (window.context_start + 2, window.context_start + 2)


def test_a_stride_beyond_half_of_the_room_is_cut_to_that(tokenizer):
    longest = windows(tokenizer, "was it", "good " * 30, max_length=16, stride=128)
    half = windows(tokenizer, "was it", "good " * 30, max_length=16, stride=5)
    assert [window.ids for window in longest] == [window.ids for window in half]


def test_what_leaves_no_room_is_refused(tokenizer):
    with pytest.raises(DataError, match=r"--train-file: example 1: .* are 19 tokens, which leaves"):
        list(
            encode_windows(
                tokenizer, ["was " * 16], ["good"], max_length=16, stride=0, where="--train-file"
            )
        )
    with pytest.raises(DataError, match="the question: has no tokens in its context"):
        windows(tokenizer, "was it", "\u200b")


def test_robertas_separators_stay_around_each_part_of_the_context(tiny_bert):
    tokenizer = Tokenizer.from_file(str(tiny_bert / "tokenizer.json"))
    special = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] [SEP] $B [SEP]", special_tokens=special
    )
    found = windows(tokenizer, "was", "the film was good and bad", max_length=9, stride=1)
    assert [" ".join(map(tokenizer.id_to_token, window.ids)) for window in found] == [
        "[CLS] was [SEP] [SEP] the film was good [SEP]",
        "[CLS] was [SEP] [SEP] good and bad [SEP]",
    ]
    assert {window.context_start for window in found} == {4}
    assert {kind for window in found for kind in window.type_ids} == {0}
