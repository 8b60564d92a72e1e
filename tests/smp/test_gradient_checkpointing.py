"""Gradient checkpointing: the same gradients, from states that are computed twice."""

import numpy as np
import pytest
import torch
from transformers import MPNetConfig, MPNetModel

from pipeline.artifacts.classifier import load_encoder
from pipeline.artifacts.masks import read_masks
from pipeline.config import TrainConfig
from pipeline.errors import ConfigurationError
from smp.architectures import pruned_matrices
from smp.gradient_checkpointing import enable_gradient_checkpointing
from smp.methods import PruningMethod, ScoreBased
from smp.score_starts import initial_scores
from smp.scores import ScoredMatrices
from smp.train import train


def gradients(model, *, checkpointing):
    """Gradients of the scores with dropout on, and how often the last layer was computed."""
    encoder = load_encoder(str(model)).requires_grad_(False)
    if checkpointing:
        enable_gradient_checkpointing(encoder)
    matrices = pruned_matrices(encoder, "bert")
    starts = [initial_scores(matrix.module.weight, "magnitude", 0.5) for matrix in matrices]
    scored = ScoredMatrices(matrices, PruningMethod(ScoreBased()), starts)
    scored.update_masks(0.5)
    calls = []
    matrices[-1].module.register_forward_hook(lambda *_: calls.append(None))
    encoder.train()
    torch.manual_seed(0)
    inputs = torch.arange(5, 17).reshape(2, 6)
    states = encoder(input_ids=inputs, attention_mask=torch.ones_like(inputs)).last_hidden_state
    states.square().mean().backward()
    return [item.scores.grad for item in scored.parametrizations], len(calls)


def test_gradients_of_scores_are_the_same_with_and_without(tiny_bert):
    plain, once = gradients(tiny_bert, checkpointing=False)
    again, twice = gradients(tiny_bert, checkpointing=True)
    assert (once, twice) == (1, 2)
    assert all(torch.count_nonzero(gradient) for gradient in plain)
    torch.testing.assert_close(again, plain)


def test_a_run_ends_with_the_same_masks(tiny_bert, reviews, tmp_path):
    masks = []
    for checkpointing in (False, True):
        config = TrainConfig(
            model=str(tiny_bert),
            output_dir=tmp_path / f"run-{checkpointing}",
            train_file=reviews[0],
            validation_file=reviews[1],
            density=0.3,
            steps=6,
            evaluations=1,
            device="cpu",
            precision="fp32",
            gradient_checkpointing=checkpointing,
        )
        train(config)
        masks.append(read_masks(config.output_dir / "masks.safetensors"))
    assert masks[0].keys() == masks[1].keys()
    assert all(np.array_equal(masks[0][name], masks[1][name]) for name in masks[0])


def test_an_architecture_without_it_is_refused():
    config = MPNetConfig(
        vocab_size=20,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
    )
    encoder = MPNetModel(config, add_pooling_layer=False)
    with pytest.raises(
        ConfigurationError, match=r"--gradient-checkpointing.*none for mpnet; leave"
    ):
        enable_gradient_checkpointing(encoder)
