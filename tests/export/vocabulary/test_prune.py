import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoTokenizer, RobertaConfig, RobertaTokenizer

from export.model_config import write_config, write_tokenizer
from export.vocabulary import Pruned, prune_vocabulary
from pipeline.artifacts.classifier import TextClassifier
from pipeline.artifacts.files import sha256_file
from pipeline.artifacts.run import TaskLayout
from pipeline.errors import DataError, ModelError
from tests.export.vocabulary.made_up import CORPUS, KINDS, TRAINING, random_classifier

MAX_LENGTH = 24
UNSEEN = ["kalomi nésta!", "üxruvel , thing", "o"]
ROLES = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")


@pytest.fixture(scope="module")
def pruned(
    tokenizers: dict[str, Any], classifiers: dict[str, TextClassifier], corpus: Path
) -> dict[str, Pruned]:
    """Every kind, pruned with the corpus."""
    texts = [*CORPUS[:4], *TRAINING[100:108]]
    return {
        kind: prune_vocabulary(
            classifiers[kind], tokenizers[kind], corpus, texts=texts, max_length=MAX_LENGTH
        )
        for kind in KINDS
    }


def logits(classifier: TextClassifier, tokenizer: Any, *texts: list[str]) -> torch.Tensor:
    batch = tokenizer(*texts, padding=True, truncation=True, max_length=48, return_tensors="pt")
    with torch.inference_mode():
        return classifier(**batch)


@pytest.mark.parametrize("kind", KINDS)
def test_texts_of_the_corpus_keep_tokens_and_logits(
    kind: str,
    tokenizers: dict[str, Any],
    classifiers: dict[str, TextClassifier],
    pruned: dict[str, Pruned],
):
    result = pruned[kind]
    for text in CORPUS:
        assert result.tokenizer.tokenize(text) == tokenizers[kind].tokenize(text)
    for texts in ([CORPUS], [CORPUS, CORPUS[::-1]]):
        expected = logits(classifiers[kind], tokenizers[kind], *texts)
        found = logits(result.classifier, result.tokenizer, *texts)
        np.testing.assert_allclose(found, expected, atol=1e-5)
    assert torch.isfinite(logits(result.classifier, result.tokenizer, UNSEEN)).all()


@pytest.mark.parametrize("kind", KINDS)
def test_the_vocabulary_is_smaller_and_fits_the_model(
    kind: str,
    tokenizers: dict[str, Any],
    classifiers: dict[str, TextClassifier],
    pruned: dict[str, Pruned],
):
    result = pruned[kind]
    size = len(result.tokenizer)
    assert sorted(result.tokenizer.get_vocab().values()) == list(range(size))
    assert size < len(tokenizers[kind])
    assert result.tokenizer.name_or_path == tokenizers[kind].name_or_path
    assert result.classifier.encoder.config.vocab_size == size
    assert result.classifier.encoder.get_input_embeddings().weight.shape == (size, 16)
    old_config, config = classifiers[kind].encoder.config, result.classifier.encoder.config
    assert config.pad_token_id == result.tokenizer.pad_token_id == old_config.pad_token_id
    for role in ROLES:
        token = getattr(tokenizers[kind], role)
        assert getattr(result.tokenizer, role) == token
        assert result.tokenizer.convert_tokens_to_ids(token) < size


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_reads_back_in_transformers_and_tokenizers(
    kind: str, pruned: dict[str, Pruned], tmp_path: Path
):
    result = pruned[kind]
    write_tokenizer(tmp_path, result.tokenizer, MAX_LENGTH)
    task = TaskLayout("classification", ("a", "b"), "text", None, "label", 24, "accuracy")
    write_config(tmp_path, result.classifier.encoder.config, task)
    assert {path.name for path in tmp_path.iterdir()} == {
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["vocab_size"] == len(result.tokenizer)
    assert "/tmp" not in (tmp_path / "tokenizer_config.json").read_text()
    loaded = AutoTokenizer.from_pretrained(str(tmp_path))
    library = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    for text in [*CORPUS, *UNSEEN, "日本 ☃"]:
        ids = result.tokenizer(text)["input_ids"]
        assert loaded(text)["input_ids"] == ids
        assert library.encode(text).ids == ids
        assert loaded(text, CORPUS[0])["input_ids"] == library.encode(text, CORPUS[0]).ids
    for role in ROLES:
        assert getattr(loaded, role) == getattr(result.tokenizer, role)


@pytest.mark.parametrize("kind", KINDS)
def test_pruning_again_keeps_everything(kind: str, pruned: dict[str, Pruned], corpus: Path):
    first = pruned[kind]
    again = prune_vocabulary(
        first.classifier,
        first.tokenizer,
        corpus,
        texts=CORPUS[:2],
        max_length=MAX_LENGTH,
    )
    assert again.tokenizer.get_vocab() == first.tokenizer.get_vocab()
    assert again.report.tokens == again.report.tokens_before == first.report.tokens
    assert again.report.changed == 0


def test_the_report(
    tokenizers: dict[str, Any], classifiers: dict[str, TextClassifier], corpus: Path
):
    tokenizer, classifier = tokenizers["wordpiece"], classifiers["wordpiece"]
    before = tokenizer.backend_tokenizer.to_str()
    # Of the four texts two are not in the corpus, with words that are not in it either.
    texts = [CORPUS[0], "stathmi", CORPUS[1], "velingüx ka"]
    result = prune_vocabulary(classifier, tokenizer, corpus, texts=texts, max_length=MAX_LENGTH)
    assert tokenizer.backend_tokenizer.to_str() == before
    expected = [tokenizer.tokenize(text) == result.tokenizer.tokenize(text) for text in texts]
    assert result.report.changed == 1 - np.mean(expected)
    assert 0 < result.report.changed < 1
    assert result.report.corpus == "corpus.txt"
    assert result.report.corpus_sha256 == sha256_file(corpus)
    assert result.report.texts == len(CORPUS)
    assert result.report.tokens == len(result.tokenizer)
    assert result.report.tokens_before == classifier.encoder.config.vocab_size


def test_texts_that_all_change_leave_the_corpus_to_compare_on(
    tokenizers: dict[str, Any], classifiers: dict[str, TextClassifier], tmp_path: Path
):
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("o o\n", encoding="utf-8")
    texts = list(zip(TRAINING[:3], TRAINING[3:6], strict=True))
    result = prune_vocabulary(
        classifiers["wordpiece"], tokenizers["wordpiece"], corpus, texts=texts, max_length=12
    )
    assert result.report.changed == 1


def test_the_padding_token_keeps_its_id_where_positions_are_counted_from_it(
    tokenizers: dict[str, Any], corpus: Path
):
    """With tokens before it that nothing uses."""
    model = json.loads(tokenizers["byte-bpe"].backend_tokenizer.to_str())["model"]
    order = sorted(model["vocab"], key=model["vocab"].__getitem__)
    order = [*order[-4:], *order[:-4]]
    tokenizer = RobertaTokenizer(
        vocab={token: index for index, token in enumerate(order)},
        merges=[tuple(pair) for pair in model["merges"]],
    )
    assert tokenizer.pad_token_id == 5
    classifier = random_classifier(tokenizer, RobertaConfig)
    result = prune_vocabulary(
        classifier, tokenizer, corpus, texts=CORPUS[:3], max_length=MAX_LENGTH
    )
    assert result.report.tokens < len(tokenizer)
    assert result.tokenizer.pad_token_id == 5
    expected = logits(classifier, tokenizer, CORPUS)
    np.testing.assert_allclose(
        logits(result.classifier, result.tokenizer, CORPUS), expected, atol=1e-5
    )


def test_the_mask_token_of_the_head_is_renumbered(tokenizers: dict[str, Any], corpus: Path):
    tokenizer = tokenizers["unigram"]
    _, config_class = KINDS["unigram"]
    classifier = random_classifier(tokenizer, config_class, pooling="mask")
    result = prune_vocabulary(
        classifier, tokenizer, corpus, texts=CORPUS[:3], max_length=MAX_LENGTH
    )
    assert result.classifier.layout.mask_token_id == result.tokenizer.mask_token_id
    assert result.tokenizer.mask_token_id != tokenizer.mask_token_id
    texts = [f"{text} <mask> {text}" for text in CORPUS[:5]]
    np.testing.assert_allclose(
        logits(result.classifier, result.tokenizer, texts),
        logits(classifier, tokenizer, texts),
        atol=1e-5,
    )


def test_a_token_that_only_the_configuration_names_is_kept(
    tokenizers: dict[str, Any], corpus: Path
):
    tokenizer = tokenizers["wordpiece"]
    classifier = random_classifier(tokenizer, KINDS["wordpiece"][1])
    classifier.encoder.config.bos_token_id = tokenizer.convert_tokens_to_ids("[unused1]")
    result = prune_vocabulary(
        classifier, tokenizer, corpus, texts=CORPUS[:2], max_length=MAX_LENGTH
    )
    kept = result.classifier.encoder.config.bos_token_id
    assert result.tokenizer.convert_ids_to_tokens(kept) == "[unused1]"
    assert "[unused2]" not in result.tokenizer.get_vocab()


def test_truncation_and_padding_of_tokenizer_json_stay(
    tokenizers: dict[str, Any], classifiers: dict[str, TextClassifier], tmp_path: Path, corpus: Path
):
    """And a corpus is counted beyond the truncation."""
    tokenizers["wordpiece"].save_pretrained(tmp_path)
    backend = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    backend.enable_truncation(4)
    backend.enable_padding(length=4)
    backend.save(str(tmp_path / "tokenizer.json"))
    tokenizer = AutoTokenizer.from_pretrained(str(tmp_path))
    result = prune_vocabulary(
        classifiers["wordpiece"],
        tokenizer,
        corpus,
        texts=CORPUS[:3],
        max_length=MAX_LENGTH,
    )
    assert result.tokenizer.backend_tokenizer.truncation == tokenizer.backend_tokenizer.truncation
    assert result.tokenizer.backend_tokenizer.padding == tokenizer.backend_tokenizer.padding
    full = tokenizers["wordpiece"]
    assert [result.tokenizer.tokenize(text) for text in CORPUS] == [
        full.tokenize(text) for text in CORPUS
    ]


def test_a_tokenizer_with_more_tokens_than_embeddings_is_refused(
    tokenizers: dict[str, Any], corpus: Path
):
    tokenizer = tokenizers["unigram-and-added"]
    classifier = random_classifier(tokenizer, KINDS["unigram-and-added"][1])
    rows = tokenizer.mask_token_id
    classifier.encoder.set_input_embeddings(torch.nn.Embedding(rows, 16))
    with pytest.raises(
        ModelError, match=rf"has '\[MASK\]' as token {rows}, the model has embeddings for {rows} "
    ):
        prune_vocabulary(classifier, tokenizer, corpus, texts=CORPUS[:2], max_length=MAX_LENGTH)


def test_a_class_that_wants_its_unknown_token_in_a_fixed_place_is_refused(
    tokenizers: dict[str, Any], corpus: Path
):
    """XLM-R's class takes whatever is token 3 as the unknown one."""
    tokenizer = tokenizers["unigram"]
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    pieces = [tuple(piece) for piece in model["vocab"]]
    unused = [(f"unused{index}", -1.0) for index in range(2)]
    shifted = type(tokenizer)(
        vocab=[unused[0], pieces[1], unused[1], pieces[3], *pieces[4:], pieces[0], pieces[2]]
    )
    classifier = random_classifier(shifted, KINDS["unigram"][1])
    classifier.encoder.config.bos_token_id = classifier.encoder.config.eos_token_id = None
    with pytest.raises(ModelError, match="XLMRobertaTokenizer of transformers needs tokens where"):
        prune_vocabulary(classifier, shifted, corpus, texts=CORPUS[:2], max_length=MAX_LENGTH)


def test_a_bad_corpus_is_refused_before_anything_else(
    tokenizers: dict[str, Any], classifiers: dict[str, TextClassifier], tmp_path: Path
):
    with pytest.raises(DataError, match=r"--prune-vocabulary .*none\.txt: no such file"):
        prune_vocabulary(
            classifiers["wordpiece"],
            tokenizers["wordpiece"],
            tmp_path / "none.txt",
            texts=CORPUS[:2],
            max_length=MAX_LENGTH,
        )
