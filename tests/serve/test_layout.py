from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.errors import ArtifactError, ConfigurationError
from serve import open_session
from serve.layout import ModelSource, read_layout
from tests.made_up_models import VOCABULARY
from tests.serve.conftest import make_foreign

MakeModel = Callable[..., Path]


def test_the_graph_in_a_directory_of_ours_is_that_directory(
    make_model: MakeModel, tmp_path: Path
) -> None:
    directory = make_model(tmp_path / "model", max_length=12)
    by_file = read_layout(ModelSource(directory / "model.onnx"))
    by_directory = read_layout(ModelSource(directory))
    assert by_file.manifest == by_directory.manifest is not None
    assert by_file.files == by_directory.files
    assert (by_file.max_length, by_file.format) == (12, "dense")


def test_a_corrupt_manifest_of_ours_does_not_make_it_a_model_of_others(
    make_model: MakeModel, tmp_path: Path
) -> None:
    directory = make_model(tmp_path / "model")
    (directory / "manifest.json").write_text('{"kind": "smp-model", ')
    with pytest.raises(ArtifactError, match=r"manifest\.json is corrupt"):
        read_layout(ModelSource(directory))


def test_a_manifest_of_another_tool_does_not_count(tmp_path: Path) -> None:
    directory = make_foreign(tmp_path / "model")
    (directory / "manifest.json").write_text('{"name": "a web application"}')
    assert read_layout(ModelSource(directory)).manifest is None


def test_labels_are_those_given_then_the_files_then_numbered(tmp_path: Path) -> None:
    def labels(source: ModelSource) -> tuple[str, ...]:
        task = open_session(read_layout(source), threads=1).task
        assert task is not None and task.kind == "classification"
        return task.labels

    plain = make_foreign(tmp_path / "plain")
    named = make_foreign(
        tmp_path / "named", config={"id2label": {"1": "good", "0": "bad"}}, onnx="onnx"
    )
    wrong = make_foreign(tmp_path / "wrong", config={"id2label": {"0": "a", "1": "b", "2": "c"}})
    assert labels(ModelSource(plain)) == ("LABEL_0", "LABEL_1")
    assert labels(ModelSource(named)) == ("bad", "good")
    assert labels(ModelSource(named, labels=("no", "yes"))) == ("no", "yes")
    assert labels(ModelSource(wrong)) == ("LABEL_0", "LABEL_1")


def test_labels_that_are_given_rename_those_of_our_models_too(
    make_model: MakeModel, tmp_path: Path
) -> None:
    source = ModelSource(make_model(tmp_path / "model"), labels=("bad", "good"))
    task = open_session(read_layout(source), threads=1).task
    assert task is not None
    assert (task.labels, task.text_column) == (("bad", "good"), "text")


@pytest.mark.parametrize("ours", [True, False])
def test_another_number_of_labels_than_logits_is_refused(
    make_model: MakeModel, tmp_path: Path, ours: bool
) -> None:
    directory = tmp_path / "model"
    make_model(directory) if ours else make_foreign(directory)
    layout = read_layout(ModelSource(directory, labels=("a", "b", "c")))
    with pytest.raises(
        ConfigurationError, match=r"--labels is given 3 times, .*model has 2 labels; give it once"
    ):
        open_session(layout, threads=1)


@pytest.mark.parametrize("ours", [True, False])
def test_labels_of_a_model_that_gives_a_number_are_refused(
    make_model: MakeModel, tmp_path: Path, ours: bool
) -> None:
    directory = tmp_path / "model"
    if ours:
        make_model(directory, labels=(), metric="spearman")
    else:
        make_foreign(directory, outputs=1)
    layout = read_layout(ModelSource(directory, labels=("a",)))
    with pytest.raises(ConfigurationError, match=r"model has no labels; leave it out"):
        open_session(layout, threads=1)


def test_labels_that_are_given_stand_in_for_unusable_ones_of_the_files(tmp_path: Path) -> None:
    directory = make_foreign(tmp_path / "model", config={"id2label": ["bad", "good"]})
    with pytest.raises(
        ArtifactError, match="id2label must be an object; mend it, or give --labels"
    ):
        read_layout(ModelSource(directory))
    assert read_layout(ModelSource(directory, labels=("no", "yes"))).labels == ("no", "yes")


def test_one_logit_is_a_number(tmp_path: Path) -> None:
    directory = make_foreign(tmp_path / "model", outputs=1)
    task = open_session(read_layout(ModelSource(directory)), threads=1).task
    assert task is not None
    assert (task.kind, task.labels, task.metric) == ("regression", (), "spearman")


def test_several_labels_a_text_are_no_task_of_ours(tmp_path: Path) -> None:
    config = {"problem_type": "multi_label_classification"}
    directory = make_foreign(tmp_path / "model", config=config)
    assert open_session(read_layout(ModelSource(directory)), threads=1).task is None


@pytest.mark.parametrize(
    ("padding", "config", "token"),
    [
        (True, {"pad_token_id": 7}, 3),
        (False, {"pad_token_id": 7}, VOCABULARY.index("[PAD]")),
    ],
)
def test_padding_is_the_tokenizers_before_the_configurations(
    tmp_path: Path, padding: bool, config: dict[str, int], token: int
) -> None:
    from tokenizers import Tokenizer

    directory = make_foreign(tmp_path / "model", config=config)
    if padding:
        tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
        tokenizer.enable_padding(pad_id=3, pad_token=VOCABULARY[3])
        tokenizer.save(str(directory / "tokenizer.json"))
    session = open_session(read_layout(ModelSource(directory)), threads=1)
    assert session.collate(session.encode(["good", "good film"]))["input_ids"][0, -1] == token


def test_padding_of_the_configuration_counts_where_the_tokenizer_has_none(tmp_path: Path) -> None:
    directory = make_foreign(tmp_path / "model", config={"pad_token_id": 7})
    (directory / "tokenizer_config.json").unlink()
    session = open_session(read_layout(ModelSource(directory, max_length=16)), threads=1)
    assert session.collate(session.encode(["good", "good film"]))["input_ids"][0, -1] == 7
