from pathlib import Path

import pytest

from pipeline import energy


def write_zone(powercap: Path, zone: str, name: str, energy_uj: int, largest: int = 1000) -> Path:
    directory = powercap / zone
    directory.mkdir()
    (directory / "name").write_text(f"{name}\n")
    (directory / "energy_uj").write_text(f"{energy_uj}\n")
    (directory / "max_energy_range_uj").write_text(f"{largest}\n")
    return directory


@pytest.fixture
def powercap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two packages, with zones that must not be counted twice or at all."""
    monkeypatch.setattr(energy, "_POWERCAP", tmp_path)
    write_zone(tmp_path, "intel-rapl:0", "package-0", 100)
    write_zone(tmp_path, "intel-rapl:0:0", "core", 40)
    write_zone(tmp_path, "intel-rapl:1", "package-1", 900)
    write_zone(tmp_path, "intel-rapl:2", "psys", 5000)
    return tmp_path


def test_the_packages_are_read(powercap: Path) -> None:
    meter = energy.find_energy_meter()
    assert meter is not None
    assert meter.name == "RAPL, 2 packages"
    assert meter.read_uj() == (100, 900)


def test_energy_is_the_sum_of_the_packages_past_the_end_of_a_counter(powercap: Path) -> None:
    meter = energy.find_energy_meter()
    assert meter is not None
    before = meter.read_uj()
    (powercap / "intel-rapl:0" / "energy_uj").write_text("350\n")
    (powercap / "intel-rapl:1" / "energy_uj").write_text("50\n")  # over 1000
    assert meter.joules_between(before, meter.read_uj()) == pytest.approx((250 + 150) / 1e6)


def test_a_machine_without_counters_has_no_meter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(energy, "_POWERCAP", tmp_path / "absent")
    assert energy.find_energy_meter() is None


@pytest.mark.parametrize("file", ["energy_uj", "max_energy_range_uj", "name"])
def test_counters_that_may_not_be_read_are_no_meter(powercap: Path, file: str) -> None:
    (powercap / "intel-rapl:1" / file).unlink()  # root may read what others may not
    (powercap / "intel-rapl:1" / file).mkdir()
    assert energy.find_energy_meter() is None


def test_a_counter_that_is_no_number_is_no_meter(powercap: Path) -> None:
    (powercap / "intel-rapl:1" / "energy_uj").write_text("")
    assert energy.find_energy_meter() is None
