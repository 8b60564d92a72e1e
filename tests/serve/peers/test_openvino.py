import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import ArtifactError, ConfigurationError, MachineError
from serve import open_session
from serve.layout import ModelSource, read_layout
from serve.peers import check_peer
from serve.peers.openvino import open_openvino

needs_openvino = pytest.mark.skipif(
    importlib.util.find_spec("openvino") is None, reason="openvino is not installed"
)


@needs_openvino
def test_it_answers_as_the_first_model_does_for_any_shape(tiny_sequence_model: Path) -> None:
    first = open_session(read_layout(ModelSource(tiny_sequence_model)), threads=1)
    peer = open_openvino(first)
    check_peer("openvino", peer, first)
    inputs = first.collate(first.encode(["good film", "a very bad story", "dull"]))
    np.testing.assert_allclose(peer.run(inputs), first.run(inputs), atol=1e-4)
    assert peer.size is not None and peer.size.model_bytes > 0


@needs_openvino
def test_a_graph_that_it_cannot_read_is_one_line(tiny_sequence_model: Path, tmp_path: Path) -> None:
    first = open_session(read_layout(ModelSource(tiny_sequence_model)), threads=1)
    graph = tmp_path / "model.onnx"
    graph.write_bytes(b"no graph at all")
    object.__setattr__(first.layout, "graph", graph)
    with pytest.raises(ArtifactError, match="--peers openvino: cannot open") as caught:
        open_openvino(first)
    assert "\n" not in str(caught.value)


def test_weights_that_are_packed_are_refused(
    make_model: Callable[..., Path], tmp_path: Path
) -> None:
    first = open_session(make_model(tmp_path / "model", format="sparse"), threads=1)
    with pytest.raises(ConfigurationError, match="--peers openvino needs a dense ONNX file"):
        open_openvino(first)


def test_a_missing_package_names_the_extra(
    make_model: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = open_session(make_model(tmp_path / "model"), threads=1)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MachineError, match=r"needs openvino; .*'smp-pipeline\[peers\]'"):
        open_openvino(first)
