"""Weights as bytes, the library's C functions, models of one operator, subjects of a benchmark."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
from numpy.typing import NDArray

from pipeline.config import BenchConfig
from serve.subjects import Subject, open_subjects
from tests.serve.c_api import load_engine
from tests.serve.matrices import encode
from tests.serve.op_models import COLUMNS, ROWS, EncoderModel, LinearModel, sparse

Array = NDArray[Any]
WriteBlob = Callable[..., bytes]


@pytest.fixture(scope="session")
def write_blob() -> WriteBlob:
    """``write_blob(matrix, values, mask)``: fp32, fp16 or int8; dense, bitmap or gaps."""
    return encode


@pytest.fixture(scope="session")
def engine(native_library: Path) -> Any:
    """The library's C functions."""
    return load_engine(native_library)


@pytest.fixture
def open_model(native_library: Path) -> Callable[..., onnxruntime.InferenceSession]:
    def open_it(model: bytes, threads: int = 1) -> onnxruntime.InferenceSession:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 4
        options.register_custom_ops_library(str(native_library))
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    return open_it


@pytest.fixture
def matrix() -> Array:
    return sparse(ROWS, COLUMNS, seed=1)


@pytest.fixture
def linear(matrix: Array, write_blob: WriteBlob) -> LinearModel:
    return LinearModel(write_blob(matrix))


@pytest.fixture
def encoder(write_blob: WriteBlob) -> EncoderModel:
    return EncoderModel(write_blob)


@pytest.fixture(scope="session")
def open_subject() -> Callable[[Path], Subject]:
    """``open_subject(directory)``: a model directory as a benchmark has it, on one thread."""

    def open_it(directory: Path) -> Subject:
        (subject,) = open_subjects(BenchConfig(models=(directory,)), threads=1)
        return subject

    return open_it
