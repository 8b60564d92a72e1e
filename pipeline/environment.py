"""What a result was made with: package versions, and which of several processes this is."""

import os
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

from pipeline import __version__

__all__ = ["is_main_process", "package_versions"]


def is_main_process() -> bool:
    """Whether this is the only process, or the first of those that torchrun or accelerate began."""
    return int(os.environ.get("RANK", "0")) == 0


def package_versions(packages: Sequence[str]) -> dict[str, str]:
    """Package -> installed version, of those that are installed; ours and Python's among them."""
    versions = {"smp-pipeline": __version__, "python": platform.python_version()}
    for name in packages:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions
