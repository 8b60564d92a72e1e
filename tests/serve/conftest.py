"""Weights as bytes, the library's C functions, models of one operator, subjects of a benchmark."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
from numpy.typing import NDArray

from pipeline.config import BenchConfig
from serve.subjects import Subject, open_subjects
from tests.made_up_models import VOCABULARY, save_tiny_tokenizer, write_word_counter
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


def make_foreign(
    directory: Path, *, outputs: int = 2, config: dict[str, Any] | None = None, onnx: str = ""
) -> Path:
    """The word counter as another tool would leave it: no manifest, perhaps a config.json."""
    (directory / onnx).mkdir(parents=True)
    save_tiny_tokenizer(directory)
    write_word_counter(directory / onnx / "model.onnx", outputs, scale=1.0, positions=64)
    if config is not None:
        (directory / "config.json").write_text(json.dumps(config))
    return directory


@pytest.fixture(scope="session")
def tiny_sequence_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT for sequence classification as transformers saves it, with its model.onnx."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    directory = tmp_path_factory.mktemp("tiny-sequence-model")
    save_tiny_tokenizer(directory)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=96,
        initializer_range=0.2,
        attn_implementation="eager",  # the plain operators, which any engine knows
    )
    model = BertForSequenceClassification(config).eval()
    model.save_pretrained(directory)
    names = ["input_ids", "attention_mask", "token_type_ids"]
    ids = torch.ones((2, 8), dtype=torch.int64)
    axes = {name: {0: "batch", 1: "sequence"} for name in names}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that this exporter is the older one
        torch.onnx.export(
            model,
            (),
            str(directory / "model.onnx"),
            kwargs=dict.fromkeys(names, ids) | {"return_dict": False},
            dynamo=False,
            opset_version=17,
            input_names=names,
            output_names=["logits"],
            dynamic_axes={**axes, "logits": {0: "batch"}},
        )
    return directory


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
