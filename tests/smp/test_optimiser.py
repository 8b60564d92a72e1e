"""Adam with one second moment a matrix."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from smp.optimiser import MatrixAdam

BETAS = (0.9, 0.999)


def trained(optimiser_of, gradients):
    """The parameters after a step for each of the gradients, float32 [steps, ...] a tensor."""
    parameters = [torch.nn.Parameter(torch.ones(steps.shape[1:])) for steps in gradients]
    optimiser = optimiser_of(parameters)
    for step in range(len(gradients[0])):
        for parameter, steps in zip(parameters, gradients, strict=True):
            parameter.grad = steps[step].clone()
        optimiser.step()
    return [parameter.detach() for parameter in parameters]


def random_gradients(seed, steps=5, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    return [scale * torch.randn(steps, 4, 6, generator=generator) for _ in range(2)]


@given(st.integers(0, 1000), st.sampled_from([1e-6, 1.0, 1e3]))
@settings(deadline=None, max_examples=30)
def test_with_a_moment_an_entry_it_is_adam(seed, scale):
    gradients = random_gradients(seed, scale=scale)
    ours = trained(
        lambda tensors: MatrixAdam([{"params": tensors, "lr": 0.01}], betas=BETAS, eps=1e-8),
        gradients,
    )
    adam = trained(lambda tensors: torch.optim.Adam(tensors, lr=0.01, betas=BETAS), gradients)
    torch.testing.assert_close(ours, adam)


def shared(tensors):
    return MatrixAdam([{"params": tensors, "lr": 0.01, "shared": True}], betas=BETAS, eps=1e-12)


@given(st.integers(0, 1000))
@settings(deadline=None, max_examples=30)
def test_with_a_moment_a_matrix_it_is_the_formula(seed):
    gradients = random_gradients(seed)
    for result, steps in zip(trained(shared, gradients), gradients, strict=True):
        value, mean, second = np.ones((4, 6)), np.zeros((4, 6)), 0.0
        for step, gradient in enumerate(steps.numpy().astype(np.float64), start=1):
            mean = 0.9 * mean + 0.1 * gradient
            second = 0.999 * second + 0.001 * np.mean(gradient**2)
            value -= 0.01 * mean / (1 - 0.9**step) / np.sqrt(second / (1 - 0.999**step))
        np.testing.assert_allclose(result.numpy(), value, rtol=1e-4)


def test_an_entry_moves_as_far_as_its_gradient_is_large_beside_the_others():
    gradient = torch.tensor([[[3.0, 0.0, -0.1, 0.001]]])
    (result,) = trained(shared, [gradient])
    moves = 1.0 - result[0]
    torch.testing.assert_close(moves[:3] / moves[0], gradient[0, 0, :3] / 3.0)
    # Adam moves all of them by the learning rate.
    assert abs(moves[3]) < 1e-3 * moves[0]


def test_matrices_do_not_see_each_others_gradients():
    small, large = random_gradients(3)
    alone = trained(shared, [small])
    together = trained(shared, [small, 1e4 * large])
    torch.testing.assert_close(alone[0], together[0])


def test_a_matrix_without_gradients_stays():
    (result,) = trained(shared, [torch.zeros(3, 2, 2)])
    assert torch.equal(result, torch.ones(2, 2))


@pytest.mark.parametrize("is_shared", [False, True])
def test_it_goes_on_from_its_saved_state(is_shared):
    def run(stop):
        parameter = torch.nn.Parameter(torch.ones(4, 6))

        def optimiser():
            group = {"params": [parameter], "lr": 0.01, "shared": is_shared}
            return MatrixAdam([group], betas=BETAS, eps=1e-12)

        ours = optimiser()
        for step, gradient in enumerate(random_gradients(1)[0]):
            if step == stop:
                saved = copy.deepcopy(ours.state_dict())
                ours = optimiser()
                ours.load_state_dict(saved)
            parameter.grad = gradient.clone()
            ours.step()
        return parameter.detach()

    assert torch.equal(run(stop=2), run(stop=None))


def test_a_closure_computes_the_loss_and_the_gradient():
    parameter = torch.nn.Parameter(torch.tensor([2.0]))
    optimiser = shared([parameter])

    def closure():
        optimiser.zero_grad()
        loss = parameter.square().sum()
        loss.backward()
        return loss

    assert optimiser.step(closure) == 4.0
    assert parameter.item() == pytest.approx(1.99)
