"""What this machine is, and how much of it the process may use."""

import math
import os
import platform
from pathlib import Path

import psutil

from pipeline.artifacts.benchmark import Machine, Processor

__all__ = ["describe_machine", "usable_cores"]

_CPUINFO = Path("/proc/cpuinfo")
_CGROUP = Path("/proc/self/cgroup")
_CGROUP_ROOT = Path("/sys/fs/cgroup")

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
    quota = _cgroup_cores()
    return cores if quota is None else max(1, min(cores, math.floor(quota)))


def _cgroup_cores() -> float | None:
    """The smallest CPU quota of the control group (version 2) and its parents, in cores."""
    try:
        entries = _CGROUP.read_text().splitlines()
    except OSError:
        return None
    group = next((line[3:].lstrip("/") for line in entries if line.startswith("0::")), None)
    if group is None:
        return _cgroup_v1_cores()
    quotas = []
    directory = _CGROUP_ROOT / group
    for candidate in (directory, *directory.parents):
        if not candidate.is_relative_to(_CGROUP_ROOT):
            break
        try:
            quota, period = (candidate / "cpu.max").read_text().split()
            if quota != "max":
                quotas.append(int(quota) / int(period))
        except (OSError, ValueError, ZeroDivisionError):
            continue
    return min(quotas, default=None)


def _cgroup_v1_cores() -> float | None:
    directory = _CGROUP_ROOT / "cpu"
    try:
        quota = int((directory / "cpu.cfs_quota_us").read_text())
        period = int((directory / "cpu.cfs_period_us").read_text())
    except (OSError, ValueError):
        return None
    return quota / period if quota > 0 and period > 0 else None


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
        processor=Processor(None, None, None, None, _cgroup_cores(), None, None, None),
    )


def _cpu() -> tuple[str, frozenset[str]]:
    """The processor's name, and the feature flags that Linux reports."""
    name = platform.processor() or platform.machine()
    flags: frozenset[str] = frozenset()
    try:
        lines = _CPUINFO.read_text().splitlines()
    except OSError:
        return name, flags
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            name = value.strip()
        if key.strip() in ("flags", "Features"):
            flags = frozenset(value.split())
    return name, flags
