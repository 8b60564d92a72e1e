"""Which subjects a configuration makes, and what is refused before anything is measured."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.artifacts.benchmark import ExportFacts
from pipeline.artifacts.files import sha256_file
from pipeline.config import BenchConfig
from pipeline.errors import ConfigurationError
from serve.providers import CPU
from serve.subjects import Subject, open_subjects
from tests.serve.conftest import make_foreign

MakeModel = Callable[..., Path]


def opened(*models: Path, **settings: Any) -> list[Subject]:
    return open_subjects(BenchConfig(models=models, **settings), threads=1)


def test_a_model_of_ours_and_a_file_of_others(make_model: MakeModel, tmp_path: Path) -> None:
    matrix = {"matrix_type": "query", "layer": 0, "shape": [4, 2], "kept": 2}
    ours = make_model(tmp_path / "ours", run={"matrices": {"layer.weight": matrix}})
    other = make_foreign(tmp_path / "other")
    tokenizer = tmp_path / "tokenizer"
    tokenizer.mkdir()
    shutil.move(other / "tokenizer.json", tokenizer)
    first, second = opened(ours, other / "model.onnx", tokenizer=tokenizer, max_length=16)
    assert (first.name, second.name) == ("ours", "model.onnx")
    assert {(s.engine, s.provider, s.is_peer) for s in (first, second)} == {
        ("onnxruntime", CPU, False)
    }
    facts = ExportFacts("dense", "smp-s", 0.5, "tiny", {"layer.weight": 0.25})
    assert (first.export, second.export) == (facts, None)
    assert second.source == str(other / "model.onnx")
    assert first.model_sha256 == sha256_file(ours / "model.onnx")
    assert second.model_sha256 == sha256_file(other / "model.onnx")
    assert (first.session.max_length, second.session.max_length) == (32, 16)
    size = second.measure_size()
    assert size is not None and size.model_bytes == (other / "model.onnx").stat().st_size
    inputs = first.session.collate(first.session.encode(["good film"]))
    np.testing.assert_array_equal(first.run(inputs), second.run(inputs))


def test_equal_names_become_paths(tmp_path: Path) -> None:
    models = [make_foreign(tmp_path / name) / "model.onnx" for name in ("a", "b")]
    assert [subject.name for subject in opened(*models)] == [str(model) for model in models]


def test_a_provider_twice_is_refused(tmp_path: Path) -> None:
    directory = make_foreign(tmp_path / "model")
    with pytest.raises(ConfigurationError, match="--providers names one provider twice"):
        opened(directory, providers=("cpu", "CPUExecutionProvider"))


def test_labelled_texts_need_a_model_with_logits(tmp_path: Path) -> None:
    config = {"problem_type": "multi_label_classification"}
    directory = make_foreign(tmp_path / "model", config=config)
    assert opened(directory)[0].session.task is None
    with pytest.raises(ConfigurationError, match=r"--validation-file: .*model gives no logits of"):
        opened(directory, validation_file=tmp_path / "texts.csv")


def test_peers_follow_the_models_with_the_first_models_inputs(
    tiny_sequence_model: Path, make_model: MakeModel, tmp_path: Path
) -> None:
    ours = make_model(tmp_path / "ours")
    first, second, peer = opened(tiny_sequence_model, ours, peers=("onnxruntime-int8",))
    assert peer.name == f"{first.name} (onnxruntime-int8)"
    assert (peer.engine, peer.is_peer, peer.export) == ("onnxruntime-int8", True, None)
    assert peer.session is first.session
    assert second.name == "ours"
    peer_size, size = peer.measure_size(), first.measure_size()
    assert peer_size is not None and size is not None
    assert peer_size.model_bytes < size.model_bytes
    assert peer.model_sha256 not in (None, first.model_sha256)
