"""A corpus as text, a text a line, read in batches so that it may be larger than memory."""

from collections.abc import Callable, Iterator
from pathlib import Path

from pipeline.errors import DataError

__all__ = ["Corpus"]

_BATCH_BYTES = 1 << 20
# A longer line is no text but a file in another format.
_LARGEST_LINE_BYTES = 1 << 20
_BYTE_ORDER_MARK = "\ufeff"


class Corpus:
    """A UTF-8 file with a text a line; empty lines are left out.

    Args:
        path: the file that ``--prune-vocabulary`` names.

    Raises:
        DataError: there is no such file, or nothing in it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._where = f"--prune-vocabulary {path}"
        if path.is_dir():
            raise DataError(f"{self._where}: is a directory; give a text file, a text a line")
        if not path.is_file():
            raise DataError(f"{self._where}: no such file; give a text file, a text a line")
        self._size_bytes = path.stat().st_size

    def batches(self, progress: Callable[[str], None]) -> Iterator[list[str]]:
        """The texts in order, about a megabyte at a time.

        Args:
            progress: is told how far it got, before each batch but the first.

        Raises:
            DataError: the file cannot be read, is not UTF-8, has no text, or no lines.
        """
        batch: list[str] = []
        batch_bytes = read_bytes = 0
        empty = True
        for line, text in self._lines():
            read_bytes += len(line)
            batch_bytes += len(line)
            if not text.strip():
                continue
            batch.append(text)
            if batch_bytes >= _BATCH_BYTES:
                yield batch
                progress(f"{read_bytes / max(self._size_bytes, read_bytes):.0%} of {self.path}")
                batch, batch_bytes, empty = [], 0, False
        if batch:
            yield batch
        elif empty:
            raise DataError(
                f"{self._where}: has no texts; give a text a line of the kind that the model "
                "will see"
            )

    def _lines(self) -> Iterator[tuple[bytes, str]]:
        """Each line as it is in the file, and its text."""
        try:
            with self.path.open("rb") as file:
                number = 0
                while line := file.readline(_LARGEST_LINE_BYTES + 1):
                    number += 1
                    if len(line) > _LARGEST_LINE_BYTES:
                        raise DataError(
                            f"{self._where}: line {number} has more than "
                            f"{_LARGEST_LINE_BYTES:,} bytes; give a text a line"
                        )
                    text = line.decode("utf-8").rstrip("\r\n")
                    yield line, text.removeprefix(_BYTE_ORDER_MARK) if number == 1 else text
        except UnicodeDecodeError as error:
            raise DataError(
                f"{self._where}: line {number} is not UTF-8 ({error.reason}); save the file as "
                "UTF-8"
            ) from error
        except OSError as error:
            raise DataError(
                f"{self._where}: cannot be read ({error.strerror}); give a readable file"
            ) from error
