"""The least-squares head of every token against a plain ridge regression of all states."""

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from pipeline.artifacts.classifier import Head, TextClassifier, load_encoder
from pipeline.artifacts.run import HeadLayout
from pipeline.questions import read_questions
from pipeline.tagged_words import encode_tags, infer_tags, read_tagged_words
from smp.answering import tokenise_questions
from smp.examples import collate
from smp.losses import NO_TARGET, task_loss
from smp.tagging import tokenise_words
from smp.token_heads import token_least_squares_head

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def encoder(word_bert):
    return load_encoder(str(word_bert))


@pytest.fixture(scope="module")
def tokenizer(word_bert):
    return AutoTokenizer.from_pretrained(word_bert)


@pytest.fixture(scope="module")
def tags(tagged_words, tokenizer):
    data = read_tagged_words(tagged_words[0], flag="--train-file")
    labels = infer_tags(data, flag="--train-file")
    indices = encode_tags(data, labels, flag="--train-file")
    return tokenise_words(data, indices, tokenizer, 32), len(labels)


@pytest.fixture(scope="module")
def windows(questions, tokenizer):
    data = read_questions(questions[0], flag="--train-file")
    return tokenise_questions(data, tokenizer, 32, 8, flag="--train-file", training=True)


def untrained(encoder, outputs):
    layout = HeadLayout("least-squares", "tokens", encoder.config.hidden_size, outputs)
    return TextClassifier(encoder, Head(layout), layout)


def batch_of(classifier, examples):
    batch = collate([examples[index] for index in range(len(examples))], 0)
    targets = batch.pop("labels")
    with torch.no_grad():
        return classifier.features(**batch), targets, batch["attention_mask"]


def is_a_ridge_solution(head, states, goals):
    """Whether the weights are those of ridge regression with one of the penalties, up to scale."""
    x, y = states.double().numpy(), goals.double().numpy()
    centred = x - x.mean(axis=0)
    weight = head.output.weight.detach().double().numpy()
    cosines = []
    for penalty in (1e-4, 1e-3, 1e-2, 1e-1, 1.0):
        ridge = centred.T @ centred / len(x) + penalty * (centred**2).mean() * np.eye(x.shape[1])
        solution = np.linalg.solve(ridge, centred.T @ (y - y.mean(axis=0)) / len(x)).T
        norms = np.linalg.norm(weight) * np.linalg.norm(solution)
        cosines.append((weight * solution).sum() / norms)
    return max(cosines) == pytest.approx(1.0, abs=1e-5)


def test_labels_of_words_are_regressed_on_their_first_tokens(encoder, tags):
    examples, outputs = tags
    classifier = untrained(encoder, outputs)
    head, layout = token_least_squares_head(classifier, examples, "token-classification", 0, CPU)
    states, targets, _ = batch_of(classifier, examples)
    judged = targets != NO_TARGET
    goals = torch.nn.functional.one_hot(targets[judged], outputs)
    assert is_a_ridge_solution(head, states[judged], goals)
    assert (layout.kind, layout.pooling, layout.outputs) == ("least-squares", "tokens", outputs)
    assert not any(parameter.requires_grad for parameter in head.parameters())
    right = head(states[judged]).argmax(dim=-1) == targets[judged]
    assert right.float().mean() > 0.8


def test_starts_and_ends_are_regressed_on_all_tokens(encoder, windows):
    classifier = untrained(encoder, 2)
    head, _ = token_least_squares_head(classifier, windows, "question-answering", 0, CPU)
    states, targets, mask = batch_of(classifier, windows)
    goals = torch.nn.functional.one_hot(targets, states.shape[1]).transpose(1, 2)
    assert is_a_ridge_solution(head, states[mask == 1], goals[mask == 1])


def test_the_scale_of_the_logits_is_right_for_a_softmax(encoder, windows):
    classifier = untrained(encoder, 2)
    head, _ = token_least_squares_head(classifier, windows, "question-answering", 0, CPU)
    states, targets, mask = batch_of(classifier, windows)
    with torch.no_grad():
        logits = head(states)
    here, half, double = (
        task_loss(logits * factor, targets, "question-answering", mask) for factor in (1, 0.5, 2)
    )
    assert here < half
    assert here < double


def test_one_example_is_enough_for_finite_weights(encoder, windows):
    one = windows.__class__(
        {name: rows[:1] for name, rows in windows.inputs.items()}, windows.targets[:1], 0
    )
    head, _ = token_least_squares_head(untrained(encoder, 2), one, "question-answering", 0, CPU)
    assert torch.isfinite(head.output.weight).all()
