import dataclasses
import json
import re
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from export import convert_file, export_run
from pipeline import native
from pipeline.artifacts.exported import read_exported, write_export_manifest
from pipeline.config import ExportConfig
from pipeline.errors import (
    ArtifactError,
    ConfigurationError,
    MachineError,
    ModelError,
    VerificationError,
)
from serve import open_session

pytestmark = pytest.mark.usefixtures("native_library", "traced_once")


@pytest.fixture(scope="module")
def packed(random_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of the tiny BERT, exported packed."""
    directory = tmp_path_factory.mktemp("packed") / "model"
    export_run(ExportConfig(run=random_run, output_dir=directory, format="packed"))
    return directory


@pytest.fixture
def copied(packed: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(packed, tmp_path / "packed"))


def config(source: Path, output: Path, **options: object) -> ExportConfig:
    return ExportConfig(from_onnx=source, format="engine", output_dir=output, **options)


@pytest.mark.parametrize("compute", ["int8", "fp32"])
def test_a_model_directory_of_ours_becomes_another(packed: Path, compute: str, tmp_path: Path):
    result = convert_file(config(packed / "model.onnx", tmp_path / "engine", compute=compute))
    manifest = read_exported(tmp_path / "engine")
    assert manifest == result.manifest
    assert (manifest.format, manifest.compute) == ("engine", compute)
    assert manifest.engine == result.engine
    assert (result.engine.encoder_layers, result.engine.encoder_nodes) == (2, 1)
    assert manifest.verification.reference == "onnx"
    assert manifest.verification.texts == 48
    assert manifest.verification.label_agreement >= 0.95
    before = read_exported(packed)
    assert (manifest.task, manifest.run) == (before.task, before.run)
    assert set(manifest.encodings) == set(before.encodings)
    names = {path.name for path in (tmp_path / "engine").iterdir()}
    assert names == {path.name for path in packed.iterdir()}
    texts = ["a good film", "the plot was dull and poor"]
    expected = open_session(packed, threads=1).logits(texts)
    found = open_session(tmp_path / "engine", threads=1).logits(texts)
    allowed = manifest.verification.tolerance
    np.testing.assert_allclose(found, expected, atol=allowed)
    metadata = {e.key: e.value for e in onnx.load(tmp_path / "engine/model.onnx").metadata_props}
    assert metadata["smp_pipeline.format"] == "engine"
    assert metadata["smp_pipeline.compute"] == compute
    assert float(metadata["smp_pipeline.density"]) == manifest.density


def test_the_manifest_has_the_fusions_and_encodings_that_are_left(random_run: Path, tmp_path: Path):
    fusions = ("attention", "gelu", "embed-layer-norm")
    options = {"run": random_run, "fuse": fusions, "format": "sparse"}
    before = export_run(ExportConfig(output_dir=tmp_path / "sparse", **options))
    assert set(before.encodings.values()) == {"sparse"}
    result = convert_file(config(tmp_path / "sparse" / "model.onnx", tmp_path / "engine"))
    assert result.manifest is not None
    assert result.manifest.fusions == {"attention": 0, "gelu": 0, "embed-layer-norm": 1}
    assert "sparse" not in result.manifest.encodings.values()
    assert "own for embed-layer-norm" in (tmp_path / "engine" / "README.md").read_text()


def test_the_card_says_how_to_open_it_and_its_code_runs(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    convert_file(config(packed / "model.onnx", tmp_path / "engine"))
    card = (tmp_path / "engine" / "README.md").read_text(encoding="utf-8")
    assert "embeddings, computing in int8 (2 encoder layers in 1 operator" in card
    assert "against the graph it was converted from on 48 validation texts" in card
    assert "optimum" not in card
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    monkeypatch.chdir(tmp_path / "engine")
    scope: dict[str, object] = {}
    exec(code, scope)
    logits = scope["logits"]
    assert isinstance(logits, np.ndarray)
    assert logits.shape == (1, 2)


def test_a_lone_file_is_converted_with_what_lies_beside_it(copied: Path, tmp_path: Path):
    (copied / "manifest.json").unlink()
    (copied / "model.onnx").rename(copied / "other.onnx")
    (copied / "notes.txt").write_text("mine")
    result = convert_file(config(copied / "other.onnx", tmp_path / "engine"))
    assert result.manifest is None
    assert result.verification.texts == 0
    assert result.size_bytes == (tmp_path / "engine" / "model.onnx").stat().st_size
    names = {path.name for path in (tmp_path / "engine").iterdir()}
    assert names == {"config.json", "model.onnx", "tokenizer.json", "tokenizer_config.json"}
    options = ort.SessionOptions()
    native.register(options)
    session = ort.InferenceSession(str(tmp_path / "engine" / "model.onnx"), options)
    ids = np.ones((2, 3), np.int64)
    (logits,) = session.run(None, {entry.name: ids for entry in session.get_inputs()})
    assert logits.shape == (2, 2)


def test_weights_in_files_beside_the_graph_are_read(copied: Path, tmp_path: Path):
    (copied / "manifest.json").unlink()
    model = onnx.load(copied / "model.onnx")
    onnx.save(model, copied / "model.onnx", save_as_external_data=True, location="weights.bin")
    convert_file(config(copied / "model.onnx", tmp_path / "engine"))
    converted = onnx.load(tmp_path / "engine" / "model.onnx", load_external_data=False)
    assert not any(tensor.external_data for tensor in converted.graph.initializer)
    (copied / "weights.bin").unlink()
    with pytest.raises(ArtifactError, match=r"model\.onnx|weights\.bin"):
        convert_file(config(copied / "model.onnx", tmp_path / "again"))


def test_the_same_file_gives_the_same_bytes(packed: Path, tmp_path: Path):
    for name in ("one", "two"):
        convert_file(config(packed / "model.onnx", tmp_path / name))
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes(), path.name


def test_other_texts_can_be_given_with_a_manifest_only(
    packed: Path, copied: Path, reviews, tmp_path
):
    options = {"validation_file": reviews[0], "verification_samples": 20}
    result = convert_file(config(packed / "model.onnx", tmp_path / "engine", **options))
    assert result.verification.texts == 20
    (copied / "manifest.json").unlink()
    with pytest.raises(ConfigurationError, match=r"--validation-file needs manifest\.json"):
        convert_file(config(copied / "model.onnx", tmp_path / "other", **options))


def test_texts_that_are_gone_are_made_up(copied: Path, tmp_path: Path):
    manifest = read_exported(copied)
    run = {**manifest.run, "validation_data": {**manifest.run["validation_data"], "source": "gone"}}
    write_export_manifest(copied, dataclasses.replace(manifest, run=run))
    result = convert_file(config(copied / "model.onnx", tmp_path / "engine"))
    assert result.verification.texts == 0
    card = (tmp_path / "engine" / "README.md").read_text(encoding="utf-8")
    assert "on made-up inputs" in card


def test_a_difference_beyond_tolerance_writes_nothing(packed: Path, tmp_path: Path):
    with pytest.raises(VerificationError, match=r"the original graph differ by .* nothing was"):
        convert_file(config(packed / "model.onnx", tmp_path / "engine", tolerance=1e-9))
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_not_the_manifests_is_refused(copied: Path, tmp_path: Path):
    with (copied / "model.onnx").open("ab") as file:
        file.write(b"\x00")
    with pytest.raises(ArtifactError, match="its hash is not that of manifest"):
        convert_file(config(copied / "model.onnx", tmp_path / "engine"))


@pytest.mark.parametrize(
    ("content", "message"), [(b"no graph", "no ONNX file"), (None, "is missing"), (b"", "no graph")]
)
def test_what_is_no_onnx_file_is_refused(content, message, tmp_path: Path):
    path = tmp_path / "m.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ArtifactError, match=message) as caught:
        convert_file(config(path, tmp_path / "engine"))
    assert "\n" not in str(caught.value)
    with pytest.raises(ArtifactError, match="is a directory; give the ONNX file in it"):
        convert_file(config(tmp_path, tmp_path / "engine"))


def test_a_dense_model_is_refused_with_its_name_and_density(make_run, tmp_path: Path):
    export_run(ExportConfig(run=make_run(method="finetune"), output_dir=tmp_path / "dense"))
    path = tmp_path / "dense" / "model.onnx"
    with pytest.raises(ModelError, match=rf"--from-onnx {path}: .*100\.0% not zero together"):
        convert_file(config(path, tmp_path / "engine"))
    assert not (tmp_path / "engine").exists()


def test_without_the_library_nothing_is_begun(packed, random_run, tmp_path, monkeypatch):
    def missing() -> Path:
        raise MachineError("the library is missing")

    monkeypatch.setattr(native, "library_path", missing)
    with pytest.raises(MachineError):
        convert_file(config(packed / "model.onnx", tmp_path / "engine"))
    with pytest.raises(MachineError):
        export_run(ExportConfig(run=random_run, output_dir=tmp_path / "engine", format="engine"))
    assert not list(tmp_path.iterdir())


def test_a_run_is_exported_at_once(random_run: Path, packed: Path, tmp_path: Path):
    directory = tmp_path / "engine"
    manifest = export_run(ExportConfig(run=random_run, output_dir=directory, format="engine"))
    assert read_exported(directory) == manifest
    assert (manifest.format, manifest.compute) == ("engine", "int8")
    assert manifest.verification.reference == "pytorch"
    assert manifest.engine is not None
    assert manifest.engine.encoder_layers == 2
    assert set(manifest.encodings.values()) <= {"bitmap", "gaps"}
    convert_file(config(packed / "model.onnx", tmp_path / "converted"))
    texts = ["a good film", "the plot was dull and poor"]
    first, second = (
        open_session(tmp_path / name, threads=1).logits(texts) for name in ("engine", "converted")
    )
    np.testing.assert_allclose(first, second, atol=0.1)
    record = json.loads((directory / "manifest.json").read_text())
    assert record["engine"]["linear_layers"] == 0
    metadata = {
        entry.key: entry.value for entry in onnx.load(directory / "model.onnx").metadata_props
    }
    assert metadata["smp_pipeline.compute"] == "int8"
    assert metadata["smp_pipeline.method"] == manifest.method


def test_a_run_in_fp32_agrees_with_pytorch_to_rounding(random_run: Path, tmp_path: Path):
    manifest = export_run(
        ExportConfig(
            run=random_run,
            output_dir=tmp_path / "engine",
            format="engine",
            compute="fp32",
            values="fp32",
            embeddings="fp32",
        )
    )
    assert manifest.verification.label_agreement == 1.0
    assert manifest.verification.largest_logit_difference < 1e-4


def test_a_finetuned_run_has_nothing_for_the_engine(make_run, tmp_path: Path):
    run = make_run(method="finetune")
    with pytest.raises(ConfigurationError, match="--format engine is for pruned"):
        export_run(ExportConfig(run=run, output_dir=tmp_path / "engine", format="engine"))


@pytest.mark.parametrize("form", ["sparse", "packed"])
def test_whatever_stores_the_weights_becomes_the_same_engine(form, random_run: Path, tmp_path):
    models = {}
    for name in ("dense", form):
        source = tmp_path / name
        export_run(
            ExportConfig(
                run=random_run, output_dir=source, format=name, values="fp32", embeddings="fp32"
            )
        )
        output = tmp_path / f"{name}-engine"
        convert_file(
            ExportConfig(from_onnx=source / "model.onnx", output_dir=output, format="engine")
        )
        graph = onnx.load(output / "model.onnx").graph
        models[name] = {tensor.name: tensor.raw_data for tensor in graph.initializer}
    assert models[form] == models["dense"]
