"""A delta directory's two files say the same, and nothing is read that does not belong there."""

import dataclasses
import hashlib
import json
import zlib

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from pipeline.artifacts.delta import (
    BaseTensor,
    DeltaContent,
    DeltaManifest,
    TokenizerFile,
    masks_sha256,
    read_content,
    read_delta,
    write_content,
    write_delta_manifest,
)
from pipeline.artifacts.files import sha256_file
from pipeline.artifacts.masks import write_masks
from pipeline.artifacts.run import (
    BaseModel,
    DataFile,
    HeadLayout,
    MatrixDensity,
    RunManifest,
    TaskLayout,
)
from pipeline.errors import ArtifactError

VOCABULARY = b'{"a": 0}' * 100
RUN = RunManifest(
    smp_pipeline_version="0",
    method="smp-s",
    density=0.25,
    base_model=BaseModel("tiny", None, "bert", "0" * 64),
    task=TaskLayout("classification", ("no", "yes"), "text", None, "label", 32, "accuracy"),
    head=HeadLayout("linear", "first", 4, 2),
    train_data=DataFile("train.csv", "0" * 64, 8, 0),
    validation_data=DataFile("validation.csv", "0" * 64, 8, 0),
    masks_sha256="0" * 64,
    head_sha256="0" * 64,
    weights_sha256=None,
    matrices={"w": MatrixDensity("query", 0, (4, 4), 4)},
    metrics={"accuracy": 0.5},
    settings={"seed": 0},
    versions={},
    hardware={},
)
CONTENT = DeltaContent(
    masks=b"coded",
    head={"output.weight": np.arange(8, dtype=np.float32).reshape(2, 4)},
    tokenizer={"tokenizer.json": VOCABULARY},
)


@pytest.fixture
def written(tmp_path):
    """A delta directory and its manifest."""
    sizes = write_content(tmp_path, CONTENT)
    manifest = DeltaManifest(
        smp_pipeline_version="0",
        run=RUN,
        delta_sha256=sha256_file(tmp_path / "delta.safetensors"),
        masks_sha256="0" * 64,
        head_from_base={"output.bias": BaseTensor("cls.bias", "0" * 64)},
        tokenizer={
            "tokenizer.json": TokenizerFile(
                hashlib.sha256(VOCABULARY).hexdigest(), len(VOCABULARY), stored=True
            ),
            "added.json": TokenizerFile("0" * 64, 3, stored=False),
        },
        **sizes,
    )
    write_delta_manifest(tmp_path, manifest)
    return tmp_path, manifest


def test_manifest_and_content_come_back_as_they_were(written):
    directory, manifest = written
    assert read_delta(directory) == manifest
    found = read_content(directory, manifest)
    assert (found.masks, found.tokenizer) == (CONTENT.masks, CONTENT.tokenizer)
    assert found.head.keys() == CONTENT.head.keys()
    np.testing.assert_array_equal(found.head["output.weight"], CONTENT.head["output.weight"])


def test_sizes_are_those_of_the_tensors_and_bits_are_by_weight(written):
    directory, manifest = written
    stored = {name: t.nbytes for name, t in load_file(directory / "delta.safetensors").items()}
    assert stored == {
        "masks": manifest.masks_bytes,
        "head.output.weight": manifest.head_bytes,
        "tokenizer.tokenizer.json": manifest.tokenizer_bytes,
    }
    assert (manifest.masks_bytes, manifest.head_bytes) == (5, 32)
    assert manifest.bits_per_weight == 5 * 8 / 16
    entropy = 0.25 * 2 + 0.75 * np.log2(4 / 3)
    assert manifest.bound_bits_per_weight == pytest.approx(entropy)
    assert "masks of 5 bytes, 2.500 bits a weight" in manifest.summary()


def test_the_masks_hash_is_that_of_a_runs_masks_file(tmp_path):
    generator = np.random.default_rng(0)
    masks = {name: generator.random((5, 7)) < 0.4 for name in ("b", "a")}
    write_masks(tmp_path / "masks.safetensors", masks)
    with safe_open(str(tmp_path / "masks.safetensors"), framework="numpy") as file:
        assert masks_sha256(masks) == file.metadata()["sha256"]


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"kind": "smp-run"}, "expected a file of kind 'smp-delta', got 'smp-run'"),
        ({"schema_version": 2}, "upgrade smp-pipeline"),
        ({"masks_bytes": "5"}, "masks_bytes must be int"),
        ({"tokenizer": {"../a": {"sha256": "0", "size_bytes": 1, "stored": True}}}, "no file of"),
        ({"tokenizer": {"..": {"sha256": "0", "size_bytes": 1, "stored": True}}}, "no file of"),
    ],
)
def test_a_wrong_manifest_is_refused(written, change, match):
    directory, _ = written
    path = directory / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ArtifactError, match=match):
        read_delta(directory)


@pytest.mark.parametrize(
    ("matrices", "match"),
    [
        ({}, "it has no masks"),
        ({"w": MatrixDensity("query", 0, (16,), 4)}, "w has no shape and count of a mask"),
        ({"w": MatrixDensity("query", 0, (4, -4), 4)}, "w has no shape"),
        ({"w": MatrixDensity("query", 0, (4, 4), 17)}, "w has no shape"),
        ({"w": MatrixDensity("query", 0, (2**40, 2**40), 4)}, "w has no shape"),
        ({"w": MatrixDensity("query", 0, (4, 4), -1)}, "w has no shape"),
    ],
)
def test_matrices_that_no_mask_has_are_refused(written, matrices, match):
    directory, manifest = written
    run = dataclasses.replace(RUN, matrices=matrices)
    write_delta_manifest(directory, dataclasses.replace(manifest, run=run))
    with pytest.raises(ArtifactError, match=match):
        read_delta(directory)


def test_an_incomplete_directory_is_refused(written, tmp_path):
    directory, _ = written
    with pytest.raises(ArtifactError, match="nope is no delta directory; give what"):
        read_delta(tmp_path / "nope")
    (directory / "delta.safetensors").unlink()
    with pytest.raises(ArtifactError, match=r"delta\.safetensors is missing; copy the delta again"):
        read_delta(directory)
    (directory / "manifest.json").unlink()
    with pytest.raises(ArtifactError, match=r"manifest\.json is missing"):
        read_delta(directory)


def test_another_file_than_the_manifests_is_refused(written):
    directory, manifest = written
    with (directory / "delta.safetensors").open("ab") as file:
        file.write(b"x")
    with pytest.raises(ArtifactError, match="not the file that the manifest was written for"):
        read_content(directory, manifest)


def refused(directory, manifest, match):
    """What is in the file is refused although the manifest has its hash."""
    path = directory / "delta.safetensors"
    manifest = dataclasses.replace(manifest, delta_sha256=sha256_file(path))
    with pytest.raises(ArtifactError, match=match) as error:
        read_content(directory, manifest)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"masks": np.zeros(5, np.float32)}, "tensor masks does not belong there"),
        ({"head.output.weight": np.zeros(5, np.float64)}, "tensor head.output.weight does not"),
        ({"other": np.zeros(5, np.uint8)}, "tensor other does not belong there"),
        ({"masks2": np.zeros(5, np.uint8)}, "does not hold what its manifest says"),
        ({"masks": None}, "does not hold what its manifest says"),
        ({"tokenizer.tokenizer.json": None}, "does not hold what its manifest says"),
        ({"tokenizer.other": np.zeros(5, np.uint8)}, "does not hold what its manifest says"),
        ({"tokenizer.tokenizer.json": np.zeros(5, np.uint8)}, "cannot be inflated"),
        (
            {"tokenizer.tokenizer.json": np.frombuffer(zlib.compress(b"x"), np.uint8)},
            "tokenizer.json has another hash",
        ),
        (
            {"tokenizer.tokenizer.json": np.frombuffer(zlib.compress(bytes(10**8)), np.uint8)},
            "tokenizer.json has another hash",
        ),
    ],
)
def test_other_tensors_are_refused(written, change, match):
    directory, manifest = written
    path = directory / "delta.safetensors"
    tensors = load_file(path) | change
    save_file({name: t for name, t in tensors.items() if t is not None}, path)
    refused(directory, manifest, match)


@pytest.mark.parametrize("size_bytes", [-1, 2**70])
def test_a_size_that_no_file_has_is_refused_or_changes_nothing(written, size_bytes):
    directory, manifest = written
    facts = dataclasses.replace(manifest.tokenizer["tokenizer.json"], size_bytes=size_bytes)
    files = manifest.tokenizer | {"tokenizer.json": facts}
    refused(directory, dataclasses.replace(manifest, tokenizer=files), r"tokenizer\.json")


@pytest.mark.parametrize("field", ["masks_bytes", "head_bytes", "tokenizer_bytes"])
def test_sizes_that_are_not_the_tensors_are_refused(written, field):
    directory, manifest = written
    changed = dataclasses.replace(manifest, **{field: getattr(manifest, field) - 1})
    refused(directory, changed, "its manifest has other sizes")


@pytest.mark.parametrize("method", ["finetune", "magnitude"])
def test_a_run_that_changed_the_weights_has_no_delta(written, method):
    directory, manifest = written
    run = dataclasses.replace(RUN, method=method)
    write_delta_manifest(directory, dataclasses.replace(manifest, run=run))
    with pytest.raises(ArtifactError, match="it has no masks"):
        read_delta(directory)


def test_a_file_cut_anywhere_is_refused(written):
    directory, manifest = written
    path = directory / "delta.safetensors"
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        refused(directory, manifest, "truncated or corrupt")
