"""A server as a cluster would start it: a process of its own, over a directory of models."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.serve.server.running import ServerProcess


@pytest.fixture(scope="session")
def server(
    make_model: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """A server that is ready, with the model ``words``."""
    models = tmp_path_factory.mktemp("models")
    make_model(models / "words")
    with ServerProcess([models]) as process:
        process.wait_for("ready")
        yield process
