"""The starts of the scores on a real classifier."""

import pytest
import torch

from pipeline.artifacts.classifier import TextClassifier, load_encoder
from smp.architectures import pruned_matrices
from smp.examples import Examples, collate
from smp.heads import linear_head
from smp.losses import task_loss
from smp.score_starts import initial_scores, sensitivities

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def examples():
    rows = [[2, 5 + index % 14, 6 + index % 7, 3][: 3 + index % 2] for index in range(12)]
    inputs = {"input_ids": rows, "attention_mask": [[1] * len(row) for row in rows]}
    return Examples(inputs, torch.arange(12) % 2, truncated=0)


@pytest.fixture
def classifier(tiny_bert):
    encoder = load_encoder(str(tiny_bert)).requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    head, layout = linear_head(32, 2, pooling="mean", generator=generator)
    return TextClassifier(encoder, head, layout).train()


def measure(kind, classifier, examples, **changes):
    options = {"batch_size": 4, "pad_token_id": 0, "device": CPU, "seed": 0, **changes}
    matrices = pruned_matrices(classifier.encoder, "bert")
    return matrices, sensitivities(
        kind, classifier, matrices, examples, "classification", **options
    )


def gradient(classifier, matrices, examples, rows):
    """The gradients of the mean loss over some examples, by a plain backward pass."""
    batch = collate([examples[row] for row in rows], 0)
    targets = batch.pop("labels")
    for matrix in matrices:
        matrix.module.weight.requires_grad_(True).grad = None
    task_loss(classifier.eval()(**batch), targets, "classification").backward()
    return [matrix.module.weight.grad for matrix in matrices]


def test_gradient_is_the_slope_of_the_mean_loss_times_the_weight(classifier, examples):
    matrices, found = measure("gradient", classifier, examples)
    # Twelve examples are three whole batches: the mean over batches is that over examples.
    for matrix, measured, slope in zip(
        matrices, found, gradient(classifier, matrices, examples, range(12)), strict=True
    ):
        expected = (slope * matrix.module.weight).abs().detach()
        torch.testing.assert_close(measured, expected / expected.max(), rtol=1e-3, atol=1e-5)


def test_fisher_is_the_sum_over_batches_of_squares(classifier, examples):
    matrices, found = measure("fisher", classifier, examples, seed=4)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(4)).tolist()
    batches = [
        gradient(classifier, matrices, examples, order[start : start + 4]) for start in (0, 4, 8)
    ]
    for index, (matrix, measured) in enumerate(zip(matrices, found, strict=True)):
        squares = sum(gradients[index].double().square() for gradients in batches)
        expected = squares * matrix.module.weight.detach().double().square()
        torch.testing.assert_close(
            measured.double(), expected / expected.max(), rtol=1e-3, atol=1e-6
        )


def test_the_same_seed_gives_the_same_start_and_nothing_else_changes(classifier, examples):
    before = {name: tensor.clone() for name, tensor in classifier.named_parameters()}
    state = torch.get_rng_state()
    _, first = measure("gradient", classifier, examples, batch_size=5)
    _, again = measure("gradient", classifier, examples, batch_size=5)
    assert all(torch.equal(one, two) for one, two in zip(first, again, strict=True))
    assert torch.equal(torch.get_rng_state(), state)
    for name, tensor in classifier.named_parameters():
        assert torch.equal(tensor, before[name])
        assert tensor.requires_grad == name.startswith("head.")
        assert tensor.grad is None


def test_starts_have_the_scale_that_they_promise():
    weight = torch.randn(50, 40) * 0.03
    assert torch.count_nonzero(initial_scores(weight, "zero", 0.5)) == 0
    for kind in ("magnitude", "gradient", "fisher"):
        start = initial_scores(weight, kind, 0.5)
        assert start.square().mean().sqrt().item() == pytest.approx(0.5, rel=1e-5)
        assert bool((start >= 0).all())


def test_a_matrix_without_influence_starts_at_zero():
    assert torch.count_nonzero(initial_scores(torch.zeros(3, 4), "gradient", 0.5)) == 0
