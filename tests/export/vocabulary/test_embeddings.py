from typing import Any

import pytest
import torch
from torch import nn
from transformers import BertConfig, RobertaConfig

from export.vocabulary.embeddings import configured_ids, token_embedding, with_tokens
from pipeline.artifacts.classifier import TextClassifier
from pipeline.errors import ModelError
from tests.export.vocabulary.made_up import random_classifier

KEPT = [0, 1, 5, 9, 12]
RENUMBER = {old: new for new, old in enumerate(KEPT)}.get


@pytest.fixture
def classifier(tokenizers: dict[str, Any]) -> TextClassifier:
    classifier = random_classifier(tokenizers["wordpiece"], BertConfig, pooling="mask")
    classifier.layout = type(classifier.layout)("linear", "mask", 16, 2, mask_token_id=9)
    classifier.encoder.config.eos_token_id = [5, 12]
    classifier.encoder.config.bos_token_id = 3
    return classifier


def test_ids_follow_their_tokens_everywhere(classifier: TextClassifier):
    assert configured_ids(classifier) == {0, 3, 5, 9, 12}
    pruned = with_tokens(classifier, KEPT, RENUMBER)
    config = pruned.encoder.config
    assert (config.vocab_size, config.pad_token_id, config.bos_token_id) == (5, 0, None)
    assert config.eos_token_id == [2, 4]
    assert pruned.layout.mask_token_id == 3
    embedding = token_embedding(pruned)
    assert (embedding.num_embeddings, embedding.padding_idx) == (5, 0)
    assert torch.equal(embedding.weight, token_embedding(classifier).weight[KEPT])


def test_the_given_classifier_stays_and_shares_its_other_weights(classifier: TextClassifier):
    before = {name: weight.clone() for name, weight in classifier.named_parameters()}
    rows = token_embedding(classifier).num_embeddings
    pruned = with_tokens(classifier, KEPT, RENUMBER)
    assert token_embedding(classifier).num_embeddings == rows
    assert classifier.encoder.config.vocab_size == rows
    assert classifier.layout.mask_token_id == 9
    own = []
    for (name, old), new in zip(classifier.named_parameters(), pruned.parameters(), strict=True):
        assert torch.equal(old, before[name])
        if new is not old:
            own.append(name)
    assert own == ["encoder.embeddings.word_embeddings.weight"]


def test_roberta_counts_positions_from_the_padding_token(tokenizers: dict[str, Any]):
    classifier = random_classifier(tokenizers["byte-bpe"], RobertaConfig)
    pruned = with_tokens(classifier, KEPT, RENUMBER)
    ids = torch.tensor([[5, 9, 12, 1], [9, 0, 1, 1]])
    new_ids = torch.tensor([[RENUMBER(index) for index in row] for row in ids.tolist()])
    mask = ids.ne(1).long()
    with torch.inference_mode():
        assert torch.equal(classifier(ids, mask), pruned(new_ids, mask))


def test_an_encoder_without_token_embeddings_is_refused(classifier: TextClassifier):
    classifier.encoder.set_input_embeddings(nn.Linear(3, 3))
    with pytest.raises(ModelError, match="bert have no plain token embeddings"):
        token_embedding(classifier)
