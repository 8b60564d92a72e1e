"""Outputs are complete or absent, whatever ends the work on them."""

import errno
import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import save_file

from pipeline.artifacts.files import (
    directory_size_bytes,
    disk_errors,
    read_json,
    sha256_file,
    staged_directory,
    staged_file,
)
from pipeline.errors import ArtifactError, ConfigurationError, MachineError


def test_a_directory_appears_only_when_it_is_complete(tmp_path):
    target = tmp_path / "new" / "run"
    with staged_directory(target) as directory:
        (directory / "a.txt").write_text("a")
        assert not target.exists()
    assert [path.name for path in target.iterdir()] == ["a.txt"]
    assert [path.name for path in target.parent.iterdir()] == ["run"]


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt(), SystemExit(1)])
def test_whatever_ends_the_work_leaves_nothing(tmp_path, error):
    with pytest.raises(type(error)), staged_directory(tmp_path / "run") as directory:
        (directory / "sub").mkdir()
        (directory / "sub" / "a.txt").write_text("a")
        raise error
    with pytest.raises(type(error)), staged_file(tmp_path / "file") as path:
        path.write_text("half")
        raise error
    assert list(tmp_path.iterdir()) == []


def test_a_file_keeps_its_old_content_until_the_new_one_is_complete(tmp_path):
    target = tmp_path / "bench.json"
    target.write_text("old")
    with pytest.raises(ValueError, match="x"), staged_file(target) as path:
        path.write_text("half")
        raise ValueError("x")
    assert target.read_text() == "old"
    with staged_file(target) as path:
        path.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]


def test_an_empty_directory_is_taken_and_a_full_one_refused(tmp_path):
    with staged_directory(tmp_path) as directory:
        (directory / "a.txt").write_text("a")
    with (
        pytest.raises(ConfigurationError, match="exists and is not empty; choose another"),
        staged_directory(tmp_path),
    ):
        pass
    with pytest.raises(ConfigurationError), staged_directory(tmp_path / "a.txt"):
        pass
    assert (tmp_path / "a.txt").read_text() == "a"


def test_what_appeared_meanwhile_is_not_removed(tmp_path):
    target = tmp_path / "out"
    with (
        pytest.raises(ConfigurationError, match="was filled by something else meanwhile"),
        staged_directory(target),
    ):
        target.mkdir()
        (target / "theirs.txt").write_text("theirs")
    assert (target / "theirs.txt").read_text() == "theirs"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_overwrite_replaces_the_whole_directory(tmp_path):
    target = tmp_path / "data"
    target.mkdir()
    (target / "old.txt").write_text("old")
    with staged_directory(target, overwrite=True) as directory:
        (directory / "new.txt").write_text("new")
    assert [path.name for path in target.iterdir()] == ["new.txt"]


def test_permissions_follow_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        with staged_directory(tmp_path / "run") as directory:
            # safetensors and mkdtemp write for the owner alone
            save_file({"a": np.zeros(2)}, str(directory / "a.safetensors"))
            (directory / "sub").mkdir(mode=0o700)
        with staged_file(tmp_path / "b.safetensors") as path:
            save_file({"a": np.zeros(2)}, str(path))
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.rglob("*")}
    assert modes == {"run": 0o750, "sub": 0o750, "a.safetensors": 0o640, "b.safetensors": 0o640}


# Python ignores SIGXFSZ, so beyond the limit a write fails as it does on a full disk.
FULL_DISK = """
import resource, sys
from pathlib import Path
import numpy as np
from pipeline.artifacts.files import staged_directory, staged_file
from pipeline.artifacts.masks import write_masks
from pipeline.errors import MachineError

resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
for stage in (staged_directory, staged_file):
    try:
        with stage(Path(sys.argv[1])) as scratch:
            (scratch / "a" if scratch.is_dir() else scratch).write_bytes(bytes(5000))
    except MachineError as error:
        print(error)
"""


def test_a_disk_that_takes_no_more_leaves_nothing_and_says_so(tmp_path):
    target = tmp_path / "run"
    command = [sys.executable, "-c", FULL_DISK, str(target)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    line = f"no space left to write {target}; free some disk space or choose another output"
    assert result.stdout.splitlines() == [line, line]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "no space left to write out"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "no space left to write out"),
        # what safetensors and torch.save raise on a full disk
        (RuntimeError("I/O error: No space left on device (os error 28)"), "no space left"),
        (RuntimeError("[enforce fail] . unexpected pos 576 vs 534"), "no space left to write out"),
        (PermissionError(errno.EACCES, "Permission denied", "x/y"), "not allowed to write x/y"),
        (OSError(errno.EROFS, "Read-only file system"), "not allowed to write out"),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory", "f"), "cannot write out: f: Not a"),
    ],
)
def test_errors_of_the_disk_become_one_line(tmp_path, error, message):
    with pytest.raises(MachineError, match=message), disk_errors("out"):
        raise error


def test_other_errors_pass_as_they_are():
    with pytest.raises(RuntimeError, match="else"), disk_errors("out"):
        raise RuntimeError("something else")
    with pytest.raises(FileNotFoundError), disk_errors("out"):
        raise FileNotFoundError(errno.ENOENT, "No such file", "x")


def test_a_file_where_a_directory_is_wanted(tmp_path):
    (tmp_path / "file").write_text("x")
    for stage in (staged_directory, staged_file):
        with (
            pytest.raises(MachineError, match=r"file: (Not a directory|File exists)"),
            stage(tmp_path / "file" / "run"),
        ):
            pass


def test_the_hash_is_that_of_the_bytes(tmp_path):
    content = bytes(range(256)) * 9000
    (tmp_path / "a").write_bytes(content)
    assert sha256_file(tmp_path / "a") == hashlib.sha256(content).hexdigest()


def test_the_size_of_a_directory_is_that_of_all_files_below_it(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "a").write_bytes(bytes(10))
    (tmp_path / "sub" / "b").write_bytes(bytes(32))
    assert directory_size_bytes(tmp_path) == 42


def read(path):
    return read_json(path, kind="smp-run", schema_version=2)


def test_a_file_of_this_or_an_older_schema_is_read(tmp_path):
    path = tmp_path / "a.json"
    for version in (1, 2):
        path.write_text(f'{{"kind": "smp-run", "schema_version": {version}, "x": [1]}}')
        assert read(path)["x"] == [1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "corrupt"),
        (b'{"kind": "smp-run"', "corrupt"),
        (b'"\xff"', "corrupt"),
        (b"[" * 100_000, "corrupt"),
        (b"1" * 5000, "corrupt"),
        (b"[]", "expected a file of kind 'smp-run', got 'list'"),
        (b"{}", "expected a file of kind 'smp-run', got None"),
        (b'{"kind": "smp-model", "schema_version": 1}', "got 'smp-model'"),
        (b'{"kind": "smp-run"}', "schema_version must be a positive integer, got None"),
        (b'{"kind": "smp-run", "schema_version": true}', "got True"),
        (b'{"kind": "smp-run", "schema_version": 0}', "got 0"),
        (b'{"kind": "smp-run", "schema_version": "1"}', "got '1'"),
        (b'{"kind": "smp-run", "schema_version": 3}', "reads up to 2; upgrade smp-pipeline"),
    ],
)
def test_what_is_no_such_file_is_refused(tmp_path, content, message):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=message) as error:
        read(path)
    assert str(path) in str(error.value)


def test_a_missing_file_and_a_directory_are_refused(tmp_path):
    with pytest.raises(ArtifactError, match=r"nope.json is missing; give"):
        read(tmp_path / "nope.json")
    with pytest.raises(ArtifactError, match="is not a file"):
        read(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(ArtifactError, match="is not a file"):
        read(tmp_path / "file" / "manifest.json")
