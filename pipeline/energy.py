"""The energy counters of the processor packages (RAPL), where the system lets them be read."""

from dataclasses import dataclass
from pathlib import Path

__all__ = ["EnergyMeter", "find_energy_meter"]

# Intel's and AMD's counters, as Linux shows both; see its Documentation/power/powercap.
_POWERCAP = Path("/sys/class/powercap")


@dataclass(frozen=True)
class EnergyMeter:
    """Counters of everything that the processor packages do, for whomever.

    Attributes:
        packages: directory of each package's counter.
        ranges_uj: the largest value of each, after which it begins at 0.
    """

    packages: tuple[Path, ...]
    ranges_uj: tuple[int, ...]

    @property
    def name(self) -> str:
        """What it is, for people."""
        packages = "1 package" if len(self.packages) == 1 else f"{len(self.packages)} packages"
        return f"RAPL, {packages}"

    def read_uj(self) -> tuple[int, ...]:
        """The counters now, in microjoules.

        Raises:
            OSError: they may no longer be read.
        """
        return tuple(_number(package / "energy_uj") for package in self.packages)

    def joules_between(self, before_uj: tuple[int, ...], after_uj: tuple[int, ...]) -> float:
        """Energy of all packages between two readings, at most one round of a counter apart."""
        total_uj = 0
        for before, after, largest in zip(before_uj, after_uj, self.ranges_uj, strict=True):
            total_uj += after - before + (largest if after < before else 0)
        return total_uj / 1e6


def find_energy_meter() -> EnergyMeter | None:
    """The meter of this machine; None where it has none, or only the administrator may read it."""
    packages, ranges_uj = [], []
    try:
        # A zone within a package (cores, memory) has two numbers: intel-rapl:0:1.
        for zone in sorted(_POWERCAP.glob("intel-rapl:*")):
            if (zone / "name").read_text().startswith("package"):
                _number(zone / "energy_uj")
                packages.append(zone)
                ranges_uj.append(_number(zone / "max_energy_range_uj"))
    except (OSError, ValueError):
        return None
    return EnergyMeter(tuple(packages), tuple(ranges_uj)) if packages else None


def _number(path: Path) -> int:
    return int(path.read_text())
