"""Labelled text from csv, tsv, json, jsonl and parquet files, read through `datasets`."""

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pipeline.errors import DataError
from pipeline.rows import choose_column, load_rows

__all__ = [
    "LabelledText",
    "class_name",
    "encode_labels",
    "infer_labels",
    "infer_task_kind",
    "label_name",
    "labelled_text",
    "numeric_labels",
    "read_labelled_text",
]

# What other programs write for a missing number.
_MISSING_LABELS = ("", "NA", "N/A", "#N/A", "nan", "NaN", "null", "NULL")
_TEXT_COLUMNS = ("text", "sentence", "sentence1", "question1", "premise", "question")
_PAIR_COLUMNS = {
    "sentence1": ("sentence2",),
    "question1": ("question2",),
    "premise": ("hypothesis",),
    "question": ("sentence",),
}


@dataclass(frozen=True)
class LabelledText:
    """Examples of one file, in its order.

    Attributes:
        source: the file, or the hub name of a data set, for messages.
        texts: the texts.
        pairs: the second texts, None where there is one text an example.
        labels: as the file has them: strings, integers or floats.
        text_column, text_pair_column, label_column: where they stood.
    """

    source: str
    texts: Sequence[str]
    pairs: Sequence[str] | None
    labels: Sequence[str | int | float]
    text_column: str
    text_pair_column: str | None
    label_column: str

    def __len__(self) -> int:
        return len(self.texts)

    def head(self, count: int) -> "LabelledText":
        """The first ``count`` examples."""
        return LabelledText(
            self.source,
            self.texts[:count],
            None if self.pairs is None else self.pairs[:count],
            self.labels[:count],
            self.text_column,
            self.text_pair_column,
            self.label_column,
        )


def read_labelled_text(
    path: Path,
    *,
    flag: str,
    text_column: str | None = None,
    text_pair_column: str | None = None,
    label_column: str | None = None,
) -> LabelledText:
    """Read a labelled text file.

    Args:
        path: a .csv, .tsv, .json, .jsonl or .parquet file.
        flag: the flag that named the file, for messages.
        text_column: the text's column; None takes the first of the usual names.
        text_pair_column: the second text's column; None takes the usual partner of the text's.
        label_column: the label's column; None takes ``label``.

    Raises:
        DataError: the file is missing, empty or malformed, a column is missing, or a text or a
            label is empty or NaN.
    """
    return labelled_text(
        load_rows(path, f"{flag} {path}"),
        f"{flag} {path}",
        source=str(path),
        text_column=text_column,
        text_pair_column=text_pair_column,
        label_column=label_column,
    )


def labelled_text(
    rows: Any,
    where: str,
    *,
    source: str,
    text_column: str | None,
    text_pair_column: str | None,
    label_column: str | None,
) -> LabelledText:
    """Labelled text of rows that :func:`pipeline.rows.load_rows` gave; see above for the rest."""
    columns = list(rows.column_names)
    text_column = choose_column(columns, text_column, _TEXT_COLUMNS, where, "--text-column")
    label_column = choose_column(columns, label_column, ("label",), where, "--label-column")
    if text_pair_column is not None:
        choose_column(columns, text_pair_column, (), where, "--text-pair-column")
    else:
        usual = [name for name in _PAIR_COLUMNS.get(text_column, ()) if name in columns]
        text_pair_column = usual[0] if usual else None
    return LabelledText(
        source=source,
        texts=_texts(rows, text_column, where),
        pairs=None if text_pair_column is None else _texts(rows, text_pair_column, where),
        labels=_labels(rows, label_column, where),
        text_column=text_column,
        text_pair_column=text_pair_column,
        label_column=label_column,
    )


def _texts(rows: Any, column: str, where: str) -> list[str]:
    values = rows[column][:]
    for index, value in enumerate(values):
        empty = value is None or (isinstance(value, str) and not value.strip())
        if empty or (isinstance(value, float) and math.isnan(value)):
            raise DataError(f"{where}: example {index + 1} has no {column!r}; fill or drop the row")
        if isinstance(value, list | dict):
            raise DataError(
                f"{where}: example {index + 1} has a {type(value).__name__} in {column!r}; "
                "texts are strings, one object an example"
            )
    return [value if isinstance(value, str) else str(value) for value in values]


def _labels(rows: Any, column: str, where: str) -> list[str | int | float]:
    values = rows[column][:]
    names = getattr(rows.features[column], "names", None)
    for index, value in enumerate(values):
        missing = value is None or value in _MISSING_LABELS
        if missing or (isinstance(value, float) and not math.isfinite(value)):
            raise DataError(
                f"{where}: example {index + 1} has label {value!r} in {column!r}; "
                "fill or drop the row"
            )
        if not isinstance(value, str | int | float):
            raise DataError(
                f"{where}: example {index + 1} has a label of type {type(value).__name__}; "
                "labels are strings or numbers"
            )
    if names is not None:
        return [
            class_name(value, names, f"{where}: example {index}")
            for index, value in enumerate(values, 1)
        ]
    return list(values)


def class_name(label: int, names: Sequence[str], place: str) -> str:
    """The name of a class that a file numbers.

    Args:
        label: the number, from 0.
        names: the names that the file gives.
        place: the file and the example, for messages.

    Raises:
        DataError: there is no such class; -1 is what data sets without labels have.
    """
    if label not in range(len(names)):
        raise DataError(
            f"{place}: has the label {label!r}, the file names {len(names)} from 0; label or drop "
            "the row"
        )
    return names[label]


def infer_task_kind(labels: Sequence[str | int | float]) -> Literal["classification", "regression"]:
    """Regression if all labels are numbers and one is no whole number, else classification."""
    numbers = all(isinstance(label, int | float) for label in labels)
    whole = all(isinstance(label, float) is False or float(label).is_integer() for label in labels)
    return "regression" if numbers and not whole else "classification"


def label_name(label: str | int | float) -> str:
    """The name of a class: a whole float (as pandas makes of integers) reads as an integer."""
    if isinstance(label, float) and label.is_integer():
        return str(int(label))
    return str(label)


def infer_labels(data: LabelledText, *, flag: str) -> tuple[str, ...]:
    """The class names of the training data: in numerical order if they are integers, else sorted.

    Raises:
        DataError: there is only one class.
    """
    counts = Counter(label_name(label) for label in data.labels)
    if len(counts) < 2:
        only = next(iter(counts))
        raise DataError(
            f"{flag} {data.source}: all {len(data)} examples have the label {only!r}; "
            "give data with at least two classes, or shuffle before you cut it"
        )
    if all(re.fullmatch(r"-?[0-9]+", name) for name in counts):
        return tuple(sorted(counts, key=int))
    return tuple(sorted(counts))


def encode_labels(data: LabelledText, labels: Sequence[str], *, flag: str) -> list[int]:
    """Labels as indices into ``labels``.

    Raises:
        DataError: a label that is not among them.
    """
    index = {name: position for position, name in enumerate(labels)}
    encoded = []
    for row, label in enumerate(data.labels):
        name = label_name(label)
        if name not in index:
            raise DataError(
                f"{flag} {data.source}: example {row + 1} has the label {name!r}, which the "
                f"training data never had (it had {', '.join(labels)}); correct the file"
            )
        encoded.append(index[name])
    return encoded


def numeric_labels(data: LabelledText, *, flag: str) -> list[float]:
    """Labels as floats, for regression.

    Raises:
        DataError: a label that is no number.
    """
    values = []
    for row, label in enumerate(data.labels):
        try:
            value = float(label)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise DataError(
                f"{flag} {data.source}: example {row + 1} has the label {label!r}; "
                "regression needs numbers"
            )
        values.append(value)
    return values
