"""Print the exact versions in this environment of all that pyproject.toml asks for.

    .venv/bin/python requirements/lock.py > requirements/lock.txt
    .venv-lowest/bin/python requirements/lock.py lowest > requirements/lowest.txt

Walks the dependencies of the default environment (base, the extras below, and the build backend)
through the metadata of the installed packages. Left out are packages that merely happen to be
installed, a version's local part (`+cpu`: the user's pip decides which build of torch it gets),
and what only one platform needs (CUDA libraries), which pip resolves by itself.
"""

import sys
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

__all__ = ["DEFAULT_EXTRAS", "locked_versions", "main"]

DEFAULT_EXTRAS = ("bench", "cpu", "serve", "train", "peers", "test")

_PROJECT = Path(__file__).parent.parent / "pyproject.toml"
_ONE_PLATFORM_ONLY = ("cuda-", "nvidia-", "triton-")
_HEADERS = {
    "default": """\
# The default environment (make .venv): base and the extras {extras}.
# Written by requirements/lock.py from an environment that passed `make test`; not edited by hand.
""",
    "lowest": """\
# The lowest versions that pyproject.toml admits (requirements/lowest.py) of base and the extras
# {extras}, for Python 3.11. Written by `make lock-lowest`; not edited by hand.
""",
}


def locked_versions() -> dict[str, str]:
    """The versions by canonical name, in alphabetical order.

    Raises:
        PackageNotFoundError: the environment lacks a package that pyproject.toml asks for.
    """
    project = tomllib.loads(_PROJECT.read_text(encoding="utf-8"))
    wanted = [*project["build-system"]["requires"], *project["project"]["dependencies"]]
    for extra in DEFAULT_EXTRAS:
        wanted += project["project"]["optional-dependencies"][extra]
    waiting = [(Requirement(text), "") for text in wanted]
    visited: set[tuple[str, str]] = set()
    versions = {}
    while waiting:
        requirement, asked_extra = waiting.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": asked_extra}):
            continue
        name = canonicalize_name(requirement.name)
        if f"{name}-".startswith(_ONE_PLATFORM_ONLY):
            continue
        installed = distribution(name)
        versions[name] = Version(installed.version).public
        for extra in ("", *requirement.extras):
            if (name, extra) not in visited:
                visited.add((name, extra))
                waiting += [(Requirement(text), extra) for text in installed.requires or ()]
    return dict(sorted(versions.items()))


def main() -> int:
    """Print the lock file; returns the exit code."""
    try:
        versions = locked_versions()
    except PackageNotFoundError as error:
        print(f"error: {error.name} is not installed; install the extras first", file=sys.stderr)
        return 2
    header = _HEADERS["lowest" if sys.argv[1:] == ["lowest"] else "default"]
    print(header.format(extras=", ".join(DEFAULT_EXTRAS)), end="")
    print("\n".join(f"{name}=={version}" for name, version in versions.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
