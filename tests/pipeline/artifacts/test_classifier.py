"""Loading an encoder and a head from safetensors only, pooling, and the hash of the weights."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.artifacts.classifier import (
    Head,
    TextClassifier,
    encoder_sha256,
    load_encoder,
    load_head,
)
from pipeline.artifacts.run import HeadLayout, HeadTransform
from pipeline.errors import ArtifactError, ModelError

PLAIN = HeadLayout("linear", "first", hidden_size=32, outputs=3)
TRANSFORMED = HeadLayout(
    "label-words",
    "mask",
    hidden_size=32,
    outputs=2,
    transform=HeadTransform("gelu", 1e-12, 16),
    mask_token_id=4,
    label_words=("no", "yes"),
)


@pytest.fixture
def model(tiny_bert, tmp_path):
    return shutil.copytree(tiny_bert, tmp_path / "model")


def pooled(tiny_bert, pooling, ids, mask, mask_token_id=None):
    layout = HeadLayout("linear", pooling, 32, 2, mask_token_id=mask_token_id)
    classifier = TextClassifier(load_encoder(str(tiny_bert)), Head(layout), layout)
    states = torch.arange(float(ids.numel() * 2)).reshape(*ids.shape, 2)
    return classifier.pool(states, ids, mask).tolist()


IDS = torch.tensor([[2, 9, 4, 3], [2, 4, 3, 0], [2, 9, 3, 0]])
MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 1, 0]])


def test_first_pooling_takes_the_first_state(tiny_bert):
    assert pooled(tiny_bert, "first", IDS, MASK) == [[0, 1], [8, 9], [16, 17]]


def test_mean_pooling_leaves_padding_out(tiny_bert):
    assert pooled(tiny_bert, "mean", IDS, MASK) == [[3, 4], [10, 11], [18, 19]]


def test_mask_pooling_takes_the_mask_token_or_the_first_where_there_is_none(tiny_bert):
    assert pooled(tiny_bert, "mask", IDS, MASK, mask_token_id=4) == [[4, 5], [10, 11], [16, 17]]


def test_padding_does_not_change_the_logits(tiny_bert):
    torch.manual_seed(0)
    classifier = TextClassifier(load_encoder(str(tiny_bert)), Head(PLAIN), PLAIN).eval()
    ids, mask = IDS[2:, :3], MASK[2:, :3]
    types = torch.zeros_like
    with torch.no_grad():
        short = classifier(ids, mask, types(ids))
        padded = classifier(IDS[2:], MASK[2:], types(IDS[2:]))
    assert short.shape == (1, 3)
    torch.testing.assert_close(short, padded, rtol=1e-4, atol=1e-5)


def test_the_encoder_is_float32_without_its_random_pooler_and_in_evaluation_mode(tiny_bert):
    encoder = load_encoder(str(tiny_bert))
    assert encoder.pooler is None
    assert not encoder.training
    assert {parameter.dtype for parameter in encoder.parameters()} == {torch.float32}


def test_the_hash_is_stable_and_changes_with_any_weight(tiny_bert):
    encoder = load_encoder(str(tiny_bert))
    digest = encoder_sha256(encoder)
    assert digest == encoder_sha256(load_encoder(str(tiny_bert)))
    for parameter in encoder.parameters():
        flat = parameter.data.view(-1)
        before = flat[-1].item()
        flat[-1] = before + 1e-3
        assert encoder_sha256(encoder) != digest
        flat[-1] = before
    assert encoder_sha256(encoder) == digest


def configure(model, **changes):
    path = model / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def refused(model, message):
    with pytest.raises(ModelError, match=message) as error:
        load_encoder(str(model))
    assert f"--model {model}" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["/no/such/model", "./nope", "~/no-such-model", "a/b/c"])
def test_a_missing_directory_is_not_looked_for_on_the_hub(name):
    refused(name, "no such directory; give a directory or a hub id")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_directory_without_configuration_or_weights(model, name):
    (model / name).unlink()
    refused(model, "cannot be loaded")


def test_pickled_weights_are_refused(model):
    weights = load_file(model / "model.safetensors")
    torch.save(weights, model / "pytorch_model.bin")
    (model / "model.safetensors").unlink()
    refused(model, "pickled weights only.*convert them to safetensors")


@pytest.mark.parametrize("keep", [0, 7, 5000])
def test_truncated_weights(model, keep):
    path = model / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    refused(model, "cannot be loaded")


def test_a_checkpoint_that_lacks_weights(model):
    path = model / "model.safetensors"
    weights = load_file(path)
    name = "encoder.layer.1.attention.self.query.weight"
    del weights[name]
    save_file(weights, path, metadata={"format": "pt"})
    refused(model, f"1 weights are missing from the checkpoint, for instance {name}")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "unheard-of"}, "cannot be loaded"),
        ({"hidden_size": 64}, "its weights have other shapes than its config.json says"),
        ({"hidden_size": "many"}, "cannot be loaded .*'hidden_size' expected int, got str"),
        ({"num_hidden_layers": 3}, "16 weights are missing"),
    ],
)
def test_a_configuration_that_does_not_fit(model, change, message):
    configure(model, **change)
    refused(model, message)


@pytest.mark.parametrize("layout", [PLAIN, TRANSFORMED])
def test_a_head_comes_back_as_it_was(tmp_path, layout):
    torch.manual_seed(0)
    head = Head(layout)
    save_file(head.state_dict(), tmp_path / "head.safetensors")
    state = torch.randn(4, 32)
    torch.testing.assert_close(load_head(tmp_path / "head.safetensors", layout)(state), head(state))
    assert head(state).shape == (4, layout.outputs)


def test_a_head_that_is_cut_missing_or_of_another_layout(tmp_path):
    path = tmp_path / "head.safetensors"
    save_file(Head(PLAIN).state_dict(), path)
    with pytest.raises(ArtifactError, match="does not fit the head in the manifest"):
        load_head(path, TRANSFORMED)
    # Sizes that would take more memory than there is are refused before they take any.
    with pytest.raises(ArtifactError, match="does not fit the head in the manifest"):
        load_head(path, replace(PLAIN, hidden_size=10**8, outputs=10**6))
    unknown = replace(TRANSFORMED, transform=HeadTransform("unheard-of", 1e-12, 16))
    with pytest.raises(ArtifactError, match="does not fit the head in the manifest"):
        load_head(path, unknown)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ArtifactError, match="truncated or corrupt"):
        load_head(path, PLAIN)
    with pytest.raises(ArtifactError, match="truncated or corrupt"):
        load_head(tmp_path / "nope", PLAIN)


def test_weights_that_are_not_finite_are_refused(model):
    weights = load_file(model / "model.safetensors")
    name = next(name for name in weights if name.endswith("0.output.dense.weight"))
    weights[name][0, 0] = float("nan")
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"0.output.dense.weight has values that are not finite"):
        load_encoder(str(model))


def test_a_directory_of_nobody_is_a_model_error():
    with pytest.raises(ModelError, match="no such directory"):
        load_encoder("~nobody-of-that-name/model")
