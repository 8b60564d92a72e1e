"""Download archives that a requirements file pins by hash, without running anything of them."""

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.artifacts.files import sha256_file
from pipeline.errors import ArtifactError, MachineError

__all__ = ["Pin", "download", "read_pins"]

_INERT_BUILD_BACKEND = Path(__file__).parent / "inert_build_backend"
_PIN = re.compile(r"(?P<name>[\w.-]+)==(?P<version>[\w.]+) --hash=sha256:(?P<sha256>[0-9a-f]{64})")


@dataclass(frozen=True)
class Pin:
    """One archive: a package's name, its version and the SHA-256 of the file."""

    name: str
    version: str
    sha256: str


def read_pins(requirements: Path) -> Mapping[str, Pin]:
    """Read a requirements file whose every line is ``name==version --hash=sha256:...``.

    Returns:
        The pins by package name.

    Raises:
        ArtifactError: a line that is none of that form, and so would not be checked.
    """
    pins = {}
    for line in requirements.read_text(encoding="utf-8").splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        match = _PIN.fullmatch(line.strip())
        if match is None:
            raise ArtifactError(
                f"{requirements}: expected 'name==version --hash=sha256:...', got {line!r}"
            )
        pins[match["name"]] = Pin(**match.groupdict())
    return pins


def download(requirements: Path, directory: Path) -> Mapping[str, Path]:
    """Download every archive of a requirements file with pip, under the user's pip settings.

    pip checks the hashes before it opens an archive; they are checked here once more, since what
    follows trusts them.

    Args:
        requirements: a file that :func:`read_pins` can read.
        directory: where the archives go; it has no other files.

    Returns:
        The archives by package name.

    Raises:
        MachineError: pip cannot download one of them.
        ArtifactError: an archive's hash is not the pinned one.
    """
    pins = read_pins(requirements)
    _pip_download(requirements, directory)
    by_hash = {sha256_file(path): path for path in sorted(directory.iterdir())}
    archives = {}
    for pin in pins.values():
        if pin.sha256 not in by_hash:
            found = ", ".join(f"{path.name} {digest}" for digest, path in by_hash.items())
            raise ArtifactError(
                f"{pin.name} {pin.version}: expected an archive with SHA-256 {pin.sha256}, got "
                f"{found or 'no file'}; check the package index that pip is configured for"
            )
        archives[pin.name] = by_hash[pin.sha256]
    return archives


def _pip_download(requirements: Path, directory: Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--require-hashes", "--no-build-isolation", "--use-pep517"]
    command += ["--dest", str(directory), "--requirement", str(requirements)]
    search_path = [str(_INERT_BUILD_BACKEND), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, search_path))}
    result = subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    if result.returncode != 0:
        lines = [line for line in result.stderr.splitlines() if line.startswith("ERROR:")]
        reason = " ".join(lines) or result.stderr.strip() or f"exit code {result.returncode}"
        raise MachineError(
            f"pip could not download what {requirements} names ({reason}); check the network and "
            "pip's settings (`pip config list`)"
        )
