"""From the start and end logits of windows to an answer: n-best spans, and no answer.

As the SQuAD baselines of BERT do it (Devlin et al., 2019, section 4.2 and 4.3): the score of a span
is the sum of its start and its end logit, that of no answer the same sum at the first token, the
smallest over all windows of the question.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts.run import AnswerLayout
from pipeline.windows import Window

__all__ = ["FoundAnswer", "find_answer", "find_answers"]


@dataclass(frozen=True)
class FoundAnswer:
    """The best span of a context.

    Attributes:
        start: its first character in the context, from 0.
        end: the character after its last.
        score: its start logit plus its end logit.
        none_score: the score of no answer.
        probability: softmax of the score over those of the best spans, in (0, 1]; where a
            question may have no answer, that counts as one of them.
    """

    start: int
    end: int
    score: float
    none_score: float
    probability: float

    @property
    def gap(self) -> float:
        """How much larger the score of no answer is."""
        return self.none_score - self.score

    def text(self, context: str, layout: AnswerLayout) -> str:
        """The answer, empty where there is none."""
        if layout.no_answer and self.gap > layout.no_answer_threshold:
            return ""
        return context[self.start : self.end]


def find_answer(
    windows: Sequence[Window], logits: Sequence[NDArray[np.floating]], layout: AnswerLayout
) -> FoundAnswer:
    """The best answer of one question.

    Args:
        windows: the windows of the question, at least one.
        logits: for each, float [tokens or more, 2]: the logits of start and end at each token;
            rows beyond its tokens (padding) are ignored.
        layout: how answers are found.
    """
    spans: list[tuple[float, int, int]] = []
    none_scores = []
    for window, values in zip(windows, logits, strict=True):
        exact = np.asarray(values, dtype=np.float64)
        none_scores.append(float(exact[0].sum()))
        spans += _best_spans(window, exact, layout)
    spans.sort(key=lambda span: -span[0])
    score, start, end = spans[0]
    none_score = min(none_scores)
    rivals = [span[0] for span in spans[: layout.n_best]]
    rivals += [none_score] if layout.no_answer else []
    # At least 1 in the sum, which is the span's own where it is the largest.
    weights = np.exp(np.array(rivals) - max(rivals))
    probability = float(np.exp(score - max(rivals)) / weights.sum())
    return FoundAnswer(start, end, score, none_score, probability)


def find_answers(
    windows: Sequence[Window],
    logits: Sequence[NDArray[np.floating]],
    layout: AnswerLayout,
    *,
    questions: int,
) -> list[FoundAnswer]:
    """The best answer of each question, in order.

    Args:
        windows: the windows of all questions, those of one question side by side.
        logits: see :func:`find_answer`.
        layout: how answers are found.
        questions: how many questions there are.
    """
    starts = np.searchsorted([window.question for window in windows], np.arange(questions + 1))
    return [
        find_answer(windows[first:last], logits[first:last], layout)
        for first, last in pairwise(starts)
    ]


def _best_spans(
    window: Window, values: NDArray[np.float64], layout: AnswerLayout
) -> list[tuple[float, int, int]]:
    """Score, first and last character of the best spans of a window, at least one."""
    first = window.context_start
    of_context = values[first : first + len(window.offsets)]
    starts, ends = np.argsort(-of_context, axis=0, kind="stable")[: layout.n_best].T
    lengths = ends[None, :] - starts[:, None] + 1
    rows, columns = np.nonzero((lengths >= 1) & (lengths <= layout.max_answer_length))
    pairs = starts[rows], ends[columns]
    if not len(rows):  # every end is before every start: answers of one token
        pairs = starts, starts
    scores = of_context[pairs[0], 0] + of_context[pairs[1], 1]
    best = np.argsort(-scores, kind="stable")[: layout.n_best]
    return [
        (
            float(scores[index]),
            int(window.offsets[pairs[0][index], 0]),
            int(window.offsets[pairs[1][index], 1]),
        )
        for index in best
    ]
