"""What the files of a model take on disk, plain and zipped."""

import io
import zipfile

from pipeline.artifacts.benchmark import SizeOnDisk
from serve.layout import ModelLayout

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


def measure_size(layout: ModelLayout) -> SizeOnDisk:
    """Sizes of a model's files; the zip file is only counted, not written."""
    counter = _ByteCounter()
    # Container images may date files to 1970, which a zip file by itself refuses.
    with zipfile.ZipFile(counter, "w", zipfile.ZIP_DEFLATED, strict_timestamps=False) as archive:
        for number, path in enumerate(layout.files):
            # Files from several directories may have one name; a number makes them differ.
            archive.write(path, f"{number}/{path.name}")
    return SizeOnDisk(
        model_bytes=sum(path.stat().st_size for path in layout.graph_files),
        directory_bytes=sum(path.stat().st_size for path in layout.files),
        zipped_bytes=counter.count,
    )
