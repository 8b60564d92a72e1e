"""What a model directory takes on disk, plain and zipped."""

import io
import zipfile
from pathlib import Path

from pipeline.artifacts.benchmark import SizeOnDisk
from pipeline.artifacts.exported import DATA_FILE, MODEL_FILE
from pipeline.artifacts.files import directory_size_bytes

__all__ = ["measure_size"]


class _ByteCounter(io.RawIOBase):
    """A stream that counts what is written to it and keeps nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self.count += len(data)
        return len(data)


def measure_size(directory: Path) -> SizeOnDisk:
    """Sizes of a model directory; the zip file is only counted, not written."""
    counter = _ByteCounter()
    with zipfile.ZipFile(counter, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(directory.rglob("*")):
            if path.is_file():
                archive.write(path, path.relative_to(directory))
    graph_files = [directory / MODEL_FILE, directory / DATA_FILE]
    return SizeOnDisk(
        model_bytes=sum(path.stat().st_size for path in graph_files if path.is_file()),
        directory_bytes=directory_size_bytes(directory),
        zipped_bytes=counter.count,
    )
