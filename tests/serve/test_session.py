import base64
import dataclasses
import importlib.metadata
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from pipeline import native
from pipeline.artifacts.exported import read_exported, write_export_manifest
from pipeline.artifacts.files import sha256_file
from pipeline.errors import ArtifactError, MachineError
from serve import open_session
from serve.layout import ModelSource, read_layout
from serve.session import import_onnxruntime
from tests.serve.conftest import make_foreign

MakeModel = Callable[..., Path]


def test_a_batch_gives_the_logits_of_its_texts_in_their_order(
    make_model: MakeModel, tmp_path: Path
) -> None:
    session = open_session(make_model(tmp_path / "model"), threads=1)
    logits = session.logits(["good film", "a bad and dull and awful plot was good", "the actor"])
    assert logits.dtype == np.float32
    np.testing.assert_array_equal(logits, [[-1, 1], [2, -2], [0, 0]])


def test_no_texts_give_no_logits(make_model: MakeModel, tmp_path: Path) -> None:
    assert open_session(make_model(tmp_path / "model")).logits([]).shape == (0, 2)


def test_second_texts_get_their_token_type(make_model: MakeModel, tmp_path: Path) -> None:
    session = open_session(make_model(tmp_path / "model"), threads=1)
    np.testing.assert_array_equal(session.logits(["good"], ["bad"]), [[1, -1]])
    np.testing.assert_array_equal(session.logits(["bad"], ["good"]), [[-1, 1]])


def test_long_texts_are_cut_at_the_models_length(make_model: MakeModel, tmp_path: Path) -> None:
    session = open_session(make_model(tmp_path / "model", max_length=6), threads=1)
    inputs = session.collate(session.encode(["good " * 4, "good " * 5, "good", "good " * 40]))
    assert inputs["input_ids"].shape == (4, 6)
    np.testing.assert_array_equal(session.run(inputs)[:, 1], [4, 4, 1, 4])


def test_padding_has_the_manifests_token_and_no_attention(
    make_model: MakeModel, tmp_path: Path
) -> None:
    session = open_session(make_model(tmp_path / "model", pad_token_id=3), threads=1)
    inputs = session.collate(session.encode(["good", "good film"]))
    assert inputs["input_ids"][0, -1] == 3
    np.testing.assert_array_equal(inputs["attention_mask"], [[1, 1, 1, 0], [1, 1, 1, 1]])


def test_a_truncated_graph_is_refused_by_its_hash(make_model: MakeModel, tmp_path: Path) -> None:
    directory = make_model(tmp_path / "model")
    graph = directory / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:-7])
    with pytest.raises(ArtifactError, match=r"model\.onnx is truncated or was changed"):
        open_session(directory)


def make_two_files(make_model: MakeModel, directory: Path) -> Path:
    """A model directory whose weights lie in model.onnx.data."""
    make_model(directory)
    path = directory / "model.onnx"
    model = onnx.load(path)
    onnx.save(model, path, save_as_external_data=True, location="model.onnx.data", size_threshold=0)
    manifest = dataclasses.replace(
        read_exported(directory),
        model_sha256=sha256_file(path),
        data_sha256=sha256_file(directory / "model.onnx.data"),
    )
    write_export_manifest(directory, manifest)
    return directory


def test_weights_in_a_second_file_are_read(make_model: MakeModel, tmp_path: Path) -> None:
    session = open_session(make_two_files(make_model, tmp_path / "model"), threads=1)
    np.testing.assert_array_equal(session.logits(["good film", "bad"]), [[-1, 1], [1, -1]])


def test_a_second_file_that_is_missing_or_changed_is_refused(
    make_model: MakeModel, tmp_path: Path
) -> None:
    directory = make_two_files(make_model, tmp_path / "model")
    data = directory / "model.onnx.data"
    content = bytearray(data.read_bytes())
    content[7] ^= 1
    data.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"model\.onnx\.data is truncated or was changed"):
        open_session(directory)
    data.unlink()
    with pytest.raises(ArtifactError, match=r"model\.onnx\.data is missing"):
        open_session(directory)


def remake_manifest(make_model: MakeModel, tmp_path: Path, graph: Path) -> Path:
    """A model directory around another graph, with that graph's hash."""
    directory = make_model(tmp_path / "model", model_sha256=sha256_file(graph))
    graph.replace(directory / "model.onnx")
    return directory


def test_what_onnxruntime_cannot_load_is_one_line(make_model: MakeModel, tmp_path: Path) -> None:
    graph = tmp_path / "garbage"
    graph.write_bytes(b"no graph at all")
    with pytest.raises(ArtifactError, match="cannot load it") as caught:
        open_session(remake_manifest(make_model, tmp_path, graph))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("inputs", "outputs", "message"),
    [
        ("int64[b, s] input_ids", "float[b, s] logits", "expected the inputs input_ids, att"),
        (
            "int64[b, s] input_ids, int64[b, s] attention_mask, int32[b, s] token_type_ids",
            "float[b, s] logits",
            "token_type_ids must be int64, is tensor.int32.",
        ),
        (
            "int64[b, s] input_ids, int64[b, s] attention_mask, int64[b, s] token_type_ids",
            "float[b, s] scores",
            "one float32 output 'logits', got scores",
        ),
    ],
)
def test_a_graph_that_is_not_the_manifests_is_refused(
    make_model: MakeModel, tmp_path: Path, inputs: str, outputs: str, message: str
) -> None:
    name = outputs.split()[-1]
    text = f"""<ir_version: 10, opset_import: ["" : 20]>
        g ({inputs}) => ({outputs}) {{ {name} = Cast<to = 1>(input_ids) }}"""
    graph = tmp_path / "other.onnx"
    onnx.save(onnx.parser.parse_model(text), graph)
    with pytest.raises(ArtifactError, match=message):
        open_session(remake_manifest(make_model, tmp_path, graph))


def test_another_number_of_logits_than_labels_is_refused(
    make_model: MakeModel, tmp_path: Path
) -> None:
    one = make_model(tmp_path / "one", labels=())
    directory = remake_manifest(make_model, tmp_path, one / "model.onnx")
    with pytest.raises(ArtifactError, match=r"expected 2 logits a text.*got shape \[1, 1\]"):
        open_session(directory).logits(["good"])


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff\xfe", b'{"version": "1.0"'])
def test_a_corrupt_tokenizer_is_one_line(
    make_model: MakeModel, tmp_path: Path, content: bytes
) -> None:
    directory = make_model(tmp_path / "model")
    (directory / "tokenizer.json").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"tokenizer\.json is corrupt") as caught:
        open_session(directory)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("charsmap", "message"),
    [
        (b"", "or of a newer tokenizers"),
        (b"\4\0\0\0" + b"\0\1\0\0" + b"zz", "tokenizers cannot use it on a text"),
    ],
    ids=["when it is read", "on a text"],
)
def test_a_tokenizer_at_which_the_library_panics_is_one_line(
    tmp_path: Path, charsmap: bytes, message: str
) -> None:
    directory = make_foreign(tmp_path / "model")
    path = directory / "tokenizer.json"
    content = json.loads(path.read_text())
    encoded = base64.b64encode(charsmap).decode()
    content["normalizer"] = {"type": "Precompiled", "precompiled_charsmap": encoded}
    path.write_text(json.dumps(content))
    with pytest.raises(ArtifactError, match=rf"tokenizer\.json is corrupt.*{message}") as caught:
        open_session(read_layout(ModelSource(directory)), threads=1)
    assert "\n" not in str(caught.value)


def test_more_tokens_than_the_graph_takes_is_an_error(
    make_model: MakeModel, tmp_path: Path
) -> None:
    session = open_session(make_model(tmp_path / "model", max_length=32, positions=8), threads=1)
    assert session.logits(["good"]).shape == (1, 2)
    with pytest.raises(ArtifactError, match="cannot run 1 texts of 22 tokens"):
        session.logits(["good " * 20])


def test_missing_onnxruntime_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MachineError, match=r"pip install 'smp-pipeline\[cpu\]'"):
        import_onnxruntime()


def test_both_packages_of_onnxruntime_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.metadata.distribution

    def distribution(name: str) -> Any:
        return real("onnxruntime" if name == "onnxruntime-gpu" else name)

    monkeypatch.setattr(importlib.metadata, "distribution", distribution)
    with pytest.raises(MachineError, match="overwrite each other"):
        import_onnxruntime()


def test_only_an_engine_model_needs_the_native_library(
    make_model: MakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.native._SERVE", tmp_path)
    native._load.cache_clear()
    open_session(make_model(tmp_path / "dense"))
    with pytest.raises(MachineError, match=r"libsmp_engine\.\w+ is missing"):
        open_session(make_model(tmp_path / "engine", format="engine"))


def test_serving_and_measuring_need_no_training_package() -> None:
    program = (
        "import sys, serve.bench, serve.probe; "
        "print(sorted({'torch', 'transformers', 'onnx'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
