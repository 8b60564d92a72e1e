"""What this machine is, and how much of it the process may use."""

import contextlib
import math
import os
import platform
from collections.abc import Sequence
from pathlib import Path

import psutil

from pipeline.artifacts.benchmark import Machine, Processor
from pipeline.cgroup import memory_limit_bytes, quota_cores
from pipeline.energy import find_energy_meter

__all__ = ["describe_machine", "usable_cores"]

_CPUINFO = Path("/proc/cpuinfo")
_CPUS = Path("/sys/devices/system/cpu")

# As Linux names them: what decides how fast matrix products are, x86 first, then Arm.
_VECTOR_EXTENSIONS = (
    *("sse4_2", "avx", "avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512bw", "avx512vl"),
    *("avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16"),
    *("asimd", "asimdhp", "asimddp", "bf16", "i8mm", "sve", "sve2"),
)


def usable_cores() -> int:
    """Logical cores that the process's affinity and its control group leave to it, at least 1."""
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    quota = quota_cores()
    return cores if quota is None else max(1, min(cores, math.floor(quota)))


def describe_machine() -> Machine:
    """Describe this machine; the load average is that of the moment."""
    cpu, flags = _cpu()
    return Machine(
        cpu=cpu,
        instruction_sets=tuple(name for name in _VECTOR_EXTENSIONS if name in flags),
        physical_cores=psutil.cpu_count(logical=False),
        logical_cores=psutil.cpu_count() or 1,
        usable_cores=usable_cores(),
        memory_bytes=psutil.virtual_memory().total,
        load_average=round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        os=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        processor=_processor(flags),
    )


def _processor(flags: frozenset[str]) -> Processor:
    affinity = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    cores = range(os.cpu_count() or 1) if affinity is None else affinity
    meter = find_energy_meter()
    return Processor(
        governor=_governor(cores),
        clock_mhz=_clock_mhz(cores),
        largest_clock_mhz=_largest_clock_mhz(cores),
        affinity=None if affinity is None else tuple(affinity),
        quota_cores=quota_cores(),
        memory_limit_bytes=memory_limit_bytes(),
        virtual="hypervisor" in flags if flags and _is_x86() else None,
        energy_meter=None if meter is None else meter.name,
    )


def _is_x86() -> bool:
    return platform.machine().lower() in ("x86_64", "amd64", "i686")


def _governor(cores: Sequence[int]) -> str | None:
    """The governor, or all of them where the cores have several."""
    names = set()
    for core in cores:
        with contextlib.suppress(OSError):
            names.add((_CPUS / f"cpu{core}" / "cpufreq" / "scaling_governor").read_text().strip())
    return ", ".join(sorted(names)) or None


def _clock_mhz(cores: Sequence[int]) -> float | None:
    """The mean clock of the cores: of the clock's driver, else of /proc/cpuinfo."""
    clocks = _clocks_mhz(cores, "scaling_cur_freq") or _cpuinfo_clocks_mhz(cores)
    return round(sum(clocks) / len(clocks), 1) if clocks else None


def _largest_clock_mhz(cores: Sequence[int]) -> float | None:
    return max(_clocks_mhz(cores, "cpuinfo_max_freq"), default=None)


def _clocks_mhz(cores: Sequence[int], name: str) -> list[float]:
    clocks = []
    for core in cores:
        with contextlib.suppress(OSError, ValueError):
            clocks.append(int((_CPUS / f"cpu{core}" / "cpufreq" / name).read_text()) / 1000.0)
    return clocks


def _cpuinfo_clocks_mhz(cores: Sequence[int]) -> list[float]:
    clocks, core = [], -1
    for key, value in _cpuinfo():
        with contextlib.suppress(ValueError):
            if key == "processor":
                core = int(value)
            elif key == "cpu MHz" and core in cores:
                clocks.append(float(value))
    return clocks


def _cpu() -> tuple[str, frozenset[str]]:
    """The processor's name, and the feature flags that Linux reports."""
    name = platform.processor() or platform.machine()
    flags: frozenset[str] = frozenset()
    for key, value in _cpuinfo():
        if key == "model name":
            name = value
        if key in ("flags", "Features"):
            flags = frozenset(value.split())
    return name, flags


def _cpuinfo() -> list[tuple[str, str]]:
    try:
        lines = _CPUINFO.read_text().splitlines()
    except OSError:
        return []
    pairs = (line.partition(":") for line in lines)
    return [(key.strip(), value.strip()) for key, _, value in pairs]
