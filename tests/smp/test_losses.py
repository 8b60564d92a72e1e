"""The task's loss against torch's own."""

import pytest
import torch
from torch import nn

from smp.losses import task_loss


def test_cross_entropy_of_classes_and_squared_error_of_numbers():
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    entropy = nn.CrossEntropyLoss()(logits, torch.tensor([0, 0]))
    assert task_loss(logits, torch.tensor([0, 0]), regression=False).item() == entropy.item()
    found = task_loss(logits[:, :1], torch.tensor([1, 3]), regression=True)
    assert found.item() == pytest.approx((1.0 + 9.0) / 2)


def test_half_precision_logits_are_summed_in_single():
    logits = torch.tensor([[8.0, 0.0]], dtype=torch.bfloat16)
    assert task_loss(logits, torch.tensor([0]), regression=False).dtype == torch.float32
