"""The tokens that are kept, on the tokenizers library alone: no transformers, no model."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models

from export.vocabulary.needed import merged, needed_tokens
from export.vocabulary.rewrite import referenced_ids, rewrite
from pipeline.errors import ModelError
from tests.export.vocabulary.made_up import CHARACTERS, KINDS, TRAINING

words = st.text(CHARACTERS, min_size=1, max_size=12)
texts = st.lists(words, min_size=1, max_size=6).map(" ".join)


def prune(tokenizer: Tokenizer, lines: list[str]) -> Tokenizer:
    content = json.loads(tokenizer.to_str())
    ids = referenced_ids(content)
    for line in lines:
        ids.update(tokenizer.encode(line).ids)
    used = {tokenizer.id_to_token(index) for index in ids}
    kept = needed_tokens(content["model"], used & vocabulary_of(content))
    return Tokenizer.from_str(json.dumps(rewrite(content, kept, pinned=None).content))


def vocabulary_of(content: dict[str, Any]) -> set[str]:
    vocabulary = content["model"]["vocab"]
    return {entry if isinstance(entry, str) else entry[0] for entry in vocabulary}


def backend(tokenizers: dict[str, Any], kind: str) -> Tokenizer:
    """A copy of its own; a test that cut or padded texts left that set on the tokenizer."""
    tokenizer = Tokenizer.from_str(tokenizers[kind].backend_tokenizer.to_str())
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25, deadline=None)
@given(
    lines=st.lists(st.sampled_from(TRAINING) | texts | st.text(max_size=20), max_size=8),
    others=st.lists(texts | st.text(max_size=20), max_size=4),
)
def test_a_corpus_keeps_its_tokens_and_other_texts_their_characters(
    kind: str, lines: list[str], others: list[str], tokenizers: dict[str, Any]
):
    before = backend(tokenizers, kind)
    after = prune(before, lines)
    unknown = before.token_to_id(tokenizers[kind].unk_token)
    size = after.get_vocab_size(with_added_tokens=True)
    for line in lines:
        assert after.encode(line).tokens == before.encode(line).tokens
        assert after.encode(line, line).tokens == before.encode(line, line).tokens
    for text in others:
        encoding = after.encode(text)
        assert all(index < size for index in encoding.ids)
        if kind != "word-level" and unknown not in before.encode(text).ids:
            assert after.token_to_id(tokenizers[kind].unk_token) not in encoding.ids
            assert spelled(after, encoding.ids) == spelled(before, before.encode(text).ids)
    again = prune(after, lines)
    assert again.get_vocab() == after.get_vocab()
    assert json.loads(again.to_str())["model"] == json.loads(after.to_str())["model"]


def spelled(tokenizer: Tokenizer, ids: list[int]) -> str:
    """The characters that tokens stand for, without marks of where in a word they are."""
    tokens = [tokenizer.id_to_token(index) for index in ids]
    return "".join(
        token.removeprefix("##").removeprefix("@@").removesuffix("</w>") for token in tokens
    )


@pytest.mark.parametrize("kind", ["byte-bpe", "character-bpe"])
def test_merges_are_closed(kind: str, tokenizers: dict[str, Any]):
    before = backend(tokenizers, kind)
    full = json.loads(before.to_str())["model"]
    model = json.loads(prune(before, TRAINING[:5]).to_str())["model"]
    made = set()
    for left, right in model["merges"]:
        assert {left, right, merged(model, left, right)} <= model["vocab"].keys()
        made.add(merged(model, left, right))
    could_be_made = {merged(full, left, right) for left, right in full["merges"]}
    assert made == could_be_made & model["vocab"].keys()
    assert len(model["merges"]) < len(full["merges"])
    # The order is the priority.
    order = [full["merges"].index(pair) for pair in model["merges"]]
    assert order == sorted(order)


def test_every_byte_stays(tokenizers: dict[str, Any]):
    after = prune(backend(tokenizers, "byte-bpe"), ["ka"])
    every = "".join(chr(code) for code in range(0x20, 0x2000))
    assert after.token_to_id("<unk>") not in after.encode(every).ids


def test_what_is_unknown_to_unigram_scores_as_before():
    """Unknown characters score less than the least probable piece, also when no text uses that."""
    pieces = [("<unk>", 0.0), ("xa", -20.0), ("bcd", -20.0), ("abcd", -1.0), ("zz", -100.0)]
    pieces += [(character, -19.0) for character in "abcdz"]
    before = Tokenizer(models.Unigram(pieces, unk_id=0))
    after = prune(before, ["xabcd", "abcd"])
    assert before.encode("xabcd").tokens == ["xa", "bcd"]
    assert after.encode("xabcd").tokens == ["xa", "bcd"]
    assert after.get_vocab_size() == len(pieces)
    # The second piece of that score is not needed.
    more = Tokenizer(models.Unigram([*pieces, ("zzz", -100.0)], unk_id=0))
    assert prune(more, ["xabcd", "abcd"]).get_vocab() == before.get_vocab()


def test_byte_tokens_of_sentencepiece_stay():
    model = {
        "type": "BPE",
        "unk_token": "<unk>",
        "byte_fallback": True,
        "vocab": {"<unk>": 0, "<0x0A>": 1, "<0xFF>": 2, "a": 3, "b": 4, "ab": 5, "<0xF>": 6},
        "merges": [["a", "b"]],
    }
    assert needed_tokens(model, set()) == {"<unk>", "<0x0A>", "<0xFF>", "a", "b"}
    assert needed_tokens(model, {"ab"}) >= {"a", "b", "ab"}


def test_a_model_of_another_type_is_refused():
    with pytest.raises(ModelError, match=r"--prune-vocabulary knows .* this one is Charbits"):
        needed_tokens({"type": "Charbits", "vocab": {}}, set())
