"""Print the lower bounds of pyproject.toml as exact versions, for pip's --constraint.

    python requirements/lowest.py > constraints.txt

`make lock-lowest` resolves what else is needed, and requirements/lock.py writes it all to
requirements/lowest.txt. The tools of the extra `test` are as new as that leaves them.
"""

import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

__all__ = ["EXTRAS", "TESTED_ABOVE", "lower_bounds", "main"]

EXTRAS = ("bench", "cpu", "serve", "train", "peers")

# What is tested instead of a bound: PyPI's torch for Linux is 2 to 3 GB with CUDA's libraries, and
# 2.13.0 is the oldest that we have a build for CPUs of.
TESTED_ABOVE = {"torch": "2.13.0"}

_PROJECT = Path(__file__).parent.parent / "pyproject.toml"


def lower_bounds() -> dict[str, str]:
    """The lowest version that pyproject.toml admits of each package, by canonical name.

    Raises:
        ValueError: a requirement has no lower bound, or two of one package differ.
    """
    project = tomllib.loads(_PROJECT.read_text(encoding="utf-8"))["project"]
    wanted = list(project["dependencies"])
    for extra in EXTRAS:
        wanted += project["optional-dependencies"][extra]
    bounds: dict[str, str] = {}
    for requirement in map(Requirement, wanted):
        name = canonicalize_name(requirement.name)
        lowest = [part.version for part in requirement.specifier if part.operator in (">=", "~=")]
        if len(lowest) != 1 or Version(bounds.setdefault(name, lowest[0])) != Version(lowest[0]):
            raise ValueError(f"{requirement}: expected one lower bound, the same everywhere")
    return bounds


def main() -> int:
    """Print the constraints; returns the exit code."""
    for name, version in sorted((lower_bounds() | TESTED_ABOVE).items()):
        print(f"{name}=={version}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
