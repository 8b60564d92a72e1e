"""What the control group of this process leaves to it; both versions of control groups."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

__all__ = ["memory_limit_bytes", "quota_cores"]

_SELF = Path("/proc/self/cgroup")
_ROOT = Path("/sys/fs/cgroup")
# Version 1 says "no limit" with the largest multiple of a page that fits into 63 bits.
_NO_LIMIT_BYTES = 2**62


def quota_cores() -> float | None:
    """The smallest CPU quota of the control group and its parents, in cores; None without one."""
    quotas = []
    for directory in _directories("cpu"):
        with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
            if (directory / "cpu.max").exists():
                quota, period = (directory / "cpu.max").read_text().split()
            else:
                quota = (directory / "cpu.cfs_quota_us").read_text().strip()
                period = (directory / "cpu.cfs_period_us").read_text()
            if quota not in ("max", "-1"):
                quotas.append(int(quota) / int(period))
    return min((quota for quota in quotas if quota > 0), default=None)


def memory_limit_bytes() -> int | None:
    """The smallest memory limit of the control group and its parents; None without one."""
    limits = []
    for directory in _directories("memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            with contextlib.suppress(OSError, ValueError):  # "max" is no number
                limits.append(int((directory / name).read_text()))
    return min((limit for limit in limits if limit < _NO_LIMIT_BYTES), default=None)


def _directories(controller: str) -> Iterator[Path]:
    """The groups that bound this process, innermost first.

    Version 2 has one tree for all controllers, version 1 one each; a machine may have both.
    """
    try:
        entries = _SELF.read_text().splitlines()
    except OSError:
        return
    for entry in entries:
        _, _, rest = entry.partition(":")
        controllers, _, group = rest.partition(":")
        if controllers and controller not in controllers.split(","):
            continue
        root = _ROOT / controller if controllers else _ROOT
        innermost = root / group.lstrip("/")
        for directory in (innermost, *innermost.parents):
            if not directory.is_relative_to(root):
                break
            yield directory
