"""A run directory and its base model become the classifier that is exported."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch

from pipeline.artifacts.classifier import load_encoder
from pipeline.artifacts.masks import read_masks, write_masks
from pipeline.artifacts.run import read_run
from pipeline.artifacts.trained import load_run
from pipeline.errors import ArtifactError, ModelError


def test_the_masks_are_multiplied_into_the_base_models_weights(random_run, tiny_bert):
    trained = load_run(random_run, read_run(random_run), model=None)
    masks = read_masks(random_run / "masks.safetensors")
    assert trained.masks.keys() == masks.keys()
    frozen = dict(load_encoder(str(tiny_bert)).named_parameters())
    for name, parameter in trained.classifier.encoder.named_parameters():
        kept = torch.from_numpy(masks[name]) if name in masks else torch.tensor(True)
        assert torch.equal(parameter, frozen[name] * kept)
    assert not trained.classifier.training
    assert trained.tokenizer.is_fast


def test_a_fine_tuned_run_has_its_own_weights_and_no_masks(make_run):
    from safetensors.torch import load_file

    run = make_run(method="finetune")
    trained = load_run(run, read_run(run), model=None)
    assert trained.masks == {}
    weights = load_file(run / "weights.safetensors")
    for name, parameter in trained.classifier.encoder.named_parameters():
        assert torch.equal(parameter, weights[name])


def test_masks_are_multiplied_into_the_weights_that_a_run_trained(make_run):
    from safetensors.torch import load_file

    run = make_run(method="movement")
    trained = load_run(run, read_run(run), model=None)
    weights = load_file(run / "weights.safetensors")
    assert trained.masks.keys() == read_masks(run / "masks.safetensors").keys()
    for name, parameter in trained.classifier.encoder.named_parameters():
        mask = trained.masks.get(name)
        kept = torch.tensor(True) if mask is None else torch.from_numpy(mask)
        assert torch.equal(parameter, weights[name] * kept)


@pytest.mark.parametrize("name", ["masks.safetensors", "head.safetensors"])
def test_a_changed_file_is_refused_by_name(random_run, tmp_path, name):
    run = shutil.copytree(random_run, tmp_path / "run")
    with (run / name).open("ab") as file:
        file.write(b"x")
    with pytest.raises(ArtifactError, match=f"{name} is not the file that the manifest was"):
        load_run(run, read_run(run), model=None)


def test_masks_that_are_not_those_of_the_manifest_are_refused(random_run, tmp_path):
    from pipeline.artifacts.files import sha256_file

    run = shutil.copytree(random_run, tmp_path / "run")
    masks = read_masks(run / "masks.safetensors")
    name = next(iter(masks))
    write_masks(run / "masks.safetensors", masks | {name: np.ones_like(masks[name])})
    manifest = dataclasses.replace(
        read_run(run), masks_sha256=sha256_file(run / "masks.safetensors")
    )
    with pytest.raises(ArtifactError, match="masks are not those that the manifest describes"):
        load_run(run, manifest, model=None)


def test_another_overall_density_is_refused(random_run):
    manifest = dataclasses.replace(read_run(random_run), density=0.1)
    with pytest.raises(ArtifactError, match="masks are not those that the manifest describes"):
        load_run(random_run, manifest, model=None)


@pytest.mark.parametrize("length", [0, -1, 65, 2**62])
def test_texts_longer_than_the_model_takes_are_refused(random_run, length):
    manifest = read_run(random_run)
    task = dataclasses.replace(manifest.task, max_length=length)
    with pytest.raises(ArtifactError, match=f"of up to {length} tokens, the base model takes 1"):
        load_run(random_run, dataclasses.replace(manifest, task=task), model=None)


def test_another_base_model_is_refused_with_both_hashes(random_run, tiny_bert, tmp_path):
    encoder = load_encoder(str(tiny_bert))
    with torch.no_grad():
        next(encoder.parameters()).add_(1)
    encoder.save_pretrained(tmp_path / "other")
    manifest = read_run(random_run)
    found = f"has weights of hash [0-9a-f]{{12}}, the run {random_run} belongs to .* with hash "
    with pytest.raises(ModelError, match=found + manifest.base_model.sha256[:12]):
        load_run(random_run, manifest, model=str(tmp_path / "other"))


def test_a_tokenizer_that_cannot_be_loaded_is_refused(random_run, tmp_path):
    run = shutil.copytree(random_run, tmp_path / "run")
    content = json.loads((run / "tokenizer.json").read_text())
    del content["model"]
    (run / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(ArtifactError, match="the tokenizer cannot be loaded"):
        load_run(run, read_run(run), model=None)
