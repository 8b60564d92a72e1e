import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from pipeline.errors import ArtifactError, ConfigurationError
from serve import open_session
from serve.layout import ModelSource, read_layout
from serve.peers import check_peer
from serve.peers.onnxruntime_int8 import open_onnxruntime_int8


def test_the_products_are_in_int8_and_the_answer_stays(tiny_sequence_model: Path) -> None:
    first = open_session(read_layout(ModelSource(tiny_sequence_model)), threads=1)
    peer = open_onnxruntime_int8(first)
    check_peer("onnxruntime-int8", peer, first)
    inputs = first.collate(first.encode(["good film", "a very bad story"]))
    found, expected = peer.run(inputs), first.run(inputs)
    assert np.abs(found - expected).max() > 0  # it is not the float32 model again
    assert peer.versions == {"onnx": onnx.__version__}


def test_weights_in_a_second_file_are_quantised_too(
    tiny_sequence_model: Path, tmp_path: Path
) -> None:
    whole = read_layout(ModelSource(tiny_sequence_model))
    graph = tmp_path / "model.onnx"
    onnx.save(
        onnx.load(whole.graph), graph, save_as_external_data=True, location="w", size_threshold=0
    )
    layout = dataclasses.replace(whole, graph=graph, data=(tmp_path / "w",))
    first = open_session(layout, threads=1)
    peer = open_onnxruntime_int8(first)
    check_peer("onnxruntime-int8", peer, first)
    assert peer.size is not None
    assert peer.size.model_bytes < sum(path.stat().st_size for path in (graph, tmp_path / "w"))


def test_a_graph_without_products_is_refused(
    make_model: Callable[..., Path], tmp_path: Path
) -> None:
    first = open_session(make_model(tmp_path / "model"), threads=1)
    with pytest.raises(ArtifactError, match=r"finds no product with constant weights in .*model"):
        open_onnxruntime_int8(first)


def test_weights_that_are_packed_are_refused_with_what_works(
    make_model: Callable[..., Path], tmp_path: Path
) -> None:
    first = open_session(make_model(tmp_path / "model", format="packed"), threads=1)
    with pytest.raises(ConfigurationError, match=r"of the format packed; put first what .*dense"):
        open_onnxruntime_int8(first)
