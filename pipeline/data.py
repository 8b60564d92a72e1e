"""Labelled text from csv, tsv, json, jsonl and parquet files, read through `datasets`."""

import csv
import math
import re
import tempfile
import textwrap
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pipeline.errors import DataError

__all__ = [
    "LabelledText",
    "encode_labels",
    "infer_labels",
    "infer_task_kind",
    "numeric_labels",
    "read_labelled_text",
]

# pandas reads "NA", "null" and "None" as missing, which are words and class names here; and a first
# column without a name as an index, where a comma without quotes is the likelier cause.
_CSV = {"keep_default_na": False, "na_values": ["", "nan", "NaN"], "index_col": False}
# What other programs write for a missing number.
_MISSING_LABELS = ("", "NA", "N/A", "#N/A", "nan", "NaN", "null", "NULL")
_LOADERS: dict[str, tuple[str, dict[str, Any]]] = {
    ".csv": ("csv", _CSV),
    # Quotes mean nothing in tsv: a text that starts with one would swallow the rows after it.
    ".tsv": ("csv", {**_CSV, "sep": "\t", "quoting": csv.QUOTE_NONE}),
    ".json": ("json", {}),
    ".jsonl": ("json", {}),
    ".parquet": ("parquet", {}),
}
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
    where = f"{flag} {path}"
    rows = _load(path, where)
    columns = list(rows.column_names)
    if len(rows) == 0:
        raise DataError(f"{where}: the file has no examples")
    text_column = _choose(columns, text_column, _TEXT_COLUMNS, where, "--text-column")
    label_column = _choose(columns, label_column, ("label",), where, "--label-column")
    if text_pair_column is not None:
        _choose(columns, text_pair_column, (), where, "--text-pair-column")
    else:
        usual = [name for name in _PAIR_COLUMNS.get(text_column, ()) if name in columns]
        text_pair_column = usual[0] if usual else None
    return LabelledText(
        source=str(path),
        texts=_texts(rows, text_column, where),
        pairs=None if text_pair_column is None else _texts(rows, text_pair_column, where),
        labels=_labels(rows, label_column, where),
        text_column=text_column,
        text_pair_column=text_pair_column,
        label_column=label_column,
    )


def _load(path: Path, where: str) -> Any:
    # Imported here: `datasets` takes seconds, and `--help` should not.
    from datasets import Dataset

    if path.is_dir():
        raise DataError(f"{where}: is a directory; give a file")
    if not path.is_file():
        raise DataError(f"{where}: no such file")
    if path.stat().st_size == 0:
        raise DataError(f"{where}: the file is empty")
    if path.suffix.lower() not in _LOADERS:
        raise DataError(
            f"{where}: unknown file type {path.suffix!r}; use {', '.join(sorted(_LOADERS))}"
        )
    loader, options = _LOADERS[path.suffix.lower()]
    readers = {"csv": Dataset.from_csv, "json": Dataset.from_json, "parquet": Dataset.from_parquet}
    try:
        with tempfile.TemporaryDirectory() as cache, _quiet_datasets():
            return readers[loader](str(path), cache_dir=cache, keep_in_memory=True, **options)
    except Exception as error:  # `datasets` wraps what its readers raise in types of its own
        if "corresponds to no data" in str(error):
            raise DataError(f"{where}: the file has no examples") from error
        cause = error.__cause__ or error
        lines = str(cause).strip().splitlines()
        reason = lines[0] if lines else type(cause).__name__
        if isinstance(cause, Warning):
            reason = "rows have more fields than the header; put texts with commas in quotes"
        if isinstance(cause, UnicodeDecodeError):
            reason += "; save the file as UTF-8"
        raise DataError(f"{where}: cannot be read as {loader} ({reason})") from error


@contextmanager
def _quiet_datasets() -> Iterator[None]:
    """No bars and no log lines beside our own error, and no row that is cut to fit the header."""
    from datasets.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="Length of header or names")
            yield
    finally:
        logging.enable_progress_bar()
        logging.set_verbosity(verbosity)


def _choose(
    columns: Sequence[str], asked: str | None, usual: Sequence[str], where: str, flag: str
) -> str:
    wanted = [asked] if asked is not None else list(usual)
    for name in wanted:
        if name in columns:
            return name
    expected = f"column {wanted[0]!r}" if len(wanted) == 1 else f"one of {', '.join(wanted)}"
    found = textwrap.shorten(", ".join(columns), 200)  # a first line that is text can be long
    raise DataError(f"{where}: expected {expected}, the file has {found}; name it with {flag}")


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
        return [names[value] for value in values]
    return list(values)


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
