from pathlib import Path

import pytest

from pipeline import cgroup


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with control groups of version 2, on which this process is in /outer/inner."""
    (tmp_path / "outer" / "inner").mkdir(parents=True)
    (tmp_path / "self").write_text("0::/outer/inner\n")
    monkeypatch.setattr(cgroup, "_SELF", tmp_path / "self")
    monkeypatch.setattr(cgroup, "_ROOT", tmp_path)
    return tmp_path


def test_no_files_no_limits(root: Path) -> None:
    assert cgroup.quota_cores() is None
    assert cgroup.memory_limit_bytes() is None
    (root / "self").unlink()
    assert cgroup.quota_cores() is None


def test_max_is_no_limit(root: Path) -> None:
    (root / "outer" / "inner" / "cpu.max").write_text("max 100000\n")
    (root / "outer" / "inner" / "memory.max").write_text("max\n")
    assert cgroup.quota_cores() is None
    assert cgroup.memory_limit_bytes() is None


def test_the_tightest_of_the_parents_counts(root: Path) -> None:
    (root / "outer" / "inner" / "cpu.max").write_text("650000 100000\n")
    (root / "outer" / "cpu.max").write_text("250000 100000\n")
    (root / "outer" / "inner" / "memory.max").write_text("4096\n")
    (root / "outer" / "memory.max").write_text("8192\n")
    assert cgroup.quota_cores() == 2.5
    assert cgroup.memory_limit_bytes() == 4096


@pytest.mark.parametrize("beside_version_two", [False, True])
def test_version_one(root: Path, beside_version_two: bool) -> None:
    entries = ["4:cpu,cpuacct:/job", "3:memory:/job", "2:cpuset:/", "1:name=systemd:/"]
    entries += ["0::/"] if beside_version_two else []
    (root / "self").write_text("\n".join(entries) + "\n")
    for controller in ("cpu", "memory"):
        (root / controller / "job").mkdir(parents=True)
    (root / "cpu" / "job" / "cpu.cfs_quota_us").write_text("-1\n")
    (root / "cpu" / "job" / "cpu.cfs_period_us").write_text("100000\n")
    (root / "memory" / "job" / "memory.limit_in_bytes").write_text("9223372036854771712\n")
    assert cgroup.quota_cores() is None
    assert cgroup.memory_limit_bytes() is None
    (root / "cpu" / "job" / "cpu.cfs_quota_us").write_text("150000\n")
    (root / "memory" / "memory.limit_in_bytes").write_text("1048576\n")
    assert cgroup.quota_cores() == 1.5
    assert cgroup.memory_limit_bytes() == 1048576


@pytest.mark.parametrize("content", ["", "many 100000", "100000 0", "100000"])
def test_what_makes_no_sense_is_no_limit(root: Path, content: str) -> None:
    (root / "outer" / "cpu.max").write_text(content)
    (root / "outer" / "memory.max").write_text("much")
    assert cgroup.quota_cores() is None
    assert cgroup.memory_limit_bytes() is None
