"""Rows of csv, tsv, json, jsonl and parquet files, read through `datasets`."""

import csv
import tempfile
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.errors import DataError

__all__ = ["check_file", "choose_column", "load_rows"]

# pandas reads "NA", "null" and "None" as missing, which are words and class names here; and a first
# column without a name as an index, where a comma without quotes is the likelier cause.
_CSV = {"keep_default_na": False, "na_values": ["", "nan", "NaN"], "index_col": False}
_LOADERS: dict[str, tuple[str, dict[str, Any]]] = {
    ".csv": ("csv", _CSV),
    # Quotes mean nothing in tsv: a text that starts with one would swallow the rows after it.
    ".tsv": ("csv", {**_CSV, "sep": "\t", "quoting": csv.QUOTE_NONE}),
    ".json": ("json", {}),
    ".jsonl": ("json", {}),
    ".parquet": ("parquet", {}),
}


def check_file(path: Path, where: str) -> None:
    """Check that a file is there and not empty.

    Raises:
        DataError: it is not, or is a directory.
    """
    if path.is_dir():
        raise DataError(f"{where}: is a directory; give a file")
    if not path.is_file():
        raise DataError(f"{where}: no such file")
    if path.stat().st_size == 0:
        raise DataError(f"{where}: the file is empty")


def load_rows(path: Path, where: str) -> Any:
    """The rows of a file, as a `datasets.Dataset` with at least one row.

    Args:
        path: a .csv, .tsv, .json, .jsonl or .parquet file.
        where: the flag and the file, for messages.

    Raises:
        DataError: the file is missing, empty or malformed.
    """
    # Imported here: `datasets` takes seconds, and `--help` should not.
    from datasets import Dataset

    check_file(path, where)
    if path.suffix.lower() not in _LOADERS:
        raise DataError(
            f"{where}: unknown file type {path.suffix!r}; use {', '.join(sorted(_LOADERS))}"
        )
    loader, options = _LOADERS[path.suffix.lower()]
    readers = {"csv": Dataset.from_csv, "json": Dataset.from_json, "parquet": Dataset.from_parquet}
    try:
        with tempfile.TemporaryDirectory() as cache, _quiet_datasets():
            rows = readers[loader](str(path), cache_dir=cache, keep_in_memory=True, **options)
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
    if len(rows) == 0:
        raise DataError(f"{where}: the file has no examples")
    return rows


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


def choose_column(
    columns: Sequence[str], asked: str | None, usual: Sequence[str], where: str, flag: str
) -> str:
    """The column that was asked for, else the first of the usual names that is there.

    Raises:
        DataError: there is none.
    """
    wanted = [asked] if asked is not None else list(usual)
    for name in wanted:
        if name in columns:
            return name
    expected = f"column {wanted[0]!r}" if len(wanted) == 1 else f"one of {', '.join(wanted)}"
    found = textwrap.shorten(", ".join(columns), 200)  # a first line that is text can be long
    raise DataError(f"{where}: expected {expected}, the file has {found}; name it with {flag}")
