"""Questions on contexts, in SQuAD's published JSON and as flat rows (question, context, answers).

The format: Rajpurkar et al., SQuAD (2016), and for questions without an answer Rajpurkar et al.,
Know What You Don't Know (2018).
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.errors import DataError
from pipeline.rows import check_file, choose_column, load_rows

__all__ = [
    "Questions",
    "ReferenceAnswer",
    "is_squad_json",
    "questions_of_rows",
    "read_questions",
    "read_squad_json",
]

QUESTION_COLUMN, CONTEXT_COLUMN, ANSWERS_COLUMN = "question", "context", "answers"
# What stands before the data: a version, and whatever else is a string or a number.
_SQUAD_JSON = re.compile(rb'\s*\{\s*("[^"]*"\s*:\s*("[^"]*"|[-+.0-9eE]+)\s*,\s*)*"data"\s*:\s*\[')
_BEGINNING_BYTES = 4096


@dataclass(frozen=True)
class ReferenceAnswer:
    """A span of the context that answers the question.

    Attributes:
        text: the span.
        start: its first character in the context, from 0.
    """

    text: str
    start: int

    @property
    def end(self) -> int:
        """The character after its last."""
        return self.start + len(self.text)


@dataclass(frozen=True)
class Questions:
    """Questions of one file, in its order.

    Attributes:
        source: the file, or the hub name of a data set, for messages.
        ids: an id of each question.
        texts: the questions.
        pairs: the contexts.
        answers: the right answers of each; none where the context has none.
        text_column, text_pair_column, label_column: where they stood.
    """

    source: str
    ids: Sequence[str]
    texts: Sequence[str]
    pairs: Sequence[str]
    answers: Sequence[tuple[ReferenceAnswer, ...]]
    text_column: str
    text_pair_column: str
    label_column: str

    def __len__(self) -> int:
        return len(self.texts)

    def head(self, count: int) -> "Questions":
        """The first ``count`` questions."""
        return replace(
            self,
            ids=self.ids[:count],
            texts=self.texts[:count],
            pairs=self.pairs[:count],
            answers=self.answers[:count],
        )

    @property
    def references(self) -> list[tuple[str, ...]]:
        """The texts of the right answers of each question."""
        return [tuple(answer.text for answer in answers) for answers in self.answers]

    @property
    def unanswerable(self) -> int:
        """How many questions have no answer."""
        return sum(not answers for answers in self.answers)


def read_questions(
    path: Path,
    *,
    flag: str,
    text_column: str | None = None,
    text_pair_column: str | None = None,
    label_column: str | None = None,
) -> Questions:
    """Read a file of questions.

    Args:
        path: SQuAD's .json, or rows in .json, .jsonl or .parquet.
        flag: the flag that named the file, for messages.
        text_column: the question's column; None takes ``question``.
        text_pair_column: the context's column; None takes ``context``.
        label_column: the answers' column; None takes ``answers``.

    Raises:
        DataError: the file is missing, empty or malformed, a column is missing, a question or a
            context is empty, or an answer does not stand where it is said to.
    """
    if is_squad_json(path):
        return read_squad_json(path, f"{flag} {path}")
    return questions_of_rows(
        load_rows(path, f"{flag} {path}"),
        f"{flag} {path}",
        source=str(path),
        text_column=text_column,
        text_pair_column=text_pair_column,
        label_column=label_column,
    )


def is_squad_json(path: Path) -> bool:
    """Whether a file begins as SQuAD's do: one JSON object with a list ``data``."""
    if path.suffix.lower() != ".json" or not path.is_file():
        return False
    with path.open("rb") as file:
        return (
            _SQUAD_JSON.match(file.read(_BEGINNING_BYTES).removeprefix(b"\xef\xbb\xbf")) is not None
        )


def questions_of_rows(
    rows: Any,
    where: str,
    *,
    source: str,
    text_column: str | None = None,
    text_pair_column: str | None = None,
    label_column: str | None = None,
) -> Questions:
    """Questions of rows of a `datasets.Dataset`; see :func:`read_questions` for the rest."""
    columns = list(rows.column_names)
    names = (
        choose_column(columns, text_column, (QUESTION_COLUMN,), where, "--text-column"),
        choose_column(columns, text_pair_column, (CONTEXT_COLUMN,), where, "--text-pair-column"),
        choose_column(columns, label_column, (ANSWERS_COLUMN,), where, "--label-column"),
    )
    texts, contexts, answers = (rows[name][:] for name in names)
    ids = rows["id"][:] if "id" in columns else range(len(rows))
    checked = [
        _check(example, f"{where}: example {number} (id {example[0]!r})")
        for number, example in enumerate(zip(ids, texts, contexts, answers, strict=True), 1)
    ]
    return _questions(source, checked, names)


def read_squad_json(path: Path, where: str) -> Questions:
    """Questions of a file as SQuAD v1.1 and v2.0 publish theirs.

    An object with ``data``: a list of articles with ``paragraphs`` with ``context`` and ``qas``,
    each with ``question``, ``id``, ``answers``, and in v2.0 ``is_impossible``.

    Raises:
        DataError: see :func:`read_questions`.
    """
    check_file(path, where)
    try:
        articles = json.loads(path.read_text(encoding="utf-8-sig"))["data"]
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: cannot be read as json ({error})") from error
    checked = []
    for number, (context, qa) in enumerate(_questions_of_articles(articles, where), 1):
        place = f"{where}: example {number} (id {qa.get('id', '')!r})"
        answers = qa.get("answers")
        if qa.get("is_impossible") is True:
            answers = []
        elif not answers:
            raise DataError(
                f'{place}: has no answers and no "is_impossible": true; give one of the two'
            )
        checked.append(
            _check((qa.get("id", number - 1), qa.get("question"), context, answers), place)
        )
    if not checked:
        raise DataError(f"{where}: the file has no examples")
    return _questions(str(path), checked, (QUESTION_COLUMN, CONTEXT_COLUMN, ANSWERS_COLUMN))


def _questions_of_articles(articles: Any, where: str) -> Iterator[tuple[Any, Mapping[str, Any]]]:
    try:
        for article in articles:
            for paragraph in article["paragraphs"]:
                for qa in paragraph["qas"]:
                    yield paragraph["context"], dict(qa)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{where}: is not of SQuAD's form, data > paragraphs > context and qas ({error!r}); "
            "correct the file, or give rows with question, context and answers"
        ) from error


_Checked = tuple[str, str, str, tuple[ReferenceAnswer, ...]]


def _check(example: tuple[Any, Any, Any, Any], place: str) -> _Checked:
    identifier, question, context, answers = example
    for name, text in (("question", question), ("context", context)):
        if not isinstance(text, str) or not text.strip():
            raise DataError(f"{place}: has no {name}; fill or drop the row")
    spans = [_check_answer(*pair, context, place) for pair in _answer_pairs(answers, place)]
    return str(identifier), question, context, tuple(spans)


def _answer_pairs(answers: Any, place: str) -> list[tuple[Any, Any]]:
    """Text and start of each, from lists in one object (flat rows) or objects in one list."""
    expected = "expected answers with text and answer_start"
    if answers is None:
        return []
    try:
        if isinstance(answers, Mapping):
            texts, starts = answers["text"] or [], answers["answer_start"] or []
            if len(texts) != len(starts):
                raise DataError(
                    f"{place}: has {len(texts)} answer texts and {len(starts)} answer_starts; "
                    "give one start a text"
                )
            return list(zip(texts, starts, strict=True))
        return [(answer["text"], answer["answer_start"]) for answer in answers]
    except (KeyError, TypeError) as error:
        raise DataError(f"{place}: {expected}, got {answers!r:.80}; correct the row") from error


def _check_answer(text: Any, start: Any, context: str, place: str) -> ReferenceAnswer:
    if not isinstance(text, str) or not text.strip():
        raise DataError(f"{place}: has an answer without text; correct the row")
    if not isinstance(start, int) or not 0 <= start <= len(context) - len(text):
        raise DataError(
            f"{place}: the answer {text!r:.60} has answer_start {start}, which is out of the "
            f"context's {len(context)} characters; correct the row"
        )
    found = context[start : start + len(text)]
    if found != text:
        raise DataError(
            f"{place}: the context has {found!r:.60} at answer_start {start}, not the answer "
            f"{text!r:.60}; correct the row (answer_start counts characters from 0)"
        )
    return ReferenceAnswer(text, start)


def _questions(source: str, checked: Sequence[_Checked], names: tuple[str, str, str]) -> Questions:
    ids, texts, contexts, answers = zip(*checked, strict=True)
    return Questions(source, ids, texts, contexts, answers, *names)
