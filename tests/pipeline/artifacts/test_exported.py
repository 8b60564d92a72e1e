"""The model directory that export leaves, sound and damaged."""

import json

import pytest

from pipeline.artifacts.exported import read_exported, write_export_manifest
from pipeline.errors import ArtifactError


@pytest.fixture
def model(make_model, tmp_path):
    return make_model(tmp_path / "model")


def test_the_manifest_comes_back_as_it_was_written(model):
    manifest = read_exported(model)
    write_export_manifest(model, manifest)
    assert read_exported(model) == manifest


def test_a_model_of_a_newer_schema_is_refused_and_newer_keys_are_ignored(model):
    before, path = read_exported(model), model / "manifest.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "colour": "green"}))
    assert read_exported(model) == before
    path.write_text(json.dumps({**content, "schema_version": 99}))
    with pytest.raises(ArtifactError, match="has schema version 99"):
        read_exported(model)


@pytest.mark.parametrize("name", ["manifest.json", "model.onnx", "tokenizer.json"])
def test_a_missing_file_is_named(model, name):
    (model / name).unlink()
    with pytest.raises(ArtifactError, match=f"{name} is missing"):
        read_exported(model)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "zip"}, "format must be one of dense, sparse, packed"),
        ({"opset": "20"}, "opset must be int"),
        ({"inputs": "input_ids"}, "inputs must be a list"),
        ({"inputs": ["input_ids", "images"]}, "no model takes input_ids, images of up to"),
        ({"verification": {"texts": 1}}, "verification.largest_logit_difference is missing"),
    ],
)
def test_a_wrong_value_is_refused(model, change, message):
    path = model / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ArtifactError, match=message):
        read_exported(model)


def matrix(**changes):
    return {"matrix_type": "query", "layer": 0, "shape": [4, 8], "kept": 8, **changes}


def test_densities_are_those_of_the_runs_record(make_model, tmp_path):
    run = {"matrices": {"a": matrix(), "b": matrix(layer=1, kept=32), "c": matrix(kept=0)}}
    manifest = read_exported(make_model(tmp_path / "model", run=run))
    assert manifest.densities == {"a": 0.25, "b": 1.0, "c": 0.0}
    assert manifest.matrices["b"].layer == 1


def test_a_model_whose_record_has_no_matrices_has_no_densities(model):
    assert read_exported(model).densities == {}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kept": 33}, r"the matrix a of shape \[4, 8\] cannot keep 33 weights; export the"),
        ({"kept": -1}, "cannot keep -1 weights"),
        ({"shape": [0, 8], "kept": 0}, r"of shape \[0, 8\] cannot keep 0"),
        ({"shape": [-4, -8]}, r"of shape \[-4, -8\] cannot keep"),
        ({"kept": "8"}, r"matrices\.a\.kept must be int"),
    ],
)
def test_a_matrix_that_cannot_be_is_refused(make_model, tmp_path, change, message):
    directory = make_model(tmp_path / "model", run={"matrices": {"a": matrix(**change)}})
    with pytest.raises(ArtifactError, match=rf"manifest\.json is corrupt: .*{message}"):
        read_exported(directory)


@pytest.mark.parametrize("length", [0, -1, 10**12])
def test_texts_that_no_model_takes_are_refused(model, length):
    path = model / "manifest.json"
    content = json.loads(path.read_text())
    content["task"]["max_length"] = length
    path.write_text(json.dumps(content))
    with pytest.raises(ArtifactError, match=f"of up to {length} tokens; export the model again"):
        read_exported(model)


def test_a_run_directory_is_no_model_directory(tiny_run, tmp_path):
    with pytest.raises(ArtifactError, match="expected a file of kind 'smp-model', got 'smp-run'"):
        read_exported(tiny_run)
    with pytest.raises(ArtifactError, match="is no model directory"):
        read_exported(tmp_path / "nope")
