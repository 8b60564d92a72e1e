import os
import platform
from pathlib import Path

import pytest

from pipeline import energy, machine


@pytest.mark.parametrize(("quota", "cores"), [(None, 8), (3.5, 3), (0.5, 1), (16.0, 8)])
def test_affinity_and_quota_bound_the_cores(
    monkeypatch: pytest.MonkeyPatch, quota: float | None, cores: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.setattr(machine, "quota_cores", lambda: quota)
    assert machine.usable_cores() == cores


@pytest.fixture
def cpuinfo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of three cores, of which 0 and 2 may be used, with files for its processor."""
    path = tmp_path / "cpuinfo"
    path.write_text(
        "".join(
            f"processor\t: {core}\nmodel name\t: Some CPU\ncpu MHz\t\t: {clock}\n"
            "flags\t\t: fpu avx2 avx512f_x fma\n\n"
            for core, clock in enumerate((2000.0, 3000.0, 2500.0))
        )
    )
    monkeypatch.setattr(machine, "_CPUINFO", path)
    monkeypatch.setattr(machine, "_CPUS", tmp_path / "cpu")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {2, 0}, raising=False)
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(energy, "_POWERCAP", tmp_path / "powercap")
    return path


def write_clock(cpus: Path, core: int, governor: str, clock_khz: str) -> None:
    directory = cpus / f"cpu{core}" / "cpufreq"
    directory.mkdir(parents=True)
    (directory / "scaling_governor").write_text(f"{governor}\n")
    (directory / "scaling_cur_freq").write_text(f"{clock_khz}\n")
    (directory / "cpuinfo_max_freq").write_text("3700000\n")


def test_instruction_sets_are_those_that_the_system_reports(cpuinfo: Path) -> None:
    described = machine.describe_machine()
    assert described.cpu == "Some CPU"
    assert described.instruction_sets == ("avx2", "fma")
    assert described.python == platform.python_version()
    assert 1 <= described.usable_cores <= 2


def test_the_processor_of_a_machine_that_tells_little(cpuinfo: Path) -> None:
    processor = machine.describe_machine().processor
    assert processor.affinity == (0, 2)
    assert processor.clock_mhz == 2250.0  # of the cores that may be used
    assert processor.virtual is False
    assert processor.governor is None
    assert processor.largest_clock_mhz is None
    assert processor.energy_meter is None


def test_clock_and_governor_are_those_of_the_usable_cores(cpuinfo: Path) -> None:
    cpus = cpuinfo.parent / "cpu"
    write_clock(cpus, 0, "performance", "3500000")
    write_clock(cpus, 1, "ondemand", "800000")
    write_clock(cpus, 2, "powersave", "1500000")
    processor = machine.describe_machine().processor
    assert processor.governor == "performance, powersave"
    assert processor.clock_mhz == 2500.0
    assert processor.largest_clock_mhz == 3700.0


def test_a_virtual_machine_is_seen_by_its_flag(cpuinfo: Path) -> None:
    cpuinfo.write_text("processor : 0\nflags : fpu hypervisor avx2\n")
    assert machine.describe_machine().processor.virtual is True


def test_without_files_nothing_is_made_up(cpuinfo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cpuinfo.unlink()
    monkeypatch.delattr(os, "sched_getaffinity")
    processor = machine.describe_machine().processor
    assert (processor.clock_mhz, processor.affinity, processor.virtual) == (None, None, None)


@pytest.mark.parametrize("content", ["", "fast", "cpu MHz : fast\nprocessor : x\nflags"])
def test_files_that_make_no_sense_are_no_error(cpuinfo: Path, content: str) -> None:
    cpuinfo.write_text(content)
    write_clock(cpuinfo.parent / "cpu", 0, "performance", "fast")
    processor = machine.describe_machine().processor
    assert processor.clock_mhz is None
    assert processor.governor == "performance"
