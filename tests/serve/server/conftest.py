"""Models that take their time, certificates, and repositories."""

import dataclasses
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest

from pipeline.artifacts.exported import read_exported, write_export_manifest
from pipeline.artifacts.files import sha256_file
from pipeline.config import ServeConfig
from serve.server.metrics import Metrics
from serve.server.repository import Repository

_SIDE = 512


def slow_down(directory: Path, products: int) -> None:
    """Let each run of a word counter multiply large matrices too; its logits stay what they are.

    A run takes as long for one text as for many, so that the queue before it fills.

    Args:
        directory: the model directory.
        products: how many matrices of 512 x 512 are multiplied.
    """
    path = directory / "model.onnx"
    model = onnx.load(path)
    nodes = onnx.parser.parse_graph(
        f"""
        slow (int64[batch, sequence] input_ids, float[{_SIDE}, {_SIDE}] matrix,
              float[batch, outputs] counted_logits) => (float[batch, outputs] logits)
        <float none = {{0.0}}>
        {{
            floats = Cast<to = 1>(input_ids)
            total = ReduceSum<keepdims = 0>(floats)
            drop = Mul(total, none)
            power0 = Add(matrix, drop)
            {" ".join(f"power{n + 1} = MatMul(power{n}, matrix)" for n in range(products))}
            largest = ReduceMax<keepdims = 0>(power{products})
            nothing = Mul(largest, none)
            logits = Add(counted_logits, nothing)
        }}
        """
    )
    model.graph.node[-1].output[0] = "counted_logits"
    model.graph.node.extend(nodes.node)
    model.graph.initializer.extend(nodes.initializer)
    # Rows that sum to 1 keep all powers small.
    matrix = np.full((_SIDE, _SIDE), 1.0 / _SIDE, dtype=np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(matrix, "matrix"))
    onnx.checker.check_model(model)
    onnx.save(model, path)
    manifest = dataclasses.replace(read_exported(directory), model_sha256=sha256_file(path))
    write_export_manifest(directory, manifest)


@pytest.fixture(scope="session")
def model(make_model: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A word counter named ``words``. Copy it before you change it."""
    return make_model(tmp_path_factory.mktemp("models") / "words")


@pytest.fixture(scope="session")
def slow_model(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A word counter named ``slow`` whose runs take some milliseconds."""
    directory = tmp_path_factory.mktemp("models") / "slow"
    shutil.copytree(model, directory)
    slow_down(directory, 4)
    return directory


@pytest.fixture(scope="session")
def slower_model(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A word counter named ``slower`` whose runs take a tenth of a second or so."""
    directory = tmp_path_factory.mktemp("models") / "slower"
    shutil.copytree(model, directory)
    slow_down(directory, 40)
    return directory


class Certificate(NamedTuple):
    """PEM files."""

    certificate: Path
    key: Path


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """A certificate for 127.0.0.1 that signs itself; the test is skipped without openssl."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    directory = tmp_path_factory.mktemp("tls")
    found = Certificate(directory / "certificate.pem", directory / "key.pem")
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "2", "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"),
            *("-keyout", str(found.key), "-out", str(found.certificate)),
        ],
        check=True,
        capture_output=True,
    )
    return found


@pytest.fixture
def make_repository() -> Iterator[Callable[..., Repository]]:
    """A function that makes repositories, which are closed after the test."""
    made: list[Repository] = []

    def make(*paths: Path, **changes: Any) -> Repository:
        config = ServeConfig(models=paths, threads=1, **changes)
        made.append(Repository(config, Metrics()))
        return made[-1]

    yield make
    for repository in made:
        repository.close()
