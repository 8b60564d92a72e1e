"""A data file of any task: which kind it is, and its examples."""

from pathlib import Path
from typing import Any, Literal

from pipeline.artifacts.run import TaskKind
from pipeline.data import LabelledText, infer_task_kind, labelled_text
from pipeline.questions import (
    ANSWERS_COLUMN,
    Questions,
    is_squad_json,
    questions_of_rows,
    read_squad_json,
)
from pipeline.rows import load_rows
from pipeline.tagged_words import (
    CONLL_SUFFIXES,
    TAG_COLUMNS,
    TaggedWords,
    read_tagged_words,
    tagged_words_of_rows,
)

__all__ = ["TaskData", "kind_of", "read_task_file"]

TaskData = LabelledText | Questions | TaggedWords


def read_task_file(
    path: Path,
    *,
    flag: str,
    kind: TaskKind | Literal["auto"] = "auto",
    text_column: str | None = None,
    text_pair_column: str | None = None,
    label_column: str | None = None,
) -> TaskData:
    """Read a data file as the kind of its task needs it.

    Args:
        path: the file.
        flag: the flag that named it, for messages.
        kind: the kind, or ``auto``: question answering for SQuAD's JSON and where the answers'
            column holds objects; token classification for CoNLL's files and where the labels'
            column holds lists; else labelled text.
        text_column: the column of the text, the question or the words; None takes a usual name.
        text_pair_column: the column of the second text or the context, likewise.
        label_column: the column of the label, the answers or the labels, likewise.

    Raises:
        DataError: see :func:`pipeline.data.read_labelled_text`,
            :func:`pipeline.questions.read_questions` and
            :func:`pipeline.tagged_words.read_tagged_words`.
    """
    where = f"{flag} {path}"
    conll = path.suffix.lower() in CONLL_SUFFIXES
    if kind in ("auto", "token-classification") and conll:
        return read_tagged_words(path, flag=flag)
    if kind in ("auto", "question-answering") and is_squad_json(path):
        return read_squad_json(path, where)
    rows = load_rows(path, where)
    source, words = str(path), {"text_column": text_column, "label_column": label_column}
    texts = {**words, "text_pair_column": text_pair_column}
    if kind == "auto":
        kind = _kind_of_rows(rows, label_column)
    if kind == "question-answering":
        return questions_of_rows(rows, where, source=source, **texts)
    if kind == "token-classification":
        return tagged_words_of_rows(rows, where, source=source, **words)
    return labelled_text(rows, where, source=source, **texts)


def kind_of(data: TaskData) -> TaskKind:
    """The kind of a task with such data; whole numbers are taken as classes."""
    if isinstance(data, Questions):
        return "question-answering"
    if isinstance(data, TaggedWords):
        return "token-classification"
    return infer_task_kind(data.labels)


def _kind_of_rows(rows: Any, label_column: str | None) -> TaskKind:
    from datasets import LargeList, List

    names = (label_column,) if label_column else (ANSWERS_COLUMN, *TAG_COLUMNS)
    for name in names:
        feature = rows.features.get(name)
        if isinstance(feature, List | LargeList):
            objects = isinstance(feature.feature, dict)
            return "question-answering" if objects else "token-classification"
        if isinstance(feature, dict):
            return "question-answering"
    return "classification"
