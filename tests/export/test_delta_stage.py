"""A delta and the base model give the run back, bit for bit, or one line says why not."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForMaskedLM

from export.delta_stage import export_delta, load_delta
from export.graph import export_graph, graph_inputs
from export.model_config import write_config, write_tokenizer
from pipeline.artifacts.classifier import Head, load_encoder
from pipeline.artifacts.delta import (
    DeltaManifest,
    read_delta,
    write_content,
    write_delta_manifest,
)
from pipeline.artifacts.files import sha256_file
from pipeline.artifacts.run import HeadTransform, TaskLayout, read_run, write_run_manifest
from pipeline.artifacts.trained import TrainedModel, load_run
from pipeline.config import ExportConfig
from pipeline.errors import ArtifactError, ConfigurationError, ModelError, VerificationError

pytestmark = pytest.mark.usefixtures("traced_once")

DELTA_FILE = "delta.safetensors"
TASK = TaskLayout("classification", ("0", "1"), "text", None, "label", 48, "accuracy")


def make_delta(run: Path, directory: Path, **options: object) -> DeltaManifest:
    return export_delta(ExportConfig(run=run, output_dir=directory, format="delta", **options))


def files_of(trained: TrainedModel, directory: Path) -> dict[str, bytes]:
    """What an export writes that does not depend on the format, and the dense graph."""
    directory.mkdir()
    inputs = graph_inputs(trained.tokenizer.model_input_names, trained.classifier)
    graph = export_graph(trained.classifier, tuple(trained.masks), inputs, 20)
    write_tokenizer(directory, trained.tokenizer, TASK.max_length)
    write_config(directory, trained.classifier.encoder.config, TASK)
    written = {path.name: path.read_bytes() for path in directory.iterdir()}
    return written | {"graph": ir.to_proto(graph).SerializeToString(deterministic=True)}


def assert_same(found: TrainedModel, expected: TrainedModel) -> None:
    assert found.masks.keys() == expected.masks.keys()
    for name, mask in expected.masks.items():
        np.testing.assert_array_equal(found.masks[name], mask)
    states = found.classifier.state_dict(), expected.classifier.state_dict()
    assert states[0].keys() == states[1].keys()
    for name, tensor in states[1].items():
        assert states[0][name].numpy().tobytes() == tensor.numpy().tobytes(), name


@pytest.mark.parametrize("density", [0.03, 0.5])
def test_a_delta_gives_the_model_that_the_run_gives_bit_for_bit(make_run, tmp_path, density):
    run = make_run(density=density)
    manifest = make_delta(run, tmp_path / "delta")
    assert read_delta(tmp_path / "delta") == manifest
    assert manifest.run == read_run(run)
    expected = load_run(run, manifest.run, model=None)
    found = load_delta(tmp_path / "delta", manifest, model=None)
    assert_same(found, expected)
    assert files_of(found, tmp_path / "found") == files_of(expected, tmp_path / "expected")


def test_the_same_run_gives_the_same_bytes(random_run, tmp_path):
    for name in ("one", "two"):
        make_delta(random_run, tmp_path / name)
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert names == ["README.md", DELTA_FILE, "manifest.json"]
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_the_card_says_what_it_belongs_to_and_how_small_it_is(random_run, tiny_bert, tmp_path):
    manifest = make_delta(random_run, tmp_path / "delta")
    card = (tmp_path / "delta" / "README.md").read_text()
    assert card.startswith(f"# {tiny_bert.name}, pruned to density {manifest.run.density:.3g}")
    assert manifest.run.base_model.sha256 in card
    assert manifest.summary() in card
    assert str(tiny_bert) not in card


def test_a_tokenizer_that_the_base_model_gives_is_not_stored(random_run, tmp_path):
    manifest = make_delta(random_run, tmp_path / "delta")
    assert not manifest.tokenizer["tokenizer.json"].stored
    assert "tokenizer.tokenizer.json" not in load_file(tmp_path / "delta" / DELTA_FILE)


def test_a_tokenizer_of_the_runs_own_is_stored(random_run, tmp_path):
    run = shutil.copytree(random_run, tmp_path / "run")
    content = json.loads((run / "tokenizer.json").read_text())
    content["normalizer"]["lowercase"] = False
    (run / "tokenizer.json").write_text(json.dumps(content))
    manifest = make_delta(run, tmp_path / "delta")
    assert manifest.tokenizer["tokenizer.json"].stored
    found = load_delta(tmp_path / "delta", manifest, model=None)
    expected = load_run(run, manifest.run, model=None)
    assert files_of(found, tmp_path / "found") == files_of(expected, tmp_path / "expected")
    assert found.tokenizer.tokenize("Good") == ["[UNK]"]


@pytest.fixture
def other_place(tiny_bert, tmp_path):
    """A copy of the base model that may be changed."""
    return shutil.copytree(tiny_bert, tmp_path / "copy")


def test_a_base_model_at_another_place_is_taken(random_run, other_place, tmp_path):
    manifest = make_delta(random_run, tmp_path / "delta", model=str(other_place))
    found = load_delta(tmp_path / "delta", manifest, model=str(other_place))
    assert_same(found, load_run(random_run, manifest.run, model=None))


def test_another_base_model_is_refused_with_both_hashes(random_run, other_place, tmp_path):
    manifest = make_delta(random_run, tmp_path / "delta")
    encoder = load_encoder(str(other_place))
    with torch.no_grad():
        next(encoder.parameters()).add_(1)
    encoder.save_pretrained(other_place)
    theirs = manifest.run.base_model.sha256[:12]
    match = f"of hash [0-9a-f]{{12}}, the delta {tmp_path / 'delta'} belongs to .* hash {theirs}"
    with pytest.raises(ModelError, match=match):
        load_delta(tmp_path / "delta", manifest, model=str(other_place))
    with pytest.raises(ModelError, match=f"the run {random_run} belongs to"):
        make_delta(random_run, tmp_path / "second", model=str(other_place))
    assert not (tmp_path / "second").exists()


def test_a_base_model_with_another_tokenizer_is_refused(random_run, other_place, tmp_path):
    manifest = make_delta(random_run, tmp_path / "delta")
    content = json.loads((other_place / "tokenizer.json").read_text())
    content["normalizer"]["lowercase"] = False
    (other_place / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(ModelError, match=r"its tokenizer gives another tokenizer\.json than"):
        load_delta(tmp_path / "delta", manifest, model=str(other_place))


def test_a_base_model_without_a_tokenizer_has_it_stored(random_run, other_place, tmp_path):
    for path in other_place.glob("tokenizer*"):
        path.unlink()
    manifest = make_delta(random_run, tmp_path / "delta", model=str(other_place))
    assert manifest.tokenizer["tokenizer.json"].stored
    found = load_delta(tmp_path / "delta", manifest, model=str(other_place))
    assert_same(found, load_run(random_run, manifest.run, model=None))


@pytest.mark.parametrize(("method", "other"), [("finetune", "dense"), ("movement", "packed")])
def test_a_run_with_weights_of_its_own_is_refused(make_run, tmp_path, method, other):
    run = make_run(method=method)
    message = f"--format delta stores masks over .* --method {method}, .* use --format {other}"
    with pytest.raises(ConfigurationError, match=message):
        make_delta(run, tmp_path / "delta")
    assert not (tmp_path / "delta").exists()


@pytest.fixture(scope="module")
def language_model(tiny_bert, tmp_path_factory):
    """A checkpoint with a masked-language-model head, in one file and in shards."""
    directory = tmp_path_factory.mktemp("language-model")
    torch.manual_seed(5)
    config = BertConfig.from_pretrained(str(tiny_bert), architectures=None)
    model = BertForMaskedLM(config)
    for name, options in (("whole", {}), ("shards", {"max_shard_size": "20kB"})):
        shutil.copytree(tiny_bert, directory / name)
        (directory / name / "model.safetensors").unlink()
        model.save_pretrained(directory / name, **options)
    assert len(list((directory / "shards").glob("*.safetensors"))) > 1
    return directory


def with_label_words(run: Path, model: Path) -> Path:
    """Give a run the head that `train` makes of a masked-language-model head."""
    checkpoint = BertForMaskedLM.from_pretrained(str(model)).state_dict()
    transform = "cls.predictions.transform"
    head = {
        "transform.0.weight": checkpoint[f"{transform}.dense.weight"],
        "transform.0.bias": checkpoint[f"{transform}.dense.bias"],
        "transform.2.weight": checkpoint[f"{transform}.LayerNorm.weight"],
        "transform.2.bias": checkpoint[f"{transform}.LayerNorm.bias"],
        "output.weight": checkpoint["cls.predictions.decoder.weight"][[5, 10]].clone(),
        "output.bias": checkpoint["cls.predictions.decoder.bias"][[5, 10]].clone(),
    }
    manifest = read_run(run)
    layout = dataclasses.replace(
        manifest.head,
        kind="label-words",
        transform=HeadTransform("gelu", 1e-12, 32),
        label_words=("good", "bad"),
    )
    Head(layout).load_state_dict(head)
    save_file(head, str(run / "head.safetensors"))
    digest = sha256_file(run / "head.safetensors")
    write_run_manifest(run, dataclasses.replace(manifest, head=layout, head_sha256=digest))
    return run


@pytest.mark.parametrize("name", ["whole", "shards"])
def test_a_head_that_the_checkpoint_has_is_not_stored(make_run, language_model, tmp_path, name):
    model = language_model / name
    run = with_label_words(make_run(model=model), model)
    manifest = make_delta(run, tmp_path / "delta")
    taken = {key: tensor.name for key, tensor in manifest.head_from_base.items()}
    assert taken == {"transform.0.weight": "cls.predictions.transform.dense.weight"}
    stored = load_file(tmp_path / "delta" / DELTA_FILE)
    assert "head.transform.0.weight" not in stored
    assert "head.output.weight" in stored
    found = load_delta(tmp_path / "delta", manifest, model=None)
    assert_same(found, load_run(run, manifest.run, model=None))


@pytest.mark.parametrize("change", ["dropped", "other values"])
def test_a_checkpoint_without_that_head_is_refused(make_run, language_model, tmp_path, change):
    model = shutil.copytree(language_model / "whole", tmp_path / "model")
    run = with_label_words(make_run(model=model), model)
    manifest = make_delta(run, tmp_path / "delta")
    tensors = load_file(model / "model.safetensors")
    name = manifest.head_from_base["transform.0.weight"].name
    if change == "dropped":
        del tensors[name]
    else:
        tensors[name] = tensors[name] + 1
    save_file(tensors, str(model / "model.safetensors"), metadata={"format": "pt"})
    with pytest.raises(ModelError, match=f"its checkpoint does not have the tensor {name}"):
        load_delta(tmp_path / "delta", manifest, model=None)


def test_masks_that_decode_to_others_are_never_taken(random_run, tmp_path):
    manifest = make_delta(random_run, tmp_path / "delta")
    path = tmp_path / "delta" / DELTA_FILE
    tensors = load_file(path)
    generator = np.random.default_rng(0)
    for position in generator.choice(len(tensors["masks"]), 40, replace=False):
        masks = tensors["masks"].clone()
        masks[position] ^= int(generator.integers(1, 256))
        save_file(tensors | {"masks": masks}, path)
        changed = dataclasses.replace(manifest, delta_sha256=sha256_file(path))
        with pytest.raises(ArtifactError, match=r"corrupt: its masks (cannot|have another)"):
            load_delta(tmp_path / "delta", changed, model=None)


def changed_run(manifest, **changes):
    return dataclasses.replace(manifest, run=dataclasses.replace(manifest.run, **changes))


def test_a_manifest_that_does_not_fit_is_refused(random_run, tmp_path):
    manifest = make_delta(random_run, tmp_path / "delta")
    name, matrix = next(iter(manifest.run.matrices.items()))
    others = {key: value for key, value in manifest.run.matrices.items() if key != name}
    wrong_count = dataclasses.replace(matrix, kept=matrix.kept + 1)
    wrong_shape = dataclasses.replace(matrix, shape=(matrix.size, 1))
    head = dataclasses.replace(manifest.run.head, outputs=3)
    for run, match in (
        ({"matrices": {**others, name: wrong_count}}, "masks are not those that the manifest"),
        ({"matrices": {**others, name: wrong_shape}}, f"no matrix {name} of shape"),
        ({"matrices": {**others, "no.weight": matrix}}, r"no matrix no\.weight of shape"),
        ({"matrices": others}, "its masks cannot be decoded"),
        ({"density": 0.9}, "masks are not those that the manifest"),
        ({"task": dataclasses.replace(TASK, max_length=65)}, "up to 65 tokens, .* takes 1 to 64"),
        ({"head": head}, "its tokenizer and head do not fit its manifest"),
    ):
        write_delta_manifest(tmp_path / "delta", changed_run(manifest, **run))
        with pytest.raises(ArtifactError, match=match):
            load_delta(tmp_path / "delta", read_delta(tmp_path / "delta"), model=None)


def test_a_delta_that_does_not_give_the_run_back_never_appears(random_run, tmp_path, monkeypatch):
    def write_another_head(directory, content):
        head = {name: tensor + 1 for name, tensor in content.head.items()}
        return write_content(directory, dataclasses.replace(content, head=head))

    monkeypatch.setattr("export.delta_stage.write_content", write_another_head)
    with pytest.raises(VerificationError, match="does not give back the run's head; nothing was"):
        make_delta(random_run, tmp_path / "delta")
    assert list(tmp_path.iterdir()) == []


def test_an_incomplete_run_is_refused(random_run, tmp_path):
    run = shutil.copytree(random_run, tmp_path / "run")
    with (run / "head.safetensors").open("ab") as file:
        file.write(b"x")
    with pytest.raises(ArtifactError, match=r"head\.safetensors is not the file"):
        make_delta(run, tmp_path / "delta")
    assert not (tmp_path / "delta").exists()
