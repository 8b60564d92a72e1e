"""The loss of each kind of task, against its definition."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from smp.losses import NO_TARGET, task_loss


def test_the_loss_of_an_answer_is_the_mean_of_start_and_end():
    logits = torch.randn(3, 7, 2)
    targets = torch.tensor([[1, 2], [0, 0], [4, 6]])
    expected = sum(cross_entropy(logits[..., side], targets[:, side]) for side in (0, 1)) / 2
    torch.testing.assert_close(task_loss(logits, targets, "question-answering"), expected)


def test_padding_is_no_place_for_an_answer():
    logits = torch.randn(2, 5, 2, requires_grad=True)
    targets = torch.tensor([[1, 2], [0, 1]])
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 0, 0]])
    loss = task_loss(logits, targets, "question-answering", mask)
    torch.testing.assert_close(loss, task_loss(logits[:, :3], targets, "question-answering"))
    (gradient,) = torch.autograd.grad(loss, logits)
    assert torch.isfinite(gradient).all()
    assert (gradient[:, 3:] == 0).all()


def test_tokens_without_a_label_do_not_count():
    logits = torch.randn(2, 4, 3)
    targets = torch.tensor([[NO_TARGET, 1, 2, NO_TARGET], [NO_TARGET, 0, NO_TARGET, NO_TARGET]])
    judged = targets != NO_TARGET
    expected = cross_entropy(logits[judged], targets[judged])
    torch.testing.assert_close(task_loss(logits, targets, "token-classification"), expected)
    nothing = torch.full_like(targets, NO_TARGET)
    assert task_loss(logits, nothing, "token-classification") == 0


def test_classes_and_numbers():
    logits, classes = torch.randn(4, 3), torch.tensor([0, 2, 1, 1])
    assert task_loss(logits, classes, "classification") == cross_entropy(logits, classes)
    numbers = torch.tensor([[1.0], [3.0]])
    assert task_loss(numbers, torch.tensor([0.0, 3.0]), "regression") == pytest.approx(0.5)
