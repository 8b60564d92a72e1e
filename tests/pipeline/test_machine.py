import os
import platform
from pathlib import Path

import pytest

from pipeline import machine


@pytest.fixture
def cgroup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A control group of version 2, /outer/inner, on a machine that leaves 8 cores."""
    (tmp_path / "outer" / "inner").mkdir(parents=True)
    (tmp_path / "self").write_text("0::/outer/inner\n")
    monkeypatch.setattr(machine, "_CGROUP", tmp_path / "self")
    monkeypatch.setattr(machine, "_CGROUP_ROOT", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    return tmp_path


def test_without_a_quota_the_affinity_counts(cgroup: Path) -> None:
    assert machine.usable_cores() == 8
    (cgroup / "outer" / "inner" / "cpu.max").write_text("max 100000\n")
    assert machine.usable_cores() == 8


@pytest.mark.parametrize(("quota", "cores"), [(350000, 3), (50000, 1), (1600000, 8)])
def test_the_quota_bounds_the_cores(cgroup: Path, quota: int, cores: int) -> None:
    (cgroup / "outer" / "inner" / "cpu.max").write_text(f"{quota} 100000\n")
    assert machine.usable_cores() == cores


def test_the_tightest_quota_of_the_parents_counts(cgroup: Path) -> None:
    (cgroup / "outer" / "inner" / "cpu.max").write_text("600000 100000\n")
    (cgroup / "outer" / "cpu.max").write_text("200000 100000\n")
    assert machine.usable_cores() == 2


def test_version_one_of_control_groups(cgroup: Path) -> None:
    (cgroup / "self").write_text("4:cpu,cpuacct:/\n")
    (cgroup / "cpu").mkdir()
    (cgroup / "cpu" / "cpu.cfs_quota_us").write_text("-1\n")
    (cgroup / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert machine.usable_cores() == 8
    (cgroup / "cpu" / "cpu.cfs_quota_us").write_text("400000\n")
    assert machine.usable_cores() == 4


def test_instruction_sets_are_those_that_the_system_reports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(
        "processor\t: 0\nmodel name\t: Some CPU\nflags\t\t: fpu avx2 avx512f_x fma\n"
    )
    monkeypatch.setattr(machine, "_CPUINFO", cpuinfo)
    described = machine.describe_machine()
    assert described.cpu == "Some CPU"
    assert described.instruction_sets == ("avx2", "fma")
    assert described.python == platform.python_version()
    assert 1 <= described.usable_cores <= described.logical_cores
