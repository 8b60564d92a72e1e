"""The run directory that train leaves, sound and damaged."""

import json
import shutil
from dataclasses import replace

import pytest

from pipeline.artifacts.run import MatrixDensity, read_run, write_run_manifest
from pipeline.errors import ArtifactError


@pytest.fixture
def run(tiny_run, tmp_path):
    return shutil.copytree(tiny_run, tmp_path / "run")


def edit(run, **changes):
    path = run / "manifest.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, **changes}))


def test_the_manifest_comes_back_as_it_was_written(run):
    manifest = read_run(run)
    write_run_manifest(run, manifest)
    assert read_run(run) == manifest
    content = json.loads((run / "manifest.json").read_text())
    assert (content["kind"], content["schema_version"]) == ("smp-run", 1)


def test_the_density_is_that_of_the_matrices(run):
    manifest = read_run(run)
    kept = sum(matrix.kept for matrix in manifest.matrices.values())
    size = sum(matrix.size for matrix in manifest.matrices.values())
    assert manifest.density == kept / size
    assert manifest.density == pytest.approx(0.3, abs=1e-3)


def test_size_and_density_of_a_matrix():
    matrix = MatrixDensity("query", 0, (4, 6), kept=6)
    assert matrix.size == 24
    assert matrix.density == 0.25


def test_a_run_of_a_newer_schema_is_refused(run):
    edit(run, schema_version=2)
    with pytest.raises(ArtifactError, match=r"manifest.json has schema version 2.*upgrade"):
        read_run(run)


def test_keys_that_a_newer_writer_added_are_ignored(run):
    before = read_run(run)
    edit(run, colour="green")
    assert read_run(run) == before


@pytest.mark.parametrize("key", ["method", "density", "base_model", "head", "matrices"])
def test_a_missing_key_is_named(run, key):
    path = run / "manifest.json"
    content = json.loads(path.read_text())
    del content[key]
    path.write_text(json.dumps(content))
    with pytest.raises(ArtifactError, match=f"manifest.json is corrupt: {key} is missing"):
        read_run(run)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "smp-x"}, "method must be one of smp-s, smp-l, finetune"),
        ({"density": "0.3"}, "density must be float"),
        ({"kind": "smp-model"}, "expected a file of kind 'smp-run'"),
        ({"matrices": {"w": {"matrix_type": "query"}}}, "matrices.w.layer is missing"),
    ],
)
def test_a_wrong_value_is_refused(run, change, message):
    edit(run, **change)
    with pytest.raises(ArtifactError, match=message):
        read_run(run)


@pytest.mark.parametrize("name", ["manifest.json", "masks.safetensors", "head.safetensors"])
def test_a_missing_file_is_named(run, name):
    (run / name).unlink()
    with pytest.raises(ArtifactError, match=f"{name} is missing"):
        read_run(run)


def test_a_finetuned_run_needs_its_weights_and_no_masks(run):
    write_run_manifest(run, replace(read_run(run), method="finetune"))
    with pytest.raises(ArtifactError, match=r"weights.safetensors is missing"):
        read_run(run)
    (run / "masks.safetensors").rename(run / "weights.safetensors")
    assert read_run(run).method == "finetune"


def test_no_directory(tmp_path):
    with pytest.raises(ArtifactError, match="is no run directory; give what `smp-pipeline train"):
        read_run(tmp_path / "nope")
