"""Files that are complete or absent: staging with an atomic rename, JSON, hashes."""

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.errors import ArtifactError, ConfigurationError, MachineError, PipelineError

__all__ = [
    "directory_size_bytes",
    "disk_errors",
    "read_json",
    "sha256_file",
    "staged_directory",
    "staged_file",
]

_CHUNK_BYTES = 1 << 20
_USES = {
    "smp-run": "a run directory, for `smp-pipeline export RUN`",
    "smp-model": "a model directory, for `smp-pipeline bench` (or --from-onnx with its model.onnx)",
    "smp-triton-repository": "a model repository, for `tritonserver --model-repository`",
    "smp-delta": "a delta, for `smp-pipeline export --from-delta`",
    "smp-benchmark": "a benchmark, for `smp-pipeline report` or `check`",
}
# How safetensors, tokenizers and torch.save report a full disk: in errors of their own.
_FULL_DISK_MESSAGES = (
    "No space left on device",
    "Disk quota exceeded",
    "File too large",
    "unexpected pos",
)


@contextmanager
def disk_errors(target: Path) -> Iterator[None]:
    """Turn what the operating system says of a full or closed disk into one line that helps."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise _full_disk(target) from error
        if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
            raise MachineError(
                f"not allowed to write {error.filename or target}; "
                "choose an output that you may write"
            ) from error
        if error.errno in (errno.ENOTDIR, errno.EEXIST, errno.EISDIR):
            raise MachineError(
                f"cannot write {target}: {error.filename or target}: {error.strerror}; "
                "choose another output"
            ) from error
        raise
    except PipelineError:
        raise
    except Exception as error:
        if any(message in str(error) for message in _FULL_DISK_MESSAGES):
            raise _full_disk(target) from error
        raise


def _full_disk(target: Path) -> MachineError:
    return MachineError(
        f"no space left to write {target}; free some disk space or choose another output"
    )


@contextmanager
def staged_directory(target: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Give a scratch directory beside ``target`` that becomes ``target`` if all goes well.

    On any exception, Ctrl-C included, the scratch directory is removed and ``target`` is what it
    was before.

    Raises:
        ConfigurationError: ``target`` is there already and is not an empty directory.
        MachineError: the disk is full or not writable.
    """
    if not overwrite and target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConfigurationError(
            f"{target} exists and is not empty; choose another --output-dir or remove it"
        )
    with disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        try:
            yield scratch
            _follow_umask(scratch)
            if overwrite and target.exists():
                shutil.rmtree(target)
            elif target.exists():
                _remove_empty(target)
            scratch.replace(target)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def _remove_empty(target: Path) -> None:
    try:
        target.rmdir()
    except OSError as error:
        raise ConfigurationError(
            f"{target} was filled by something else meanwhile; choose another --output-dir"
        ) from error


@contextmanager
def staged_file(target: Path) -> Iterator[Path]:
    """Give a scratch path beside ``target`` that replaces ``target`` if all goes well.

    Raises:
        MachineError: the disk is full or not writable.
    """
    with disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = target.with_name(f".{target.name}.{os.getpid()}")
        try:
            yield scratch
            _follow_umask(scratch)
            scratch.replace(target)
        finally:
            scratch.unlink(missing_ok=True)


def _follow_umask(written: Path) -> None:
    # mkdtemp and safetensors write for the owner alone; what is finished follows the umask.
    mask = os.umask(0)
    os.umask(mask)
    for path in (written, *written.rglob("*")):
        path.chmod((0o777 if path.is_dir() else 0o666) & ~mask)


def sha256_file(path: Path) -> str:
    """The SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def directory_size_bytes(directory: Path) -> int:
    """The sum of the sizes of all files below a directory."""
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def read_json(path: Path, *, kind: str, schema_version: int) -> Mapping[str, Any]:
    """Read one of our JSON files and check that this version of the project understands it.

    Args:
        path: the file.
        kind: what the file's ``kind`` field must say, for instance ``smp-run``.
        schema_version: the newest ``schema_version`` that the caller understands.

    Raises:
        ArtifactError: the file is missing, no JSON object, of another kind, or newer.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ArtifactError(
            f"{path} is missing; give a directory or file that smp-pipeline wrote"
        ) from error
    except (NotADirectoryError, IsADirectoryError) as error:
        raise ArtifactError(f"{path} is not a file") from error
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{path} is corrupt ({error}); write it anew") from error
    if not isinstance(content, dict) or content.get("kind") != kind:
        found = content.get("kind") if isinstance(content, dict) else type(content).__name__
        use = _USES.get(str(found))
        hint = f"; it is {use}" if use else ""
        raise ArtifactError(f"{path}: expected a file of kind {kind!r}, got {found!r}{hint}")
    version = content.get("schema_version")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise ArtifactError(f"{path}: schema_version must be a positive integer, got {version!r}")
    if version > schema_version:
        raise ArtifactError(
            f"{path} has schema version {version}, this smp-pipeline reads up to "
            f"{schema_version}; upgrade smp-pipeline"
        )
    return content
