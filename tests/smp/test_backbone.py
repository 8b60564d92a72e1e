"""Tokenizer, length limit, pooling and the choice of head."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoTokenizer, BertConfig, BertForMaskedLM

from pipeline.artifacts.classifier import load_encoder
from pipeline.config import TrainConfig
from pipeline.data import read_labelled_text
from pipeline.errors import ConfigurationError, ModelError
from smp.backbone import (
    build_head,
    check_vocabulary,
    choose_pooling,
    load_tokenizer,
    longest_input,
)
from smp.examples import Examples, tokenise

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def language_model(tiny_bert, tmp_path_factory):
    directory = tmp_path_factory.mktemp("language-model")
    BertForMaskedLM(BertConfig.from_pretrained(tiny_bert)).save_pretrained(directory)
    AutoTokenizer.from_pretrained(tiny_bert).save_pretrained(directory)
    return directory


def config_of(model, reviews, **settings):
    return TrainConfig(
        model=str(model),
        output_dir=Path("run"),
        train_file=reviews[0],
        validation_file=reviews[1],
        density=0.5,
        **settings,
    )


def head_of(model, reviews, **settings):
    config = config_of(model, reviews, **settings)
    tokenizer = load_tokenizer(config.model, revision=None)
    data = read_labelled_text(reviews[0], flag="--train-file")
    examples = tokenise(data, [int(label) for label in data.labels], tokenizer, 32)
    encoder = load_encoder(config.model)
    return build_head(config, encoder, tokenizer, examples, ("0", "1"), CPU)


def test_auto_takes_least_squares_where_there_is_no_language_model(tiny_bert, reviews):
    _, layout = head_of(tiny_bert, reviews)
    assert (layout.kind, layout.pooling) == ("least-squares", "first")


def test_auto_takes_label_words_where_there_is_one_and_words_are_given(language_model, reviews):
    _, layout = head_of(language_model, reviews, label_words=("bad", "good"))
    assert (layout.kind, layout.pooling) == ("label-words", "mask")
    assert layout.label_words == ("bad", "good")
    assert head_of(language_model, reviews)[1].kind == "least-squares"


def test_finetune_takes_a_linear_head(tiny_bert, reviews):
    config = config_of(tiny_bert, reviews)
    tokenizer = load_tokenizer(config.model, revision=None)
    finetune = TrainConfig(
        model=str(tiny_bert),
        output_dir=Path("run"),
        train_file=reviews[0],
        validation_file=reviews[1],
        method="finetune",
    )
    data = read_labelled_text(reviews[0], flag="--train-file")
    examples = tokenise(data, [int(label) for label in data.labels], tokenizer, 32)
    _, layout = build_head(
        finetune, load_encoder(str(tiny_bert)), tokenizer, examples, ("0", "1"), CPU
    )
    assert layout.kind == "linear"


def test_label_words_without_a_language_model_are_refused(tiny_bert, reviews):
    with pytest.raises(ConfigurationError, match="has no masked-language-model head"):
        head_of(tiny_bert, reviews, head="label-words", label_words=("bad", "good"))


def test_label_words_that_no_head_takes_are_refused(tiny_bert, language_model, reviews):
    words = ("bad", "good")
    with pytest.raises(ConfigurationError, match="this run has a least-squares head"):
        head_of(tiny_bert, reviews, label_words=words)
    with pytest.raises(ConfigurationError, match="this run has a linear head"):
        head_of(language_model, reviews, head="linear", label_words=words)


@pytest.mark.parametrize("head", ["least-squares", "class-means", "linear"])
def test_a_head_of_ours_knows_the_mask_token_that_it_pools_at(tiny_bert, reviews, head):
    _, layout = head_of(tiny_bert, reviews, head=head, pooling="mask")
    assert layout.mask_token_id == AutoTokenizer.from_pretrained(tiny_bert).mask_token_id
    assert head_of(tiny_bert, reviews, head=head)[1].mask_token_id is None


def test_class_means_need_an_example_of_every_class(tiny_bert, reviews):
    config = config_of(tiny_bert, reviews, head="class-means")
    tokenizer = load_tokenizer(config.model, revision=None)
    data = read_labelled_text(reviews[0], flag="--train-file")
    examples = tokenise(data, [int(label) for label in data.labels], tokenizer, 32)
    encoder = load_encoder(config.model)
    with pytest.raises(ConfigurationError, match="no training example has the label '2'"):
        build_head(config, encoder, tokenizer, examples, ("0", "1", "2"), CPU)
    with pytest.raises(ConfigurationError, match="class-means needs classes"):
        build_head(config, encoder, tokenizer, examples, (), CPU)


def test_a_home_directory_in_a_recipe_is_expanded(tiny_bert, reviews, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copytree(tiny_bert, tmp_path / "model")
    assert head_of("~/model", reviews)[1].kind == "least-squares"


def test_label_words_must_be_as_many_as_labels(language_model, reviews):
    with pytest.raises(ConfigurationError, match="expected 2 words for 0, 1, got 1"):
        head_of(language_model, reviews, label_words=("good",))
    with pytest.raises(ConfigurationError, match="give --label-words, one for each of 0, 1"):
        head_of(language_model, reviews, head="label-words")


def test_a_sentence_encoder_says_its_own_pooling(tiny_bert, reviews, tmp_path):
    model = tmp_path / "sentence-encoder"
    shutil.copytree(tiny_bert, model)
    (model / "1_Pooling").mkdir()
    modes = {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}
    (model / "1_Pooling" / "config.json").write_text(json.dumps(modes))
    assert choose_pooling(config_of(model, reviews), label_words=False) == "mean"
    assert choose_pooling(config_of(tiny_bert, reviews), label_words=False) == "first"
    asked = config_of(model, reviews, pooling="first")
    assert choose_pooling(asked, label_words=False) == "first"


@pytest.mark.parametrize("content", ["[1]", "{", "3"])
def test_a_corrupt_pooling_file_is_refused(tiny_bert, reviews, tmp_path, content):
    model = shutil.copytree(tiny_bert, tmp_path / "sentence-encoder")
    (model / "1_Pooling").mkdir()
    (model / "1_Pooling" / "config.json").write_text(content)
    with pytest.raises(ModelError, match=r"1_Pooling/config.json is corrupt; give --pooling"):
        choose_pooling(config_of(model, reviews), label_words=False)


@pytest.mark.parametrize(("model_type", "longest"), [("bert", 40), ("roberta", 38)])
def test_the_longest_input_leaves_out_reserved_positions(model_type, longest):
    config = AutoConfig.for_model(
        model_type,
        vocab_size=40,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=40,
        pad_token_id=0 if model_type == "bert" else 1,
    )
    encoder = AutoModel.from_config(config).eval()
    assert longest_input(encoder) == longest
    encoder(input_ids=torch.full((1, longest), 5), attention_mask=torch.ones(1, longest))
    with pytest.raises((IndexError, RuntimeError)):
        encoder(input_ids=torch.full((1, longest + 1), 5))


def test_a_model_without_tokenizer_is_refused(tiny_bert, tmp_path):
    for name in ("config.json", "model.safetensors"):
        shutil.copy(tiny_bert / name, tmp_path / name)
    with pytest.raises(ModelError, match="tokenizer"):
        load_tokenizer(str(tmp_path), revision=None)


def test_a_tokenizer_with_more_tokens_than_embeddings_is_refused(tiny_bert):
    tokenizer = load_tokenizer(str(tiny_bert), revision=None)
    encoder = load_encoder(str(tiny_bert))
    check_vocabulary("m", tokenizer, encoder)
    tokenizer.add_tokens(["marvellous"])
    with pytest.raises(ModelError, match="its tokenizer has 28 tokens, its embeddings 27"):
        check_vocabulary("m", tokenizer, encoder)


def token_head_of(model, reviews, task, labels, **settings):
    config = config_of(model, reviews, **settings)
    inputs = {"input_ids": [[2, 7, 8, 3]] * 20, "attention_mask": [[1] * 4] * 20}
    targets = torch.tensor([[1, 2]] * 20)
    if task == "token-classification":
        targets = torch.tensor([[-100, 0, 1, -100]] * 20)
    tokenizer = load_tokenizer(config.model, revision=None)
    encoder = load_encoder(config.model)
    examples = Examples(inputs, targets, 0)
    return build_head(config, encoder, tokenizer, examples, labels, CPU, task=task)


def test_answers_start_and_end_at_the_papers_words(language_model, tiny_bert, reviews):
    _, layout = token_head_of(language_model, reviews, "question-answering", ())
    assert (layout.kind, layout.pooling, layout.outputs) == ("label-words", "tokens", 2)
    assert layout.label_words == ("No", "Yes")
    _, layout = token_head_of(tiny_bert, reviews, "question-answering", ())
    assert (layout.kind, layout.pooling, layout.outputs) == ("least-squares", "tokens", 2)


def test_labels_of_words_have_label_words_only_if_they_are_given(language_model, reviews):
    kind, labels = "token-classification", ("O", "X")
    assert token_head_of(language_model, reviews, kind, labels)[1].kind == "least-squares"
    _, layout = token_head_of(language_model, reviews, kind, labels, label_words=("bad", "good"))
    assert (layout.kind, layout.pooling) == ("label-words", "tokens")
    with pytest.raises(ConfigurationError, match="give --label-words, one for each of O, X"):
        token_head_of(language_model, reviews, kind, labels, head="label-words")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pooling": "mean"}, "--pooling mean: question-answering sees every token"),
        ({"head": "class-means"}, "--head class-means: not for question-answering"),
        ({"label_words": ("a", "b", "c")}, "expected 2 words for start, end, got 3"),
    ],
)
def test_what_does_not_fit_a_task_of_tokens_is_refused(tiny_bert, reviews, settings, message):
    with pytest.raises(ConfigurationError, match=message):
        token_head_of(tiny_bert, reviews, "question-answering", (), **settings)
