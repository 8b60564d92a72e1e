"""Questions as training examples, and the whole way from a file to answers."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from pipeline.artifacts.run import AnswerLayout, read_run
from pipeline.config import TrainConfig
from pipeline.questions import Questions, ReferenceAnswer
from smp.answering import score_questions, tokenise_questions
from smp.train import train
from tests.made_up_data import write_questions

LAYOUT = AnswerLayout(stride=2, max_answer_length=4, n_best=5, no_answer=True)
CONTEXT = "film was very good and the plot was bad"


@pytest.fixture(scope="module")
def tokenizer(tiny_bert):
    return AutoTokenizer.from_pretrained(tiny_bert)


@pytest.fixture
def data():
    start = CONTEXT.index("very")
    answers = [(ReferenceAnswer("very good", start), ReferenceAnswer("good", start + 5)), ()]
    texts = ["was it good", "was it dull"]
    columns = ("question", "context", "answers")
    return Questions("here", ["a", "b"], texts, [CONTEXT] * 2, answers, *columns)


def test_targets_are_the_first_answers_tokens_or_the_first_token(data, tokenizer):
    examples = tokenise_questions(data, tokenizer, 12, 3, flag="--train-file", training=False)
    assert len(examples) == len(examples.windows) == 4
    for example, window in zip(examples, examples.windows, strict=True):
        tokens = tokenizer.convert_ids_to_tokens(example["input_ids"])
        start, end = example["labels"].tolist()
        whole = window.question == 0 and "very good" in " ".join(tokens)
        assert tokens[start : end + 1] == (["very", "good"] if whole else ["[CLS]"])
    assert (examples.targets != 0).any()
    assert examples.targets.dtype == torch.int64


def test_training_examples_keep_no_offsets(data, tokenizer):
    examples = tokenise_questions(data, tokenizer, 12, 3, flag="--train-file", training=True)
    assert len(examples.windows) == 0
    assert len(examples) == 4


def test_the_tokenizers_own_settings_stay(data, tokenizer):
    tokenizer.backend_tokenizer.enable_truncation(5)
    examples = tokenise_questions(data, tokenizer, 64, 3, flag="--train-file", training=True)
    assert len(examples) == 2
    assert tokenizer.backend_tokenizer.truncation["max_length"] == 5


def logits_for(examples, spans):
    """Logits that are sure of these characters of each question's context, None of no answer."""
    everything = []
    for window in examples.windows:
        values = np.zeros((len(window) + 3, 2))
        span = spans[window.question]
        values[0] = 5.0 if span is None else -5.0
        if span is not None:
            starts, ends = window.offsets[:, 0], window.offsets[:, 1]
            first = window.context_start
            values[first : first + len(starts), 0] += 9.0 * (starts == span[0])
            values[first : first + len(ends), 1] += 9.0 * (ends == span[1])
        everything.append(values)
    return everything


def test_right_logits_give_full_marks(data, tokenizer):
    examples = tokenise_questions(data, tokenizer, 12, 3, flag="--v", training=False)
    start = CONTEXT.index("very")
    metrics = score_questions(
        data, examples, logits_for(examples, [(start, start + 9), None]), LAYOUT
    )
    assert metrics["squad_f1"] == metrics["exact_match"] == 1.0
    assert metrics["no_answer_accuracy"] == metrics["has_answer_f1"] == 1.0
    assert -10 < metrics["no_answer_threshold"] < 10
    # Where every question has an answer, one is always given, and no threshold is chosen.
    always = replace(LAYOUT, no_answer=False)
    logits = logits_for(examples, [(start, start + 4), (0, 4)])
    metrics = score_questions(data, examples, logits, always)
    assert metrics["squad_f1"] == pytest.approx((2 / 3 + 0) / 2)
    assert "no_answer_threshold" not in metrics


def test_training_answers_better_than_chance(question_run, questions):
    manifest = read_run(question_run)
    # The head alone finds some 0.8 of the words, and one of 17 is chance.
    assert manifest.metrics["squad_f1"] > 0.85
    assert manifest.metrics["exact_match"] > 0.85
    assert manifest.task.kind == "question-answering"
    assert manifest.task.labels == ()
    assert manifest.task.metric == "squad_f1"
    assert manifest.task.answers == AnswerLayout(8, 30, 20, no_answer=False)
    assert (manifest.task.text_column, manifest.task.text_pair_column) == ("question", "context")
    assert (manifest.head.pooling, manifest.head.outputs) == ("tokens", 2)
    assert manifest.train_data.rows == 96
    assert manifest.density == pytest.approx(0.5, abs=0.01)


def test_questions_without_an_answer_get_a_threshold(word_bert, tmp_path):
    files = [
        write_questions(tmp_path / name, count, seed, no_answer=True)
        for name, count, seed in (("t.json", 64, 1), ("v.json", 32, 2))
    ]
    config = TrainConfig(
        model=str(word_bert),
        output_dir=tmp_path / "run",
        train_file=files[0],
        validation_file=files[1],
        method="finetune",
        steps=2,
        max_length=32,
        evaluations=1,
        head="least-squares",
        device="cpu",
        precision="fp32",
    )
    manifest = train(config)
    assert manifest.task.answers is not None
    assert manifest.task.answers.no_answer
    threshold = manifest.task.answers.no_answer_threshold
    assert threshold == manifest.metrics["no_answer_threshold"] != 0
    assert {"no_answer_accuracy", "has_answer_f1"} <= set(manifest.metrics)
    assert read_run(config.output_dir).task.answers == manifest.task.answers
