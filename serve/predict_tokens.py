"""A model's predictions over a whole data file, for the kinds whose logits are of tokens."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding

from pipeline.answers import find_answers
from pipeline.artifacts.benchmark import Predictions
from pipeline.questions import Questions
from pipeline.tagged_words import TaggedWords
from pipeline.windows import Window
from pipeline.word_tokens import first_tokens, join_words
from serve.predict import BATCH_SIZE, check_finite
from serve.subjects import Subject

__all__ = ["predict_answers", "predict_tags"]


def predict_answers(
    subject: Subject, data: Questions, *, flag: str, advance: Callable[[int], None]
) -> Predictions:
    """Answer all questions, each from all windows of its context.

    Args:
        subject: the model, on any engine.
        data: the questions.
        flag: the flag that named their file, for messages.
        advance: called with the number of questions done since the last call.

    Raises:
        ArtifactError: a logit is NaN or infinite, or the graph does not run.
        DataError: a question leaves no room for its context.
    """
    session = subject.session
    layout = None if session.task is None else session.task.answers
    assert layout is not None
    windows = list(session.windows(data.texts, data.pairs, where=f"{flag} {data.source}"))
    examples = np.array([window.question for window in windows])
    logits = _token_logits(subject, windows, examples, advance)
    found = find_answers(windows, logits, layout, questions=len(data))
    pairs = zip(found, data.pairs, strict=True)
    return Predictions(
        (), (), answers=tuple(answer.text(context, layout) for answer, context in pairs)
    )


def predict_tags(
    subject: Subject, data: TaggedWords, *, advance: Callable[[int], None]
) -> tuple[Predictions, int]:
    """Label all words, each by its first token.

    Args:
        subject: the model, on any engine.
        data: the sentences.
        advance: called with the number of sentences done since the last call.

    Returns:
        The predictions, and how many sentences were cut. Words that were cut off are O, and have no
        label where the model has no such.

    Raises:
        ArtifactError: a logit is NaN or infinite, or the graph does not run.
    """
    session = subject.session
    assert session.task is not None
    labels = session.task.labels
    unseen = labels.index("O") if "O" in labels else -1
    joined = [join_words(words) for words in data.words]
    encodings = session.encode([text for text, _ in joined], offsets=True)
    logits = _token_logits(subject, encodings, np.arange(len(data)), advance)
    tags = []
    for (text, spans), encoding, values in zip(joined, encodings, logits, strict=True):
        first = first_tokens(encoding.offsets, spans, text)
        best = values.argmax(axis=-1)
        tags.append(tuple(int(best[at]) if at >= 0 else unseen for at in first))
    truncated = sum(bool(encoding.overflowing) for encoding in encodings)
    return Predictions((), (), tags=tuple(tags)), truncated


def _token_logits(
    subject: Subject,
    rows: Sequence[Encoding | Window],
    examples: NDArray[np.int64],
    advance: Callable[[int], None],
) -> list[NDArray[np.float32]]:
    """Logits of each row's own tokens, float32 [tokens, outputs] each, in the order of the rows.

    Args:
        subject: the model.
        rows: the inputs.
        examples: [rows], the example that each belongs to, in order.
        advance: called with the number of examples done since the last call.
    """
    logits: list[NDArray[np.float32]] = [np.empty(0, np.float32)] * len(rows)
    extremes = np.empty((len(rows), 2), np.float32)
    count = int(examples[-1]) + 1
    # Rows of like length together: little padding, and so little wasted work.
    by_length = np.argsort([len(row.ids) for row in rows], kind="stable")
    for start in range(0, len(rows), BATCH_SIZE):
        chosen = by_length[start : start + BATCH_SIZE]
        found = subject.run(subject.session.collate([rows[row] for row in chosen]))
        for row, values in zip(chosen.tolist(), found, strict=True):
            logits[row] = values[: len(rows[row].ids)].copy()
            extremes[row] = logits[row].min(), logits[row].max()
        done = start + len(chosen)
        advance(count * done // len(rows) - count * start // len(rows))
    check_finite(subject, extremes, examples)
    return logits
