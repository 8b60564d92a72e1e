"""Scores on real layers: the product, its gradient, the masks, and that nothing stays behind."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrize

from smp.architectures import PrunedMatrix
from smp.methods import GlobalThreshold, Local, PruningMethod, ScoreBased
from smp.score_starts import initial_scores
from smp.scores import ScoredMatrices

SMP_S, SMP_L = PruningMethod(ScoreBased()), PruningMethod(Local())
MOVEMENT = PruningMethod(Local(), trains_weights=True)
MAGNITUDE = PruningMethod(Local(), learns_scores=False, trains_weights=True)


def two_layers(method=SMP_S, score_init="magnitude"):
    torch.manual_seed(0)
    layers = [nn.Linear(6, 4), nn.Linear(6, 4)]
    for layer in layers:
        layer.requires_grad_(method.trains_weights)
    matrices = [PrunedMatrix(f"{i}.weight", "query", i, layer) for i, layer in enumerate(layers)]
    starts = None
    if method.learns_scores:
        starts = [initial_scores(layer.weight, score_init, 0.5) for layer in layers]
    return layers, ScoredMatrices(matrices, method, starts)


def test_the_layer_computes_with_the_masked_weight():
    layers, scored = two_layers()
    weight = layers[0].parametrizations.weight.original
    scored.update_masks(0.25)
    mask = scored.parametrizations[0].mask
    inputs = torch.randn(3, 6)
    expected = inputs @ (weight * mask).T + layers[0].bias
    torch.testing.assert_close(layers[0](inputs), expected)


def test_the_gradient_of_a_score_is_that_of_the_product_times_the_weight():
    layers, scored = two_layers()
    scored.update_masks(0.25)
    weight = layers[0].parametrizations.weight.original
    inputs, upstream = torch.randn(3, 6), torch.randn(3, 4)
    (layers[0](inputs) * upstream).sum().backward()
    # dL/dW' = upstream^T inputs, for kept and for pruned entries alike.
    expected = (upstream.T @ inputs) * weight
    torch.testing.assert_close(scored.parametrizations[0].scores.grad, expected)
    assert torch.count_nonzero(expected[~scored.parametrizations[0].mask]) > 0
    assert weight.grad is None


def test_under_bf16_autocast_scores_masks_and_gradients_keep_full_precision():
    layers, scored = two_layers()
    close = 0.5 + 1e-6 * torch.arange(24).reshape(4, 6)  # all equal in bf16
    with torch.no_grad():
        for item in scored.parametrizations:
            item.scores.copy_(close)
    with torch.autocast("cpu", torch.bfloat16):
        scored.update_masks(0.25)
        states = layers[0](torch.randn(3, 6))
        loss = states.float().square().mean() + scored.regulariser()
    loss.backward()
    assert states.dtype == torch.bfloat16
    for item in scored.parametrizations:
        assert item.scores.dtype == item.scores.grad.dtype == torch.float32
        assert torch.equal(item.mask.reshape(-1), torch.arange(24) >= 18)
    # sigmoid'(0.5) / (matrices * weights), to more digits than bf16 has
    gradient = scored.parametrizations[1].scores.grad
    torch.testing.assert_close(gradient, torch.full((4, 6), 0.2350037 / 48), rtol=1e-4, atol=0)


def test_the_regulariser_is_the_mean_sigmoid_and_pushes_every_score_down():
    _, scored = two_layers(score_init="zero")
    value = scored.regulariser()
    assert value.item() == pytest.approx(0.5)
    value.backward()
    for item in scored.parametrizations:
        # sigmoid'(0) / (matrices * weights) = 0.25 / (2 * 24)
        torch.testing.assert_close(item.scores.grad, torch.full((4, 6), 0.25 / 48))


@given(st.floats(0.05, 1.0))
def test_smp_s_keeps_exactly_the_density_of_a_type(density):
    _, scored = two_layers()
    with torch.no_grad():
        scored.parametrizations[0].scores.add_(3.0)
    scored.update_masks(density)
    assert scored.kept() == int(density * 48 * (1 + 1e-12) + 1e-12)


def test_smp_s_gives_more_to_the_layer_with_larger_scores_and_smp_l_does_not():
    kept = {}
    for name, method in (("smp-s", SMP_S), ("smp-l", SMP_L)):
        _, scored = two_layers(method)
        with torch.no_grad():
            scored.parametrizations[1].scores.add_(2.0)
        scored.update_masks(0.25)
        kept[name] = [int(mask.sum()) for mask in scored.masks().values()]
    assert kept["smp-s"][1] > kept["smp-s"][0]
    assert kept["smp-l"] == [6, 6]


def test_magnitude_start_makes_the_first_mask_that_of_magnitude_pruning():
    layers, scored = two_layers(SMP_L)
    scored.update_masks(0.25)
    magnitude = layers[0].parametrizations.weight.original.abs()
    kept = magnitude[scored.parametrizations[0].mask]
    assert kept.min() >= magnitude[~scored.parametrizations[0].mask].max()


def test_a_trained_weight_gets_the_gradient_of_what_is_kept():
    layers, scored = two_layers(MOVEMENT)
    scored.update_masks(0.25)
    weight = layers[0].parametrizations.weight.original
    inputs, upstream = torch.randn(3, 6), torch.randn(3, 4)
    (layers[0](inputs) * upstream).sum().backward()
    product = upstream.T @ inputs
    torch.testing.assert_close(weight.grad, product * scored.parametrizations[0].mask)
    torch.testing.assert_close(scored.parametrizations[0].scores.grad, product * weight.detach())


def test_magnitude_masks_follow_the_present_weights_and_have_no_scores():
    layers, scored = two_layers(MAGNITUDE)
    weight = layers[0].parametrizations.weight.original
    scored.update_masks(0.25)
    with torch.no_grad():
        weight.mul_(torch.linspace(1, 100, 24).reshape(4, 6))
    scored.update_masks(0.25)
    mask = scored.parametrizations[0].mask
    assert weight.detach().abs()[mask].min() >= weight.detach().abs()[~mask].max()
    assert {name for name, _ in layers[0].named_parameters()} == {
        "bias",
        "parametrizations.weight.original",
    }
    layers[0](torch.randn(3, 6)).sum().backward()
    assert torch.count_nonzero(weight.grad[~mask]) == 0
    assert torch.count_nonzero(weight.grad[mask]) == 6


def test_fixed_masks_stay_whatever_the_weights_become():
    layers, scored = two_layers(MAGNITUDE)
    scored.fix_masks(0.25)
    before = scored.masks()
    with torch.no_grad():
        layers[0].parametrizations.weight.original.copy_(torch.randn(4, 6))
    scored.update_masks(0.5)
    for name, mask in scored.masks().items():
        assert torch.equal(mask, before[name])
    assert scored.kept() == 12


def test_one_threshold_reaches_over_matrices_of_all_types():
    torch.manual_seed(1)
    layers = [nn.Linear(6, 4), nn.Linear(6, 4)]
    names = ("query", "output")
    matrices = [PrunedMatrix(n, n, 0, layer) for n, layer in zip(names, layers, strict=True)]
    starts = [torch.rand(4, 6), 2 + torch.rand(4, 6)]
    scored = ScoredMatrices(matrices, PruningMethod(GlobalThreshold()), starts)
    scored.update_masks(0.5)
    assert {name: int(mask.sum()) for name, mask in scored.masks().items()} == {
        "query": 0,
        "output": 24,
    }


def test_detach_leaves_plain_layers_with_their_own_weights():
    torch.manual_seed(0)
    before = [nn.Linear(6, 4).weight.clone(), nn.Linear(6, 4).weight.clone()]
    layers, scored = two_layers()
    scored.update_masks(0.25)
    scored.detach()
    for layer, weight in zip(layers, before, strict=True):
        assert not parametrize.is_parametrized(layer)
        assert torch.equal(layer.weight, weight)
