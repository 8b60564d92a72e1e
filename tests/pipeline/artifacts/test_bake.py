from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.nn.utils import parametrize

from pipeline.artifacts.bake import apply_masks, load_weights
from pipeline.artifacts.classifier import encoder_sha256, load_encoder
from pipeline.errors import ArtifactError, ModelError

QUERY = "encoder.layer.0.attention.self.query.weight"


def test_masked_weights_are_zero_and_the_others_unchanged(tiny_bert: Path):
    encoder, plain = load_encoder(str(tiny_bert)), load_encoder(str(tiny_bert))
    mask = np.random.default_rng(0).random((32, 32)) < 0.3
    apply_masks(encoder, {QUERY: mask})
    for name, weight in plain.named_parameters():
        expected = weight * torch.from_numpy(mask) if name == QUERY else weight
        torch.testing.assert_close(encoder.get_parameter(name), expected, rtol=0, atol=0)


def test_nothing_of_the_masking_is_left(tiny_bert: Path):
    encoder, plain = load_encoder(str(tiny_bert)), load_encoder(str(tiny_bert))
    apply_masks(encoder, {QUERY: np.zeros((32, 32), np.bool_)})
    assert not any(parametrize.is_parametrized(module) for module in encoder.modules())
    assert set(encoder.state_dict()) == set(plain.state_dict())
    assert [type(module) for module in encoder.modules()] == [
        type(module) for module in plain.modules()
    ]


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("encoder.layer.9.output.dense.weight", (32, 64), "does not have"),
        (QUERY, (32, 64), r"shape \(32, 64\), the base model's weight \(32, 32\)"),
    ],
)
def test_masks_of_another_backbone_are_refused_before_anything_changes(
    name: str, shape: tuple[int, int], message: str, tiny_bert: Path
):
    encoder = load_encoder(str(tiny_bert))
    before = encoder_sha256(encoder)
    good = {"encoder.layer.1.attention.self.key.weight": np.zeros((32, 32), np.bool_)}
    with pytest.raises(ModelError, match=message):
        apply_masks(encoder, {**good, name: np.zeros(shape, np.bool_)})
    assert encoder_sha256(encoder) == before


def test_finetuned_weights_replace_the_pretrained_ones(tiny_bert: Path, tmp_path: Path):
    encoder = load_encoder(str(tiny_bert))
    tuned = {name: weight.detach() + 1 for name, weight in encoder.named_parameters()}
    save_file(tuned, str(tmp_path / "weights.safetensors"))
    load_weights(encoder, tmp_path / "weights.safetensors")
    for name, weight in encoder.named_parameters():
        torch.testing.assert_close(weight, tuned[name], rtol=0, atol=0)


def test_weights_that_do_not_fit_are_refused(tiny_bert: Path, tmp_path: Path):
    encoder = load_encoder(str(tiny_bert))
    path = tmp_path / "weights.safetensors"
    weights = {name: weight.detach().clone() for name, weight in encoder.named_parameters()}
    for wrong in (torch.zeros(32, 64), None):
        changed = dict(weights)
        changed.pop(QUERY)
        if wrong is not None:
            changed[QUERY] = wrong
        save_file(changed, str(path))
        with pytest.raises(ArtifactError, match=f"does not fit the base model \\({QUERY}"):
            load_weights(encoder, path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ArtifactError, match="truncated or corrupt"):
        load_weights(encoder, path)
