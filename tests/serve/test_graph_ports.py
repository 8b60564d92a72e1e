"""Graphs of others: which inputs and outputs are taken, and which are refused."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from pipeline.errors import ArtifactError
from serve import open_session
from serve.layout import ModelSource, read_layout
from serve.session import Session
from tests.made_up_data import POSITIVE
from tests.made_up_models import VOCABULARY
from tests.serve.conftest import make_foreign

IDS = "int64[b, s] input_ids"


def open_graph(tmp_path: Path, inputs: str, outputs: str, body: str) -> Session:
    """A session over a graph of these few lines, with the tiny tokenizer."""
    directory = make_foreign(tmp_path / "model")
    text = f"""<ir_version: 10, opset_import: ["" : 20]>
        g ({inputs}) => ({outputs}) <int64[1] axis = {{1}}, int64[1] two = {{2}}> {{ {body} }}"""
    onnx.save(onnx.parser.parse_model(text), directory / "model.onnx")
    return open_session(read_layout(ModelSource(directory)), threads=1)


LOGITS = """ones = Cast<to = 1>({name}) column = ReduceSum(ones, axis)
            zero = Sub(column, column) logits = Concat<axis = 1>(zero, column)"""


def test_inputs_of_32_bits_get_them(tmp_path: Path) -> None:
    session = open_graph(
        tmp_path, "int32[b, s] input_ids", "float[b, 2] logits", LOGITS.format(name="input_ids")
    )
    words = [VOCABULARY.index(word) for word in ("[CLS]", POSITIVE[0], "[SEP]")]
    np.testing.assert_array_equal(session.logits([POSITIVE[0]]), [[0, sum(words)]])
    assert session.inputs == ("input_ids",)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (f"{IDS}, int64[b, s] position_ids", "no tokenizer gives the input position_ids"),
        ("float[b, s] input_ids", "input_ids must be int64 or int32, is tensor.float."),
        ("int64[1, 16] input_ids", r"the shape \[1, 16\], where both sizes must be open"),
        ("int64[b] input_ids", r"the shape \['b'\]"),
        ("int64[b, s] attention_mask", "has no input input_ids, only attention_mask"),
    ],
)
def test_inputs_that_no_tokenizer_gives_are_refused(
    tmp_path: Path, inputs: str, message: str
) -> None:
    name = inputs.split()[-1]
    with pytest.raises(ArtifactError, match=message):
        open_graph(tmp_path, inputs, "float[b, n] logits", f"logits = Cast<to = 1>({name})")


def test_logits_among_other_outputs_are_the_logits(tmp_path: Path) -> None:
    body = LOGITS.format(name="input_ids") + " hidden = Unsqueeze(ones, two)"
    session = open_graph(tmp_path, IDS, "float[b, s, 1] hidden, float[b, 2] logits", body)
    assert session.output_names == ("logits",)
    assert session.task is not None and session.logits(["good"]).shape == (1, 2)


def test_one_vector_of_another_name_is_the_logits(tmp_path: Path) -> None:
    body = LOGITS.format(name="input_ids").replace("logits", "scores")
    session = open_graph(tmp_path, IDS, "float[b, 2] scores", body)
    assert session.task is not None and session.outputs == 2


@pytest.mark.parametrize(
    ("outputs", "body", "first"),
    [
        (
            "float[b, s, 1] logits",
            "ones = Cast<to = 1>(input_ids) logits = Unsqueeze(ones, two)",
            "logits",
        ),
        (
            "float[b, s] start_logits, float[b, s] end_logits",
            "start_logits = Cast<to = 1>(input_ids) end_logits = Neg(start_logits)",
            "start_logits",
        ),
        ("float[b, s] scores", "scores = Cast<to = 1>(input_ids)", "scores"),
        ("int64[b, 1] total", "total = ReduceSum(input_ids, axis)", "total"),
    ],
    ids=["tokens", "question-answering", "one-a-token", "no-float"],
)
def test_other_outputs_run_and_have_no_task(
    tmp_path: Path, outputs: str, body: str, first: str
) -> None:
    session = open_graph(tmp_path, IDS, outputs, body)
    assert session.task is None and session.outputs == 0
    assert session.output_names[0] == first
    assert len(session.run(session.collate(session.encode(["good film", "good"])))) == 2


def test_operators_of_another_library_are_named(tmp_path: Path) -> None:
    directory = make_foreign(tmp_path / "model")
    text = """<ir_version: 10, opset_import: ["" : 20, "com.example" : 1]>
        g (int64[b, s] input_ids) => (float[b, 2] logits) {
            logits = com.example.Classify(input_ids)
        }"""
    onnx.save(onnx.parser.parse_model(text), directory / "model.onnx")
    with pytest.raises(ArtifactError, match=r"com\.example.*operators of another library"):
        open_session(read_layout(ModelSource(directory)), threads=1)
