"""Question answering: windows as training examples, and answers from their logits."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer

from pipeline.answer_metrics import answer_metrics, best_threshold, score_answers
from pipeline.answers import FoundAnswer, find_answers
from pipeline.artifacts.run import AnswerLayout
from pipeline.questions import Questions
from pipeline.windows import Window, encode_windows, span_tokens
from smp.examples import Examples

__all__ = ["QuestionExamples", "score_questions", "tokenise_questions"]


@dataclass(frozen=True)
class QuestionExamples(Examples):
    """Windows as examples; their targets are int64 [windows, 2], the tokens of start and end.

    Where a window does not hold the answer, or there is none, both are the first token.

    Attributes:
        windows: the windows, for finding answers; empty for training examples.
    """

    windows: Sequence[Window] = ()


def tokenise_questions(
    data: Questions, tokenizer: Any, max_length: int, stride: int, *, flag: str, training: bool
) -> QuestionExamples:
    """Cut the contexts of one file into windows.

    Args:
        data: the questions.
        tokenizer: a transformers tokenizer.
        max_length: tokens of the longest window, special tokens included.
        stride: see :func:`pipeline.windows.encode_windows`.
        flag: the flag that named the file, for messages.
        training: leave away what is needed to find answers only.

    Raises:
        DataError: a question leaves no room for its context.
    """
    # A copy: truncation and padding are settings of the tokenizer.
    plain = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    plain.no_truncation()
    plain.no_padding()
    inputs: dict[str, list[list[int]]] = {"input_ids": [], "attention_mask": []}
    if "token_type_ids" in tokenizer.model_input_names:
        inputs["token_type_ids"] = []
    targets, windows = [], []
    for window in encode_windows(
        plain,
        data.texts,
        data.pairs,
        max_length=max_length,
        stride=stride,
        where=f"{flag} {data.source}",
    ):
        inputs["input_ids"].append(window.ids)
        inputs["attention_mask"].append([1] * len(window))
        if "token_type_ids" in inputs:
            inputs["token_type_ids"].append(window.type_ids)
        answers = data.answers[window.question]
        place = span_tokens(window, answers[0].start, answers[0].end) if answers else None
        targets.append(place or (0, 0))
        if not training:
            windows.append(window)
    return QuestionExamples(inputs, torch.tensor(targets), 0, windows)


def score_questions(
    data: Questions,
    examples: QuestionExamples,
    logits: Sequence[NDArray[Any]],
    layout: AnswerLayout,
) -> dict[str, float]:
    """The metrics of :func:`pipeline.answer_metrics.answer_metrics`.

    Where a question may have no answer, they are those of the best threshold, which is added as
    ``no_answer_threshold``.

    Args:
        data: the questions.
        examples: their windows.
        logits: for each window, float [tokens or more, 2].
        layout: how answers are found; its threshold does not count.
    """
    found = find_answers(examples.windows, logits, layout, questions=len(data))
    chosen: dict[str, float] = {}
    if layout.no_answer:
        always = dataclasses.replace(layout, no_answer=False)
        threshold = best_threshold(
            np.array([answer.gap for answer in found]),
            score_answers(_texts(found, data, always), data.references)[:, 0],
            score_answers([""] * len(data), data.references)[:, 0],
        )
        layout = dataclasses.replace(layout, no_answer_threshold=threshold)
        chosen = {"no_answer_threshold": threshold}
    return {**answer_metrics(_texts(found, data, layout), data.references), **chosen}


def _texts(found: Sequence[FoundAnswer], data: Questions, layout: AnswerLayout) -> list[str]:
    pairs = zip(found, data.pairs, strict=True)
    return [answer.text(context, layout) for answer, context in pairs]
