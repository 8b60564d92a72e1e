"""A run from a mask file: what it holds, what becomes of it, and what is refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    RobertaConfig,
    RobertaForMaskedLM,
)

from pipeline.artifacts.masks import read_masks
from pipeline.artifacts.run import read_run
from pipeline.config import ExportConfig, ExportMasksConfig, ImportMasksConfig, TrainConfig
from pipeline.errors import ArtifactError, ConfigurationError, ModelError
from pipeline.export_masks import export_masks
from smp.import_masks import import_masks
from smp.train import train


@pytest.fixture(scope="module")
def language_model(tiny_bert, tmp_path_factory):
    """Twelve layers, so that layer 10 comes before layer 2."""
    directory = tmp_path_factory.mktemp("language-model")
    settings = {"num_hidden_layers": 12, "hidden_size": 8, "intermediate_size": 16}
    config = BertConfig.from_pretrained(tiny_bert, **settings)
    torch.manual_seed(0)
    BertForMaskedLM(config).save_pretrained(directory)
    AutoTokenizer.from_pretrained(tiny_bert).save_pretrained(directory)
    return directory


@pytest.fixture(scope="module")
def trained(language_model, reviews, tmp_path_factory):
    """A run of ours with a label-word head."""
    directory = tmp_path_factory.mktemp("trained") / "run"
    train(
        TrainConfig(
            model=str(language_model),
            output_dir=directory,
            train_file=reviews[0],
            validation_file=reviews[1],
            label_words=("no", "yes"),
            density=0.3,
            steps=4,
            evaluations=1,
            device="cpu",
            precision="fp32",
        )
    )
    return directory


@pytest.fixture
def config(language_model, trained, reviews, tmp_path):
    export_masks(ExportMasksConfig(trained, tmp_path / "masks.npy"))
    return ImportMasksConfig(
        masks=tmp_path / "masks.npy",
        model=str(language_model),
        output_dir=tmp_path / "run",
        labels=("0", "1"),
        label_words=("no", "yes"),
        validation_file=reviews[1],
        device="cpu",
    )


def test_a_run_goes_out_and_comes_back_as_it_was(config, trained):
    manifest = import_masks(config)
    assert read_run(config.output_dir) == manifest
    ours = read_run(trained)
    first, again = (read_masks(run / "masks.safetensors") for run in (trained, config.output_dir))
    assert set(first) == set(again)
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert any(not np.array_equal(mask, first[name]) for name, mask in _layers_swapped(first))
    for field in ("density", "matrices", "base_model", "head", "head_sha256", "task", "metrics"):
        assert getattr(manifest, field) == getattr(ours, field), field


def _layers_swapped(masks):
    # What a reader would get that takes layer 2 for the third one in the file.
    for name, mask in masks.items():
        yield name.replace("layer.10.", "layer.2.") if "layer.10." in name else name, mask


def test_an_imported_run_is_exported_like_any_other(config, tmp_path):
    from export import export_delta

    imported = import_masks(config)
    delta = export_delta(
        ExportConfig(run=config.output_dir, output_dir=tmp_path / "delta", format="delta")
    )
    assert delta.run.masks_sha256 == imported.masks_sha256
    assert delta.run.head.label_words == ("no", "yes")


def test_without_texts_there_are_no_metrics(config):
    manifest = import_masks(replace(config, validation_file=None, text_pair_column="second"))
    assert manifest.metrics == {}
    assert manifest.validation_data.rows == 0
    assert manifest.task.text_pair_column == "second"


def test_a_word_scores_the_label_that_it_was_given_for(config, language_model, capsys):
    swapped = replace(config, labels=("1", "0"), output_dir=config.output_dir.with_name("swapped"))
    first, again = import_masks(config), import_masks(swapped)
    assert "label words: no scores 1, yes scores 0" in capsys.readouterr().err
    assert first.head == again.head
    assert first.head_sha256 == again.head_sha256
    assert first.metrics["accuracy"] + again.metrics["accuracy"] == pytest.approx(1.0)


def test_the_published_order_of_mnli_has_to_be_said(config):
    mnli = replace(config, labels=(), label_words=(), task="mnli", validation_file=None)
    message = (
        "needed with --task mnli, one for each of contradiction, entailment, neutral: the "
        "published files have Yes Maybe No, the paper .* No Yes Maybe"
    )
    with pytest.raises(ConfigurationError, match=message):
        import_masks(mnli)
    manifest = import_masks(replace(mnli, label_words=("yes", "fine", "no")))
    assert manifest.task.labels == ("contradiction", "entailment", "neutral")
    assert (manifest.task.text_column, manifest.task.text_pair_column) == ("premise", "hypothesis")
    assert manifest.head.label_words == ("yes", "fine", "no")


def test_a_task_of_the_paper_brings_its_labels_words_and_columns(config):
    qnli = replace(config, labels=(), label_words=(), task="qnli", validation_file=None)
    manifest = import_masks(qnli)
    assert manifest.task.labels == ("entailment", "not_entailment")
    assert manifest.head.label_words == ("Yes", "No")
    stsb = replace(qnli, task="stsb", output_dir=config.output_dir.with_name("stsb"))
    manifest = import_masks(stsb)
    assert (manifest.task.kind, manifest.task.labels) == ("regression", ())
    assert (manifest.head.outputs, manifest.task.metric) == (1, "pearson")


def test_masks_for_questions_have_a_head_that_sees_every_token(config):
    manifest = import_masks(
        replace(config, labels=(), label_words=(), task="squad", validation_file=None)
    )
    assert read_run(config.output_dir) == manifest
    assert (manifest.head.pooling, manifest.head.label_words) == ("tokens", ("No", "Yes"))
    assert manifest.task.kind == "question-answering"
    assert (manifest.task.text_column, manifest.task.text_pair_column) == ("question", "context")
    assert manifest.task.answers.stride == 128
    assert manifest.task.max_length == 64  # of 384, what the model takes


def test_the_words_are_as_many_as_the_labels(config):
    with pytest.raises(ConfigurationError, match="--label-words: expected 2 words for 0, 1, got 3"):
        import_masks(replace(config, label_words=("yes", "no", "fine")))
    with pytest.raises(ConfigurationError, match="'unheard' is not one token"):
        import_masks(replace(config, label_words=("yes", "unheard")))


def test_masks_of_another_model_are_refused_and_nothing_is_written(config, tiny_bert, tmp_path):
    other = tmp_path / "other"
    BertForMaskedLM(BertConfig.from_pretrained(tiny_bert)).save_pretrained(other)
    AutoTokenizer.from_pretrained(tiny_bert).save_pretrained(other)
    with pytest.raises(ArtifactError, match=r"expected 2,048 bytes .* got 768; give --model the"):
        import_masks(replace(config, model=str(other)))
    assert not config.output_dir.exists()


def test_a_model_of_another_architecture_is_refused(config, language_model, tmp_path):
    roberta = tmp_path / "roberta"
    settings = BertConfig.from_pretrained(language_model).to_dict()
    settings = {key: value for key, value in settings.items() if key != "model_type"}
    RobertaForMaskedLM(RobertaConfig(**settings)).save_pretrained(roberta)
    with pytest.raises(ModelError, match="is BERT's, and this is a roberta model"):
        import_masks(replace(config, model=str(roberta)))


def test_an_encoder_without_language_model_is_refused(config, language_model, tmp_path):
    bare = tmp_path / "bare"
    BertForMaskedLM.from_pretrained(language_model).bert.save_pretrained(bare)
    AutoTokenizer.from_pretrained(language_model).save_pretrained(bare)
    with pytest.raises(ModelError, match="no masked-language-model head"):
        import_masks(replace(config, model=str(bare)))


def test_the_stage_leaves_the_file_as_it_is(config):
    before = Path(config.masks).read_bytes()
    import_masks(config)
    assert Path(config.masks).read_bytes() == before
