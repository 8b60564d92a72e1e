"""What is read beside an ONNX file of others, and refused."""

import json
from pathlib import Path
from typing import Any

import onnx
import pytest

from pipeline.errors import ArtifactError, ConfigurationError, PipelineError
from serve.foreign_files import find_graph, foreign_facts
from tests.serve.conftest import make_foreign


def test_the_graph_of_a_directory(tmp_path: Path) -> None:
    assert find_graph(make_foreign(tmp_path / "a")) == tmp_path / "a" / "model.onnx"
    below = make_foreign(tmp_path / "b", onnx="onnx")
    assert find_graph(below) == below / "onnx" / "model.onnx"
    (tmp_path / "a" / "model.onnx").rename(tmp_path / "a" / "other.onnx")
    assert find_graph(tmp_path / "a") == tmp_path / "a" / "other.onnx"
    (tmp_path / "a" / "third.onnx").touch()
    with pytest.raises(ArtifactError, match=r"has 2 ONNX files \(other\.onnx, third\.onnx\)"):
        find_graph(tmp_path / "a")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere", "no model directory and no ONNX file"),
        ("notes.txt", r"notes\.txt is no \.onnx file"),
        ("empty", "no manifest.json of ours and no ONNX file"),
    ],
)
def test_what_is_no_model_is_refused(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "notes.txt").touch()
    (tmp_path / "empty").mkdir()
    with pytest.raises(ArtifactError, match=message):
        find_graph(tmp_path / name)


def test_a_missing_tokenizer_names_the_flag(tmp_path: Path) -> None:
    directory = make_foreign(tmp_path / "model")
    (directory / "tokenizer.json").unlink()
    with pytest.raises(ArtifactError, match=r"tokenizer\.json is missing.*--tokenizer"):
        foreign_facts(directory / "model.onnx", None, None)


def test_files_above_the_folder_onnx_belong_to_the_graph(tmp_path: Path) -> None:
    directory = make_foreign(
        tmp_path / "model", config={"id2label": {"0": "a", "1": "b"}}, onnx="onnx"
    )
    facts = foreign_facts(directory / "onnx" / "model.onnx", None, None)
    assert facts.tokenizer == directory / "tokenizer.json"
    assert facts.labels == ("a", "b")


@pytest.mark.parametrize(
    ("tokenizer", "model", "length"),
    [
        ({"model_max_length": 48}, {"max_position_embeddings": 64}, 48),
        ({"model_max_length": int(1e30)}, {"max_position_embeddings": 64}, 64),
        ({"model_max_length": 1e30}, {"max_position_embeddings": 64}, 64),
        ({"model_max_length": True}, {"max_position_embeddings": 64}, 64),
        (
            {},
            {"max_position_embeddings": 66, "model_type": "roberta", "pad_token_id": 1},
            64,
        ),
    ],
)
def test_the_longest_text(
    tmp_path: Path, tokenizer: dict[str, Any], model: dict[str, Any], length: int
) -> None:
    directory = make_foreign(tmp_path / "model", config=model)
    (directory / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    graph = directory / "model.onnx"
    assert foreign_facts(graph, None, None).max_length == length
    assert foreign_facts(graph, None, 16).max_length == 16


def test_an_unknown_longest_text_names_the_flag(tmp_path: Path) -> None:
    directory = make_foreign(tmp_path / "model", config={"max_position_embeddings": "64"})
    (directory / "tokenizer_config.json").unlink()
    with pytest.raises(ConfigurationError, match="--max-length is needed"):
        foreign_facts(directory / "model.onnx", None, None)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "must hold a JSON object"),
        ('{"a": ', "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ('{"id2label": ["a"]}', "id2label must be an object"),
        ('{"id2label": {"0": "a", "2": "b"}}', "id2label must name each id from 0 to 1"),
        ('{"id2label": {"0": 5}}', "id2label must name each id"),
        ('{"id2label": {"0": "a", "1": "a"}}', "id2label has a name twice"),
    ],
)
def test_a_malformed_configuration_is_one_line(tmp_path: Path, content: str, message: str) -> None:
    directory = make_foreign(tmp_path / "model")
    (directory / "config.json").write_text(content)
    with pytest.raises(PipelineError, match=message) as caught:
        foreign_facts(directory / "model.onnx", None, None)
    assert "\n" not in str(caught.value)


def test_a_huge_configuration_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = make_foreign(tmp_path / "model", config={"a": "b" * 1000})
    monkeypatch.setattr("serve.foreign_files._LARGEST_JSON_BYTES", 1000)
    with pytest.raises(ArtifactError, match="at most 1000 are read"):
        foreign_facts(directory / "model.onnx", None, None)


def test_weights_in_other_files_are_found_where_they_may_lie(tmp_path: Path) -> None:
    directory = make_foreign(tmp_path / "model")
    graph = directory / "model.onnx"
    model = onnx.load(graph)
    onnx.save(model, graph, save_as_external_data=True, location="words.bin", size_threshold=0)
    assert foreign_facts(graph, None, None).data == (directory / "words.bin",)
    # A name that leads out of the directory is not followed.
    (tmp_path / "secret").write_bytes(bytes(100_000))
    model = onnx.load(graph, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = "../secret"
    graph.write_bytes(model.SerializeToString())
    assert foreign_facts(graph, None, None).data == ()


def test_a_damaged_graph_is_one_line(tmp_path: Path) -> None:
    directory = make_foreign(tmp_path / "model")
    (directory / "model.onnx").write_bytes(b"no graph at all")
    with pytest.raises(ArtifactError, match=r"model\.onnx"):
        foreign_facts(directory / "model.onnx", None, None)
