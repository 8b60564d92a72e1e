"""Exact match and F1 of answers, as SQuAD scores them (Rajpurkar et al., 2016 and 2018).

All are shares in [0, 1]; an answer counts as its best match among the right ones, and a question
without a right answer is answered right by an empty one alone.
"""

import re
import string
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["answer_metrics", "best_threshold", "normalise_answer", "score_answers"]

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalise_answer(text: str) -> str:
    """Lower case, without ASCII punctuation, English articles and superfluous spaces."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split())


def score_answers(
    answers: Sequence[str], references: Sequence[Sequence[str]]
) -> NDArray[np.float64]:
    """F1 and exact match of each answer.

    Args:
        answers: one a question, empty for no answer.
        references: the right answers of each; none where the question has no answer.

    Returns:
        float64 [questions, 2]: F1 over words, and 1 or 0 for an exact match.
    """
    scores = np.zeros((len(answers), 2))
    for row, (answer, right) in enumerate(zip(answers, references, strict=True)):
        # A right answer of articles or punctuation alone says nothing, unless all of them are.
        wanted = [text for text in map(normalise_answer, right) if text] or [""]
        given = normalise_answer(answer)
        scores[row] = (
            max(_f1(given.split(), text.split()) for text in wanted),
            float(given in wanted),
        )
    return scores


def _f1(given: list[str], wanted: list[str]) -> float:
    if not given or not wanted:
        return float(given == wanted)
    common = sum((Counter(given) & Counter(wanted)).values())
    return 2.0 * common / (len(given) + len(wanted))


def answer_metrics(answers: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
    """The metrics of a data set: ``squad_f1`` and ``exact_match``.

    Where some questions have no answer, also the two over those that have one
    (``has_answer_f1``, ``has_answer_exact_match``), and ``no_answer_accuracy``, the share of the
    others that is left unanswered.
    """
    scores = score_answers(answers, references)
    f1, exact = scores.mean(axis=0)
    metrics = {"squad_f1": float(f1), "exact_match": float(exact)}
    answerable = np.array([len(right) > 0 for right in references])
    if not answerable.all():
        metrics["no_answer_accuracy"] = float(scores[~answerable, 1].mean())
        if answerable.any():
            f1, exact = scores[answerable].mean(axis=0)
            metrics["has_answer_f1"] = float(f1)
            metrics["has_answer_exact_match"] = float(exact)
    return metrics


def best_threshold(
    gaps: NDArray[np.float64], answered: NDArray[np.float64], refused: NDArray[np.float64]
) -> float:
    """The threshold of no answer that gives the largest mean score (SQuAD v2's best threshold).

    A question is left unanswered where its gap is larger. The threshold lies half-way between two
    gaps, or 1 beyond them all; of several, the largest.

    Args:
        gaps: [questions], by how much no answer scores higher than the best span.
        answered: [questions], the F1 of the best span.
        refused: [questions], the F1 of an empty answer.
    """
    order = np.argsort(gaps, kind="stable")
    sorted_gaps = gaps[order]
    # The total for answering none, the one with the smallest gap, the two with the smallest, ...
    total = np.concatenate([[0.0], np.cumsum((answered - refused)[order])])
    # Questions with equal gaps are answered together.
    between = np.flatnonzero(np.diff(sorted_gaps) > 0) + 1
    cuts = np.concatenate([[0], between, [len(gaps)]])
    best = int(cuts[len(cuts) - 1 - int(np.argmax(total[cuts][::-1]))])
    if best == 0:
        return float(sorted_gaps[0] - 1.0)
    if best == len(gaps):
        return float(sorted_gaps[-1] + 1.0)
    return float((sorted_gaps[best - 1] + sorted_gaps[best]) / 2.0)
