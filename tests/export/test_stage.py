import contextlib
import dataclasses
import errno
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from export import export_delta, export_run, graph_file, stage
from pipeline.artifacts.exported import read_exported
from pipeline.artifacts.files import sha256_file
from pipeline.artifacts.masks import read_masks, write_masks
from pipeline.artifacts.run import read_run, write_run_manifest
from pipeline.config import ExportConfig
from pipeline.errors import (
    ArtifactError,
    ConfigurationError,
    DataError,
    MachineError,
    ModelError,
    PipelineError,
    VerificationError,
)
from serve import open_session

pytestmark = pytest.mark.usefixtures("traced_once")


@pytest.fixture
def run(random_run: Path, tmp_path: Path) -> Path:
    """A copy of the run that a test may change."""
    return Path(shutil.copytree(random_run, tmp_path / "run"))


@contextlib.contextmanager
def fails(error: type[PipelineError], message: str, output: Path):
    """The export fails with one line and leaves nothing, not even a scratch directory."""
    with pytest.raises(error, match=message) as caught:
        yield
    assert "\n" not in str(caught.value)
    assert not output.exists()
    assert not list(output.parent.glob(f".{output.name}.*"))


@pytest.fixture(scope="module")
def exported(
    random_run: Path, traced_once: None, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """The run of the tiny BERT, exported in each format that stock ONNX Runtime opens."""
    directory = tmp_path_factory.mktemp("exported")
    for form in ("dense", "sparse", "packed"):
        export_run(ExportConfig(run=random_run, output_dir=directory / form, format=form))
    return {form: directory / form for form in ("dense", "sparse", "packed")}


@pytest.mark.parametrize("weights", ["dense", "sparse", "packed"])
def test_the_directory_is_complete_and_its_manifest_reads_back(exported, weights, random_run):
    directory = exported[weights]
    manifest = read_exported(directory)
    run = read_run(random_run)
    assert manifest.format == weights
    assert manifest.density == run.density
    assert manifest.inputs == ("input_ids", "token_type_ids", "attention_mask")
    assert manifest.verification.texts == 48
    assert manifest.verification.label_agreement == 1.0
    assert manifest.verification.largest_logit_difference <= manifest.verification.tolerance
    assert set(manifest.encodings) == set(run.matrices)
    masks = read_masks(random_run / "masks.safetensors")
    assert manifest.densities == {name: mask.mean() for name, mask in masks.items()}
    packings = {"bitmap", "gaps", "rice"}
    expected = {"dense": {"dense"}, "sparse": {"sparse", "dense"}, "packed": packings}
    assert set(manifest.encodings.values()) <= expected[weights]
    names = {path.name for path in directory.iterdir()}
    assert names >= {"README.md", "config.json", "manifest.json", "model.onnx", "tokenizer.json"}


def test_a_delta_gives_the_manifest_that_the_run_gives(exported, random_run, tmp_path):
    delta = tmp_path / "delta"
    export_delta(ExportConfig(run=random_run, output_dir=delta, format="delta"))
    config = ExportConfig(from_delta=delta, output_dir=tmp_path / "model", format="dense")
    manifest = export_run(config)
    assert manifest == read_exported(exported["dense"])
    assert manifest.densities


def test_the_sparsity_of_the_dense_file_is_that_of_the_masks(exported, random_run):
    model = onnx.load(exported["dense"] / "model.onnx")
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for name, mask in read_masks(random_run / "masks.safetensors").items():
        np.testing.assert_array_equal(stored[name].T != 0, mask)


@pytest.mark.parametrize("embeddings", ["fp32", "fp16", "int8"])
def test_a_row_of_the_embeddings_that_no_text_uses_is_checked(
    embeddings, run: Path, tmp_path: Path, monkeypatch
):
    def write_another_row(model: onnx.ModelProto, path: Path) -> bool:
        name = "embeddings.word_embeddings.weight"
        (tensor,) = (tensor for tensor in model.graph.initializer if tensor.name == name)
        table = onnx.numpy_helper.to_array(tensor).copy()
        table[4, 7] += 1  # [MASK]
        tensor.CopyFrom(onnx.numpy_helper.from_array(table, name))
        return graph_file.write_graph(model, path)

    monkeypatch.setattr(stage, "write_graph", write_another_row)
    output = tmp_path / "model"
    config = ExportConfig(run=run, output_dir=output, embeddings=embeddings, tolerance=10)
    with fails(VerificationError, r"word_embeddings\.weight in the graph are not the", output):
        export_run(config)


def test_packed_opens_as_the_dense_graph(exported, random_run, tmp_path):
    dense = tmp_path / "dense"
    export_run(ExportConfig(run=random_run, output_dir=dense, embeddings="fp16"))
    operators = {}
    for name, directory in (("dense", dense), ("packed", exported["packed"])):
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = str(tmp_path / f"{name}.onnx")
        ort.InferenceSession(
            str(directory / "model.onnx"), options, providers=["CPUExecutionProvider"]
        )
        graph = onnx.load(tmp_path / f"{name}.onnx").graph
        operators[name] = sorted(node.op_type for node in graph.node)
    assert operators["packed"] == operators["dense"]


def test_the_file_says_what_it_is(exported, random_run):
    model = onnx.load(exported["packed"] / "model.onnx")
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert metadata["smp_pipeline.format"] == "packed"
    assert float(metadata["smp_pipeline.density"]) == read_run(random_run).density


def test_exports_are_the_same_byte_for_byte(exported, random_run, tmp_path):
    export_run(ExportConfig(run=random_run, output_dir=tmp_path / "again", format="packed"))
    for path in exported["packed"].iterdir():
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes(), path.name


def test_finetuned_weights_and_regression_are_exported(make_run: Callable[..., Path], tmp_path):
    directory = make_run(method="finetune", labels=())
    manifest = export_run(ExportConfig(run=directory, output_dir=tmp_path / "model"))
    assert manifest.encodings == {}
    assert manifest.verification.label_agreement == 1.0
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["problem_type"] == "regression"
    with fails(ConfigurationError, "use --format dense", tmp_path / "packed"):
        export_run(ExportConfig(run=directory, output_dir=tmp_path / "packed", format="packed"))


def test_another_base_model_is_refused(run: Path, tiny_bert: Path, tmp_path: Path):
    from pipeline.artifacts.classifier import load_encoder

    other = Path(shutil.copytree(tiny_bert, tmp_path / "other"))
    encoder = load_encoder(str(tiny_bert))
    encoder.embeddings.word_embeddings.weight.data[0, 0] += 1.0
    encoder.save_pretrained(other)
    output = tmp_path / "model"
    with fails(ModelError, r"--model .*other.* belongs to .*tiny-bert", output):
        export_run(ExportConfig(run=run, output_dir=output, model=str(other)))


def test_a_moved_base_model_is_named_with_model(run: Path, tiny_bert: Path, tmp_path: Path):
    manifest = read_run(run)
    gone = dataclasses.replace(manifest.base_model, id=str(tmp_path / "gone"))
    write_run_manifest(run, dataclasses.replace(manifest, base_model=gone))
    output = tmp_path / "model"
    with fails(ModelError, "--model", output):
        export_run(ExportConfig(run=run, output_dir=output))
    export_run(ExportConfig(run=run, output_dir=output, model=str(tiny_bert)))
    assert read_exported(output)


@pytest.mark.parametrize("name", ["masks.safetensors", "head.safetensors"])
def test_a_changed_file_is_refused(name: str, run: Path, tmp_path: Path):
    path = run / name
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    output = tmp_path / "model"
    with fails(ArtifactError, f"{name} is not the file", output):
        export_run(ExportConfig(run=run, output_dir=output))


def test_a_broken_tokenizer_is_refused(run: Path, tmp_path: Path):
    path = run / "tokenizer.json"
    path.write_text(path.read_text()[:200])
    output = tmp_path / "model"
    with fails(ArtifactError, "the tokenizer cannot be loaded", output):
        export_run(ExportConfig(run=run, output_dir=output))


def test_masks_that_the_manifest_does_not_describe_are_refused(run: Path, tmp_path: Path):
    masks = read_masks(run / "masks.safetensors")
    next(iter(masks.values()))[:] = True
    write_masks(run / "masks.safetensors", masks)
    from pipeline.artifacts.files import sha256_file

    digest = sha256_file(run / "masks.safetensors")
    write_run_manifest(run, dataclasses.replace(read_run(run), masks_sha256=digest))
    output = tmp_path / "model"
    with fails(ArtifactError, "the masks are not those", output):
        export_run(ExportConfig(run=run, output_dir=output))


def test_missing_validation_texts_ask_for_a_file(run: Path, reviews, tmp_path: Path):
    manifest = read_run(run)
    gone = dataclasses.replace(manifest.validation_data, source="glue/sst2 validation")
    write_run_manifest(run, dataclasses.replace(manifest, validation_data=gone))
    output = tmp_path / "model"
    with fails(DataError, "--validation-file", output):
        export_run(ExportConfig(run=run, output_dir=output))
    config = ExportConfig(
        run=run, output_dir=output, validation_file=reviews[1], verification_samples=5
    )
    assert export_run(config).verification.texts == 5


def test_a_difference_beyond_tolerance_writes_nothing(run: Path, tmp_path: Path):
    output = tmp_path / "model"
    config = ExportConfig(run=run, output_dir=output, format="packed", tolerance=1e-9)
    with fails(VerificationError, "differ by .* nothing was written", output):
        export_run(config)


@pytest.mark.parametrize("form", ["dense", "packed"])
def test_a_model_too_large_for_one_file_gets_a_second(form, run: Path, tmp_path, monkeypatch):
    monkeypatch.setattr(graph_file, "_LARGEST_FILE_BYTES", 10_000)
    directory = tmp_path / "model"
    manifest = export_run(ExportConfig(run=run, output_dir=directory, format=form))
    assert manifest.data_sha256 == sha256_file(directory / "model.onnx.data")
    assert (directory / "model.onnx").stat().st_size < 100_000
    assert open_session(directory).logits(["good"]).shape == (1, 2)
    assert "model.onnx.data" in (directory / "README.md").read_text()


def test_a_fused_graph_without_empty_structure_is_still_right(run: Path, tmp_path: Path):
    masks = read_masks(run / "masks.safetensors")
    for name, mask in masks.items():
        if name.endswith("layer.0.intermediate.dense.weight"):
            mask[:5] = False
        if name.endswith("layer.0.attention.self.value.weight"):
            mask[: mask.shape[0] // 4] = False  # one of four heads
    write_masks(run / "masks.safetensors", masks)
    manifest = read_run(run)
    matrices = {
        name: dataclasses.replace(matrix, kept=int(masks[name].sum()))
        for name, matrix in manifest.matrices.items()
    }
    digest = sha256_file(run / "masks.safetensors")
    density = sum(m.kept for m in matrices.values()) / sum(m.size for m in matrices.values())
    changed = dataclasses.replace(manifest, masks_sha256=digest, matrices=matrices, density=density)
    write_run_manifest(run, changed)
    config = ExportConfig(
        run=run,
        output_dir=tmp_path / "model",
        format="packed",
        values="fp32",
        embeddings="fp32",
        remove_structure=True,
        fuse=("attention", "gelu"),
    )
    exported = export_run(config)
    assert exported.structure is not None
    assert exported.structure.neurons["0"] >= 5
    assert exported.structure.heads["0"] == 1
    assert exported.densities == {name: mask.mean() for name, mask in masks.items()}
    assert exported.fusions == {"attention": 2, "gelu": 2}


@pytest.mark.parametrize("form", ["dense", "packed"])
def test_a_vocabulary_that_a_corpus_left(form, run: Path, tmp_path: Path):
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("the film was good\na dull plot\n", encoding="utf-8")
    directory = tmp_path / "model"
    manifest = export_run(
        ExportConfig(run=run, output_dir=directory, format=form, prune_vocabulary=corpus)
    )
    assert manifest.vocabulary is not None
    session = open_session(directory)
    assert session.vocabulary_size == manifest.vocabulary.tokens < manifest.vocabulary.tokens_before
    assert session.logits(["the film was dull"]).shape == (1, 2)
    assert "2 texts" in (directory / "README.md").read_text()


def test_an_output_directory_with_files_is_refused_before_any_work(run: Path, tmp_path: Path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine").write_text("keep")
    with pytest.raises(ConfigurationError, match="not empty"):
        export_run(ExportConfig(run=run, output_dir=tmp_path / "model"))
    assert (tmp_path / "model" / "mine").read_text() == "keep"


@pytest.mark.parametrize(
    ("cause", "expected"),
    [(OSError(errno.ENOSPC, "full"), MachineError), (KeyboardInterrupt(), KeyboardInterrupt)],
)
def test_a_full_disk_or_an_interrupt_leaves_nothing(cause, expected, run, tmp_path, monkeypatch):
    def fail(*arguments: object) -> None:
        raise cause

    monkeypatch.setattr(stage, "write_model_card", fail)
    with pytest.raises(expected):
        export_run(ExportConfig(run=run, output_dir=tmp_path / "model"))
    assert {path.name for path in tmp_path.iterdir()} == {"run"}


def test_nothing_is_printed_without_a_terminal(run, tmp_path, capfd):
    from transformers.utils import logging

    logging.disable_progress_bar()  # as the command line does
    export_run(ExportConfig(run=run, output_dir=tmp_path / "model"))
    assert capfd.readouterr() == ("", "")
