"""What a result was made with: package versions and the machine. Nothing is sent anywhere."""

import os
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pipeline import __version__

__all__ = ["cpu_count", "hardware", "is_main_process", "package_versions"]


def is_main_process() -> bool:
    """Whether this is the only process, or the first of those that torchrun or accelerate began."""
    return int(os.environ.get("RANK", "0")) == 0


def package_versions(packages: Sequence[str]) -> dict[str, str]:
    """Package -> installed version, of those that are installed; ours and Python's among them."""
    versions = {"smp-pipeline": __version__, "python": platform.python_version()}
    for name in packages:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def hardware() -> dict[str, Any]:
    """The machine: processor's name, processors that this process may use, memory in bytes."""
    return {
        "cpu": _cpu_name(),
        "cpus": cpu_count(),
        "memory_bytes": _memory_bytes(),
        "machine": platform.machine(),
        "system": platform.system(),
    }


def cpu_count() -> int:
    """Processors that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _memory_bytes() -> int:
    import psutil

    return int(psutil.virtual_memory().total)
