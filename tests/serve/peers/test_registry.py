"""PyTorch's peers, whose model the caller loads."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.artifacts.run import TaskKind
from pipeline.errors import ConfigurationError
from serve import open_session
from serve.layout import ModelSource, read_layout
from serve.peers import open_peer
from serve.peers.check import EXACT, ROUNDED
from serve.peers.peer import Run
from tests.serve.conftest import make_foreign


def load(model: str, *, kind: TaskKind, threads: int, compiled: bool) -> Run:
    assert kind == "classification"

    def run(inputs: Mapping[str, NDArray[np.int64]]) -> NDArray[Any]:
        return np.array([[threads, compiled]])

    return run


def test_pytorch_gets_the_first_models_threads(
    make_model: Callable[..., Path], tmp_path: Path
) -> None:
    first = open_session(make_model(tmp_path / "model"), threads=3)
    for name, compiled in (("pytorch", 0), ("pytorch-compiled", 1)):
        peer = open_peer(name, first, "a/model", load)
        np.testing.assert_array_equal(peer.run({}), [[3, compiled]])
        assert (peer.source, peer.size, peer.tolerance) == ("a/model", None, EXACT)
        assert set(peer.versions) == {"torch", "transformers"}


@pytest.mark.parametrize("change", [{"values": "int8"}, {"embeddings": "fp16"}])
def test_more_is_allowed_where_the_first_models_weights_are_rounded(
    make_model: Callable[..., Path], tmp_path: Path, change: dict[str, str]
) -> None:
    first = open_session(make_model(tmp_path / "model", **change), threads=1)
    assert open_peer("pytorch", first, "a/model", load).tolerance == ROUNDED


def test_pytorch_needs_its_model_and_a_first_model_with_logits(tmp_path: Path) -> None:
    plain = make_foreign(tmp_path / "plain")
    first = open_session(read_layout(ModelSource(plain)), threads=1)
    with pytest.raises(ConfigurationError, match="--peers pytorch needs --pytorch-model: the run"):
        open_peer("pytorch", first, None, load)
    several = make_foreign(
        tmp_path / "several", config={"problem_type": "multi_label_classification"}
    )
    first = open_session(read_layout(ModelSource(several)), threads=1)
    with pytest.raises(ConfigurationError, match="needs a first model whose output is logits"):
        open_peer("pytorch", first, "a/model", load)
