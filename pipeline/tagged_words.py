"""Sentences as words with a label each, from rows with two lists or files of CoNLL's form."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.data import class_name, label_name
from pipeline.errors import DataError
from pipeline.rows import check_file, choose_column, load_rows

__all__ = [
    "CONLL_SUFFIXES",
    "TaggedWords",
    "encode_tags",
    "infer_tags",
    "read_tagged_words",
    "tagged_words_of_rows",
]

CONLL_SUFFIXES = (".conll", ".txt")
WORD_COLUMNS = ("tokens", "words")
TAG_COLUMNS = ("ner_tags", "tags", "labels")


@dataclass(frozen=True)
class TaggedWords:
    """Sentences of one file, in its order.

    Attributes:
        source: the file, or the hub name of a data set, for messages.
        words: the words of each sentence.
        tags: the label of each word.
        text_column, label_column: where they stood; the usual names for files without columns.
    """

    source: str
    words: Sequence[Sequence[str]]
    tags: Sequence[Sequence[str]]
    text_column: str
    label_column: str
    text_pair_column: None = None

    def __len__(self) -> int:
        return len(self.words)

    def head(self, count: int) -> "TaggedWords":
        """The first ``count`` sentences."""
        return replace(self, words=self.words[:count], tags=self.tags[:count])


def read_tagged_words(
    path: Path, *, flag: str, text_column: str | None = None, label_column: str | None = None
) -> TaggedWords:
    """Read a file of words with labels.

    Args:
        path: rows in .json, .jsonl or .parquet; or .conll or .txt: a word and its label a line,
            first and last of the columns, an empty line between two sentences.
        flag: the flag that named the file, for messages.
        text_column: the words' column; None takes ``tokens`` or ``words``.
        label_column: the labels' column; None takes ``ner_tags``, ``tags`` or ``labels``.

    Raises:
        DataError: the file is missing, empty or malformed, a column is missing, or a sentence has
            more words than labels or fewer.
    """
    where = f"{flag} {path}"
    if path.suffix.lower() in CONLL_SUFFIXES:
        return _read_conll(path, where)
    return tagged_words_of_rows(
        load_rows(path, where),
        where,
        source=str(path),
        text_column=text_column,
        label_column=label_column,
    )


def tagged_words_of_rows(
    rows: Any,
    where: str,
    *,
    source: str,
    text_column: str | None = None,
    label_column: str | None = None,
) -> TaggedWords:
    """Words of rows of a `datasets.Dataset`; see :func:`read_tagged_words` for the rest."""
    columns = list(rows.column_names)
    text_column = choose_column(columns, text_column, WORD_COLUMNS, where, "--text-column")
    label_column = choose_column(columns, label_column, TAG_COLUMNS, where, "--label-column")
    names = getattr(getattr(rows.features[label_column], "feature", None), "names", None)
    sentences, tags = [], []
    pairs = zip(rows[text_column][:], rows[label_column][:], strict=True)
    for number, (words, labels) in enumerate(pairs, 1):
        place = f"{where}: example {number}"
        for column, values in ((text_column, words), (label_column, labels)):
            if not isinstance(values, list):
                raise DataError(
                    f"{place}: expected a list in {column!r}, got {values!r:.60}; "
                    "token classification needs a list of words and a list of labels a row"
                )
        if not words:
            raise DataError(f"{place}: has no words in {text_column!r}; fill or drop the row")
        if len(words) != len(labels):
            raise DataError(
                f"{place}: has {len(words)} words in {text_column!r} and {len(labels)} labels in "
                f"{label_column!r}; give one label a word"
            )
        if not all(isinstance(word, str) for word in words):
            raise DataError(f"{place}: has a word in {text_column!r} that is no string")
        sentences.append(tuple(words))
        tags.append(tuple(_tag(label, names, place) for label in labels))
    return TaggedWords(source, sentences, tags, text_column, label_column)


def _tag(label: Any, names: Sequence[str] | None, place: str) -> str:
    if label is None or not isinstance(label, str | int | float) or label == "":
        raise DataError(f"{place}: has the label {label!r}; labels are strings or integers")
    return label_name(label) if names is None else class_name(int(label), names, place)


def _read_conll(path: Path, where: str) -> TaggedWords:
    check_file(path, where)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: cannot be read ({error}); save the file as UTF-8") from error
    sentences: list[list[tuple[str, str]]] = [[]]
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip() or line.startswith("-DOCSTART-"):
            if sentences[-1]:
                sentences.append([])
            continue
        # Words may hold spaces where the columns are apart by tabs.
        columns = [part.strip() for part in line.split("\t")] if "\t" in line else line.split()
        if len(columns) < 2 or not columns[-1]:
            raise DataError(
                f"{where}: line {number}: expected a word and a label, got {line.strip()!r:.60}; "
                "put an empty line between sentences"
            )
        sentences[-1].append((columns[0], columns[-1]))
    sentences = [sentence for sentence in sentences if sentence]
    if not sentences:
        raise DataError(f"{where}: the file has no examples")
    return TaggedWords(
        source=str(path),
        words=[tuple(word for word, _ in sentence) for sentence in sentences],
        tags=[tuple(tag for _, tag in sentence) for sentence in sentences],
        text_column=WORD_COLUMNS[0],
        label_column=TAG_COLUMNS[0],
    )


def infer_tags(data: TaggedWords, *, flag: str) -> tuple[str, ...]:
    """The labels of the training data: integers in numerical order, others sorted after O.

    Raises:
        DataError: there is only one label.
    """
    counts = Counter(tag for tags in data.tags for tag in tags)
    if len(counts) < 2:
        raise DataError(
            f"{flag} {data.source}: all words of {len(data)} sentences have the label "
            f"{next(iter(counts))!r}; give data with at least two labels"
        )
    if all(re.fullmatch(r"-?[0-9]+", name) for name in counts):
        return tuple(sorted(counts, key=int))
    return tuple(sorted(counts, key=lambda name: (name != "O", name)))


def encode_tags(data: TaggedWords, labels: Sequence[str], *, flag: str) -> list[list[int]]:
    """The labels of each sentence as indices into ``labels``.

    Raises:
        DataError: a label that is not among them.
    """
    index = {name: position for position, name in enumerate(labels)}
    for number, tags in enumerate(data.tags, 1):
        for tag in tags:
            if tag not in index:
                raise DataError(
                    f"{flag} {data.source}: example {number} has the label {tag!r}, which the "
                    f"training data never had (it had {', '.join(labels)}); correct the file"
                )
    return [[index[tag] for tag in tags] for tags in data.tags]
