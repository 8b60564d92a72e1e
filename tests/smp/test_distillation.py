"""The teacher's share of the loss, against its definition."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy, mse_loss

from smp.distillation import Distillation, TaughtExamples, collate_taught, distillation_loss
from smp.examples import Examples, collate


def random_logits(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def divergence(student, teacher, temperature):
    """T^2 KL(teacher || student) of one pair of logits, term by term."""
    p, q = ((logits / temperature).softmax(dim=-1) for logits in (teacher, student))
    return temperature**2 * float((p * (p.log() - q.log())).sum())


@given(st.integers(1, 5), st.integers(2, 4), st.sampled_from([0.5, 1.0, 2.0, 7.0]))
def test_classification_is_the_mean_divergence_of_the_examples(batch, classes, temperature):
    student, teacher = random_logits(batch, classes), random_logits(batch, classes, seed=1)
    loss = distillation_loss("classification", student, teacher, temperature=temperature)
    expected = [divergence(student[i], teacher[i], temperature) for i in range(batch)]
    torch.testing.assert_close(float(loss), sum(expected) / batch)
    assert loss > 0
    same = distillation_loss("classification", teacher + 3.0, teacher, temperature=temperature)
    torch.testing.assert_close(float(same), 0.0, atol=1e-12, rtol=0)


def test_regression_is_the_squared_difference_at_any_temperature():
    student, teacher = random_logits(5, 1), random_logits(5, 1, seed=1)
    loss = distillation_loss("regression", student, teacher, temperature=2.0)
    torch.testing.assert_close(loss, mse_loss(student, teacher))


@given(st.lists(st.integers(1, 6), min_size=1, max_size=4))
def test_question_answering_is_the_mean_of_start_and_end_over_the_real_positions(lengths):
    longest = max(lengths)
    student = random_logits(len(lengths), longest, 2)
    teacher = random_logits(len(lengths), longest, 2, seed=1)
    positions = torch.arange(longest) < torch.tensor(lengths).unsqueeze(1)
    loss = distillation_loss(
        "question-answering", student, teacher, temperature=2.0, positions=positions
    )
    terms = [
        divergence(student[i, :length, side], teacher[i, :length, side], 2.0)
        for i, length in enumerate(lengths)
        for side in (0, 1)
    ]
    torch.testing.assert_close(float(loss), sum(terms) / len(terms))


def test_padding_gets_no_gradient_and_what_stands_there_does_not_matter():
    student = random_logits(2, 4, 2).requires_grad_()
    teacher = random_logits(2, 4, 2, seed=1)
    positions = torch.tensor([[True, True, False, False], [True, True, True, True]])
    arguments = {"temperature": 2.0, "positions": positions}
    loss = distillation_loss("question-answering", student, teacher, **arguments)
    loss.backward()
    assert (student.grad[0, 2:] == 0).all()
    assert torch.isfinite(student.grad).all()
    assert (student.grad[1] != 0).all()
    other = teacher.masked_fill(~positions.unsqueeze(-1), 99.0)
    assert torch.equal(distillation_loss("question-answering", student, other, **arguments), loss)


def test_token_classification_is_the_mean_over_the_labelled_positions():
    student, teacher = random_logits(2, 3, 4), random_logits(2, 3, 4, seed=1)
    positions = torch.tensor([[False, True, True], [True, False, False]])
    loss = distillation_loss(
        "token-classification", student, teacher, temperature=2.0, positions=positions
    )
    places = [(0, 1), (0, 2), (1, 0)]
    expected = sum(divergence(student[p], teacher[p], 2.0) for p in places) / 3
    torch.testing.assert_close(float(loss), expected)
    none = distillation_loss(
        "token-classification", student, teacher, temperature=2.0, positions=positions & False
    )
    assert none == 0


def test_the_two_losses_are_mixed_by_the_weight():
    student, teacher = random_logits(3, 2), random_logits(3, 2, seed=1)
    targets, mask = torch.tensor([0, 1, 1]), torch.ones(3, 5, dtype=torch.int64)
    task = cross_entropy(student, targets)
    term = distillation_loss("classification", student, teacher, temperature=2.0)
    mixed = Distillation("classification", 2.0, 0.25).mix(task, student, teacher, targets, mask)
    torch.testing.assert_close(mixed, 0.75 * task + 0.25 * term)


def test_words_without_a_label_are_left_out_of_the_teachers_share():
    student, teacher = random_logits(1, 3, 2), random_logits(1, 3, 2, seed=1)
    targets, mask = torch.tensor([[-100, 1, -100]]), torch.ones(1, 3, dtype=torch.int64)
    whole = Distillation("token-classification", 2.0, 1.0)
    mixed = whole.mix(torch.tensor(0.0), student, teacher, targets, mask)
    torch.testing.assert_close(float(mixed), divergence(student[0, 1], teacher[0, 1], 2.0))


def test_the_teachers_logits_stay_with_their_examples_in_a_padded_batch():
    rows = [[2, 7, 3], [2, 7, 8, 9, 3], [2, 3]]
    inputs = {"input_ids": rows, "attention_mask": [[1] * len(row) for row in rows]}
    examples = Examples(inputs, torch.tensor([0, 1, 0]), truncated=0)
    logits = [torch.full((len(row), 2), float(index + 1)) for index, row in enumerate(rows)]
    taught = TaughtExamples(examples, logits)
    assert len(taught) == 3
    assert taught.inputs is examples.inputs
    batch = collate_taught([taught[1], taught[2]], lambda rows: collate(rows, pad_token_id=0))
    assert set(batch) == {"input_ids", "attention_mask", "labels", "teacher_logits"}
    assert batch["teacher_logits"].shape == (2, 5, 2)
    assert batch["teacher_logits"][:, :, 0].tolist() == [[2.0] * 5, [3.0, 3.0, 0.0, 0.0, 0.0]]
    whole = TaughtExamples(examples, list(torch.arange(6.0).reshape(3, 2)))
    batch = collate_taught([whole[2], whole[0]], lambda rows: collate(rows, pad_token_id=0))
    assert batch["teacher_logits"].tolist() == [[4.0, 5.0], [0.0, 1.0]]
