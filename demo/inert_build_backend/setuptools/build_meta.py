"""A build backend that copies a source archive's metadata and runs nothing of the archive.

`pip download` insists on the metadata of a source archive and would run its setup.py for them.
With this folder first on PYTHONPATH and --no-build-isolation pip asks here instead. The hooks are
those of PEP 517; `__legacy__` is the name that pip uses for archives without a pyproject.toml.
"""

import shutil
import sys
from email.parser import HeaderParser
from pathlib import Path

__all__ = ["__legacy__", "prepare_metadata_for_build_wheel"]

__legacy__ = sys.modules[__name__]


def prepare_metadata_for_build_wheel(
    metadata_directory: str, config_settings: object = None
) -> str:
    """Write the archive's PKG-INFO as METADATA and return the name of its dist-info folder.

    pip calls it with the unpacked archive as working directory.
    """
    source = Path("PKG-INFO")
    headers = HeaderParser().parsestr(source.read_text(encoding="utf-8"))
    name = headers["Name"].replace("-", "_")
    folder = Path(metadata_directory) / f"{name}-{headers['Version']}.dist-info"
    folder.mkdir()
    shutil.copyfile(source, folder / "METADATA")
    return folder.name
