"""Question answering and token classification, exported in every way."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

from export import convert_file, export_delta, export_run
from pipeline.artifacts.exported import VocabularyReport, graph_outputs, read_exported
from pipeline.artifacts.run import TaskKind
from pipeline.config import ExportConfig
from pipeline.errors import ConfigurationError
from serve import open_session, register
from tests.made_up_data import TAGS

KINDS: tuple[TaskKind, ...] = ("question-answering", "token-classification")
# A random model's logits differ more by rounding than a trained one's do.
LOOSE = 10.0

pytestmark = pytest.mark.usefixtures("traced_once")

Runs = dict[TaskKind, Path]
Exports = dict[tuple[TaskKind, str], Path]


@pytest.fixture(scope="module")
def exports(
    token_runs: Runs, traced_once: None, tmp_path_factory: pytest.TempPathFactory
) -> Exports:
    """Each kind dense, and packed with all that makes a file smaller or faster."""
    directory = tmp_path_factory.mktemp("token-exports")
    changes: dict[str, dict[str, Any]] = {
        "dense": {},
        "packed": {
            "values": "int8",
            "embeddings": "int8",
            "fuse": ("attention", "gelu", "skip-layer-norm"),
            "remove_structure": True,
            "tolerance": LOOSE,
        },
    }
    found = {}
    for kind in KINDS:
        for form, options in changes.items():
            found[kind, form] = directory / f"{kind}-{form}"
            export_run(
                ExportConfig(
                    run=token_runs[kind], output_dir=found[kind, form], format=form, **options
                )
            )
    return found


def run_all(directory: Path, inputs: dict[str, NDArray[np.int64]]) -> list[NDArray[np.float32]]:
    options = ort.SessionOptions()
    register(options)
    session = ort.InferenceSession(directory / "model.onnx", options)
    return [np.asarray(found) for found in session.run(None, inputs)]


def inputs_of(directory: Path) -> dict[str, NDArray[np.int64]]:
    session = open_session(directory)
    pairs = ["the story was dull"] * 2 if session.manifest.task.text_pair_column else None
    return session.collate(session.encode(["a good film", "the plot"], pairs))


@pytest.mark.parametrize("kind", KINDS)
def test_the_graph_has_the_outputs_of_optimums_classes(kind: TaskKind, exports: Exports):
    session = ort.InferenceSession(exports[kind, "dense"] / "model.onnx")
    shapes = {entry.name: entry.shape[:2] for entry in session.get_outputs()}
    assert shapes == {name: ["batch", "sequence"] for name in graph_outputs(kind)}
    inputs = inputs_of(exports[kind, "dense"])
    width = () if kind == "question-answering" else (len(TAGS),)
    for found in run_all(exports[kind, "dense"], inputs):
        assert found.shape == (*inputs["input_ids"].shape, *width)


@pytest.mark.parametrize("kind", KINDS)
def test_the_graph_agrees_with_pytorch_at_every_real_token(kind: TaskKind, exports: Exports):
    dense, packed = (read_exported(exports[kind, form]) for form in ("dense", "packed"))
    assert dense.verification.texts == packed.verification.texts == 48
    assert dense.verification.largest_logit_difference < 1e-4
    assert dense.verification.label_agreement == 1.0
    assert packed.fusions == {"attention": 2, "gelu": 2, "skip-layer-norm": 4}
    assert packed.structure is not None


@pytest.mark.parametrize("kind", KINDS)
def test_a_session_gives_one_array_of_logits(kind: TaskKind, exports: Exports):
    directory = exports[kind, "dense"]
    session, inputs = open_session(directory), inputs_of(directory)
    found = session.run(inputs)
    expected = run_all(directory, inputs)
    assert session.by_token
    assert found.shape == (*inputs["input_ids"].shape, session.outputs)
    if kind == "question-answering":
        np.testing.assert_array_equal(found, np.stack(expected, axis=-1))
    else:
        np.testing.assert_array_equal(found, expected[0])


@pytest.mark.parametrize("kind", KINDS)
def test_the_card_says_what_it_predicts_and_its_code_runs(
    kind: TaskKind, exports: Exports, monkeypatch: pytest.MonkeyPatch, capsys
):
    directory = exports[kind, "dense"]
    card = (directory / "README.md").read_text(encoding="utf-8")
    assert f"pipeline_tag: {kind}\n" in card
    model_class = {
        "question-answering": "ORTModelForQuestionAnswering",
        "token-classification": "ORTModelForTokenClassification",
    }
    assert f"{model_class[kind]}.from_pretrained" in card
    says = {
        "question-answering": "the span of a context that answers a question, or none, from",
        "token-classification": f"for each token one of {', '.join(TAGS)}, from",
    }
    assert f"- Predicts: {says[kind]} at most 48 tokens" in card
    code = re.findall(r"```python\n(.*?)```", card, re.DOTALL)[0]
    monkeypatch.chdir(directory)
    exec(code, {})
    assert capsys.readouterr().out.startswith("[")


@pytest.mark.parametrize("kind", KINDS)
def test_config_json_is_that_of_the_kinds_class(kind: TaskKind, exports: Exports):
    config = json.loads((exports[kind, "dense"] / "config.json").read_text(encoding="utf-8"))
    names = {
        "question-answering": "BertForQuestionAnswering",
        "token-classification": "BertForTokenClassification",
    }
    assert config["architectures"] == [names[kind]]
    assert "problem_type" not in config
    labels = {str(index): tag for index, tag in enumerate(TAGS)}
    assert config.get("id2label") == (labels if kind == "token-classification" else None)


@pytest.mark.usefixtures("native_library")
@pytest.mark.parametrize("kind", KINDS)
def test_the_engine_computes_every_real_token(
    kind: TaskKind, token_runs: Runs, exports: Exports, tmp_path: Path
):
    options: dict[str, Any] = {"format": "engine", "compute": "fp32", "values": "fp32"}
    manifest = export_run(
        ExportConfig(
            run=token_runs[kind], output_dir=tmp_path / "run", embeddings="fp32", **options
        )
    )
    assert manifest.engine is not None
    assert (manifest.engine.encoder_layers, manifest.engine.encoder_nodes) == (2, 1)
    assert manifest.verification.largest_logit_difference < 1e-4
    source = exports[kind, "dense"] / "model.onnx"
    converted = convert_file(
        ExportConfig(from_onnx=source, output_dir=tmp_path / "converted", **options)
    )
    assert converted.verification.texts == 48
    assert converted.verification.label_agreement == 1.0
    inputs = inputs_of(exports[kind, "dense"])
    kept = inputs["attention_mask"] != 0
    wanted = run_all(exports[kind, "dense"], inputs)
    for name in ("run", "converted"):
        for found, expected in zip(run_all(tmp_path / name, inputs), wanted, strict=True):
            np.testing.assert_allclose(found[kept], expected[kept], atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_delta_and_a_sparse_file_give_the_same_logits(
    kind: TaskKind, token_runs: Runs, exports: Exports, tmp_path: Path
):
    export_delta(ExportConfig(run=token_runs[kind], output_dir=tmp_path / "delta", format="delta"))
    sparse = export_run(
        ExportConfig(from_delta=tmp_path / "delta", output_dir=tmp_path / "sparse", format="sparse")
    )
    assert sparse.task == read_exported(exports[kind, "dense"]).task
    inputs = inputs_of(exports[kind, "dense"])
    for found, expected in zip(
        run_all(tmp_path / "sparse", inputs), run_all(exports[kind, "dense"], inputs), strict=True
    ):
        np.testing.assert_allclose(found, expected, atol=1e-2)  # fp16 values or fp32, as by default


@pytest.mark.parametrize("kind", KINDS)
def test_the_vocabulary_is_pruned_and_no_labels_are_counted(
    kind: TaskKind, token_runs: Runs, tmp_path: Path
):
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("the film was good\na bad plot\n")
    manifest = export_run(
        ExportConfig(run=token_runs[kind], output_dir=tmp_path / "m", prune_vocabulary=corpus)
    )
    assert isinstance(manifest.vocabulary, VocabularyReport)
    assert manifest.vocabulary.label_agreement is None
    assert manifest.vocabulary.summary().endswith("become other tokens.")


@pytest.mark.parametrize("kind", KINDS)
def test_triton_is_refused_with_what_to_take_instead(
    kind: TaskKind, token_runs: Runs, exports: Exports, tmp_path: Path
):
    source = exports[kind, "dense"] / "model.onnx"
    for origin, make in (
        ({"run": token_runs[kind]}, export_run),
        ({"from_onnx": source}, convert_file),
    ):
        config = ExportConfig(output_dir=tmp_path / "triton", format="triton", **origin)
        with pytest.raises(ConfigurationError, match=rf"is for {kind}; use --format engine"):
            make(config)
    assert not (tmp_path / "triton").exists()
