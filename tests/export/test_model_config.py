import json
from pathlib import Path

import pytest
from transformers import (
    AutoConfig,
    AutoTokenizer,
    BertConfig,
    DebertaV2Config,
    DistilBertConfig,
    ElectraConfig,
    MPNetConfig,
    PretrainedConfig,
    RobertaConfig,
)

from export.model_config import write_config, write_tokenizer
from pipeline.artifacts.run import TaskLayout
from pipeline.errors import ModelError


def task(labels: tuple[str, ...]) -> TaskLayout:
    kind = "classification" if labels else "regression"
    return TaskLayout(kind, labels, "text", None, "label", 48, "accuracy")


@pytest.mark.parametrize(
    "config",
    [BertConfig, RobertaConfig, DistilBertConfig, ElectraConfig, MPNetConfig, DebertaV2Config],
)
def test_the_architecture_is_the_classification_class_of_transformers(config, tmp_path: Path):
    import transformers

    write_config(tmp_path, config(), task(("bad", "good", "so-so")))
    content = json.loads((tmp_path / "config.json").read_text())
    (architecture,) = content["architectures"]
    assert architecture.endswith("ForSequenceClassification")
    assert getattr(transformers, architecture).config_class is config


def test_labels_read_back_in_the_order_of_the_logits(tmp_path: Path):
    write_config(tmp_path, BertConfig(), task(("bad", "good", "so-so")))
    config = AutoConfig.from_pretrained(str(tmp_path))
    assert config.num_labels == 3
    assert config.id2label == {0: "bad", 1: "good", 2: "so-so"}
    assert config.label2id == {"bad": 0, "good": 1, "so-so": 2}
    assert config.problem_type == "single_label_classification"


@pytest.mark.parametrize(
    ("kind", "suffix"),
    [
        ("question-answering", "ForQuestionAnswering"),
        ("token-classification", "ForTokenClassification"),
    ],
)
@pytest.mark.parametrize(
    "config",
    [BertConfig, RobertaConfig, DistilBertConfig, ElectraConfig, MPNetConfig, DebertaV2Config],
)
def test_kinds_of_tokens_have_classes_of_their_own(config, kind, suffix, tmp_path: Path):
    labels = ("O", "B-X", "I-X") if kind == "token-classification" else ()
    layout = TaskLayout(kind, labels, "text", None, "label", 48, "accuracy")
    write_config(tmp_path, config(), layout)
    loaded = AutoConfig.from_pretrained(str(tmp_path))
    assert loaded.architectures[0].endswith(suffix)
    assert loaded.problem_type is None
    if labels:
        assert loaded.id2label == dict(enumerate(labels))


def test_regression_has_one_output(tmp_path: Path):
    write_config(tmp_path, BertConfig(), task(()))
    config = AutoConfig.from_pretrained(str(tmp_path))
    assert config.num_labels == 1
    assert config.problem_type == "regression"


def test_the_encoders_own_configuration_is_left_alone(tmp_path: Path):
    config = BertConfig(name_or_path="/somewhere/on/this/machine")
    before = config.to_dict()
    write_config(tmp_path, config, task(("a", "b", "c")))
    assert config.to_dict() == before
    assert "/somewhere" not in (tmp_path / "config.json").read_text()


def test_a_type_without_a_classification_class_is_refused(tmp_path: Path):
    class Unknown(PretrainedConfig):
        model_type = "no-such-model"

    with pytest.raises(ModelError, match="no-such-model"):
        write_config(tmp_path, Unknown(), task(("a", "b")))


def test_the_tokenizer_cuts_where_training_did_and_names_no_path(tiny_bert: Path, tmp_path: Path):
    tokenizer = AutoTokenizer.from_pretrained(str(tiny_bert))
    write_tokenizer(tmp_path, tokenizer, 16)
    written = (tmp_path / "tokenizer_config.json").read_text()
    assert str(tiny_bert) not in written
    assert json.loads(written)["tokenizer_class"] != "TokenizersBackend"
    loaded = AutoTokenizer.from_pretrained(str(tmp_path))
    assert len(loaded("good film " * 40, truncation=True)["input_ids"]) == 16
    assert loaded("a good film")["input_ids"] == tokenizer("a good film")["input_ids"]
