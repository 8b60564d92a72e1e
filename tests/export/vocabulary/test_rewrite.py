import json
from copy import deepcopy
from typing import Any

import pytest
from tokenizers import Tokenizer, models, processors

from export.vocabulary.rewrite import referenced_ids, rewrite
from pipeline.errors import ModelError

WORDS = ("odd", "<pad>", "one", "two", "<s>", "three", "<unk>", "</s>")


def tokenizer_json(*, outside: tuple[str, ...] = ()) -> dict[str, Any]:
    """A WordLevel tokenizer over WORDS, with tokens outside its model."""
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, "<unk>"))
    backend.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>", *outside])
    backend.enable_padding(pad_id=1, pad_token="<pad>")
    return json.loads(backend.to_str())


def with_processor(processor: Any) -> dict[str, Any]:
    backend = Tokenizer.from_str(json.dumps(tokenizer_json()))
    backend.post_processor = processor
    return json.loads(backend.to_str())


SPECIAL = {"<pad>", "<s>", "<unk>", "</s>"}


def test_tokens_are_numbered_anew_in_their_order():
    content = tokenizer_json(outside=("<later>", "<last>"))
    before = deepcopy(content)
    rewritten = rewrite(content, SPECIAL | {"two"}, pinned=None)
    assert content == before
    assert rewritten.content["model"]["vocab"] == {
        "<pad>": 0,
        "two": 1,
        "<s>": 2,
        "<unk>": 3,
        "</s>": 4,
    }
    assert rewritten.old_ids == [1, 3, 4, 6, 7, 8, 9]
    loaded = Tokenizer.from_str(json.dumps(rewritten.content))
    assert loaded.token_to_id("<later>") == 5
    assert loaded.token_to_id("<last>") == 6
    assert rewritten.content["padding"]["pad_id"] == 0
    added = {token["content"]: token["id"] for token in rewritten.content["added_tokens"]}
    assert added == {token: loaded.token_to_id(token) for token in added}


def test_the_pinned_token_keeps_its_id():
    rewritten = rewrite(tokenizer_json(), SPECIAL, pinned=1)
    assert rewritten.old_ids == [4, 1, 6, 7]
    assert rewritten.content["padding"]["pad_id"] == 1
    assert rewrite(tokenizer_json(), SPECIAL, pinned=7).old_ids == [1, 4, 6, 7]
    assert rewrite(tokenizer_json(), SPECIAL, pinned=6).old_ids == [1, 4, 7, 6]


@pytest.mark.parametrize(
    "processor",
    [
        processors.BertProcessing(("</s>", 7), ("<s>", 4)),
        processors.RobertaProcessing(("</s>", 7), ("<s>", 4)),
        processors.TemplateProcessing(
            single="<s> $A </s>",
            pair="<s> $A </s> $B </s>",
            special_tokens=[("<s>", 4), ("</s>", 7)],
        ),
        processors.Sequence(
            [processors.ByteLevel(), processors.BertProcessing(("</s>", 7), ("<s>", 4))]
        ),
    ],
    ids=["bert", "roberta", "template", "sequence"],
)
def test_every_post_processor_puts_the_same_tokens_around_a_text(processor: Any):
    content = with_processor(processor)
    assert {4, 7} <= referenced_ids(content)
    after = Tokenizer.from_str(json.dumps(rewrite(content, SPECIAL | {"two"}, pinned=None).content))
    assert after.encode("two").ids == [2, 1, 4]
    assert after.encode("two").tokens == ["<s>", "two", "</s>"]
    assert after.encode("two", "two").ids.count(after.token_to_id("</s>")) >= 2


def test_an_id_without_a_token_is_refused():
    content = with_processor(processors.BertProcessing(("</s>", 70), ("<s>", 4)))
    with pytest.raises(ModelError, match="names a token with id 70, which is not in its"):
        rewrite(content, SPECIAL, pinned=None)


def test_a_post_processor_of_another_type_is_refused():
    content = {**tokenizer_json(), "post_processor": {"type": "Unheard"}}
    with pytest.raises(ModelError, match="post-processor Unheard; leave it out"):
        referenced_ids(content)
