import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from pipeline.artifacts.benchmark import Robustness
from pipeline.artifacts.exported import MODEL_FILE, read_exported, write_export_manifest
from pipeline.artifacts.files import sha256_file
from pipeline.artifacts.run import TaskKind
from pipeline.data import LabelledText
from pipeline.errors import ArtifactError
from serve.robustness import measure_robustness, texts_compared
from serve.slices import token_lengths
from serve.subjects import Inputs, Subject
from tests.made_up_models import VOCABULARY

MakeModel = Callable[..., Path]
OpenSubject = Callable[[Path], Subject]


def data_of(*texts: str) -> LabelledText:
    return LabelledText("made up", texts, None, [0] * len(texts), "text", None, "label")


def measure(
    subject: Subject, data: LabelledText, *, kind: TaskKind = "classification"
) -> Robustness:
    done: list[int] = []
    robustness = measure_robustness(
        subject,
        data,
        token_lengths(subject.session, data),
        kind=kind,
        advance=done.append,
    )
    assert sum(done) == 2 * robustness.texts == 2 * texts_compared(len(data))
    return robustness


def ignore_the_mask(directory: Path) -> Path:
    """Change a model so that padding counts as a negative word."""
    graph = onnx.load(directory / MODEL_FILE)
    (counted,) = (node for node in graph.graph.node if node.output[0] == "counted")
    counted.op_type = "Max"
    counted.input[:] = ["typed", "attention_mask"]  # which is ``typed`` everywhere: 1 or more
    (words,) = (tensor for tensor in graph.graph.initializer if tensor.name == "words")
    weights = onnx.numpy_helper.to_array(words).copy()
    weights[VOCABULARY.index("[PAD]")] = weights[VOCABULARY.index("bad")]
    words.CopyFrom(onnx.numpy_helper.from_array(weights, "words"))
    onnx.save(graph, directory / MODEL_FILE)
    changed = dataclasses.replace(
        read_exported(directory), model_sha256=sha256_file(directory / MODEL_FILE)
    )
    write_export_manifest(directory, changed)
    return directory


def test_a_model_that_minds_the_mask_gives_the_same_answer(
    make_model: MakeModel, open_subject: OpenSubject, reviews: tuple[Path, Path], tmp_path: Path
) -> None:
    subject = open_subject(make_model(tmp_path / "model", scale=0.1))
    robustness = measure(subject, data_of(*("good " * count for count in range(20))))
    assert (robustness.texts, robustness.changed_labels) == (20, 0)
    assert robustness.largest_logit_difference < 1e-5  # sums of other lengths round otherwise


def test_a_model_that_depends_on_padding_is_found(
    make_model: MakeModel, open_subject: OpenSubject, tmp_path: Path
) -> None:
    subject = open_subject(ignore_the_mask(make_model(tmp_path / "model")))
    # Beside the ten words, each text of fewer gets as many negative ones as it is shorter.
    robustness = measure(subject, data_of(*("good " * count for count in range(10, 0, -1))))
    assert robustness == Robustness(10, 5, 9.0)


def test_a_number_that_depends_on_padding_is_found(
    make_model: MakeModel, open_subject: OpenSubject, tmp_path: Path
) -> None:
    subject = open_subject(ignore_the_mask(make_model(tmp_path / "model", labels=())))
    data = data_of("good", "good good good")
    assert measure(subject, data, kind="regression") == Robustness(2, 0, 2.0)


def test_an_engine_that_mixes_up_the_texts_of_a_batch_is_found(
    make_model: MakeModel, open_subject: OpenSubject, tmp_path: Path
) -> None:
    own = open_subject(make_model(tmp_path / "model"))
    peer = dataclasses.replace(own, run=lambda inputs: np.roll(own.run(inputs), 1, axis=0))
    robustness = measure(peer, data_of("good", "bad", "good", "bad"))
    assert robustness.texts == 4
    assert robustness.changed_labels > 0


def test_many_texts_are_compared_by_some_of_all_lengths(
    make_model: MakeModel, open_subject: OpenSubject, tmp_path: Path
) -> None:
    own = open_subject(make_model(tmp_path / "model"))
    alone: set[int] = set()
    padded: list[tuple[int, ...]] = []

    def run(inputs: Inputs) -> np.ndarray:
        batch, length = inputs["input_ids"].shape
        if batch == 1:
            alone.add(length)
        else:
            padded.append((batch, length))
        return own.run(inputs)

    data = data_of(*(" good" * (count % 25 + 1) for count in range(500)))
    robustness = measure(dataclasses.replace(own, run=run), data)
    assert robustness.texts == 64
    assert alone == set(range(3, 28))
    assert {length for _, length in padded} == {27}
    assert sum(batch - 1 for batch, _ in padded) == 64
    assert max(batch for batch, _ in padded) <= 32


def test_a_single_text_is_compared_beside_itself(
    make_model: MakeModel, open_subject: OpenSubject, tmp_path: Path
) -> None:
    subject = open_subject(make_model(tmp_path / "model"))
    assert measure(subject, data_of("good film")) == Robustness(1, 0, 0.0)


def test_nan_in_a_padded_batch_is_refused(
    make_model: MakeModel, open_subject: OpenSubject, tmp_path: Path
) -> None:
    own = open_subject(make_model(tmp_path / "model"))

    def run(inputs: Inputs) -> np.ndarray:
        padding = (inputs["attention_mask"] == 0).any(axis=1, keepdims=True)
        return np.where(padding, np.float32("nan"), own.run(inputs))

    data = data_of("good good good", "good", "bad bad")
    with pytest.raises(ArtifactError, match=r"2 of 3 texts have NaN .* first example 2"):
        measure(dataclasses.replace(own, run=run), data)
