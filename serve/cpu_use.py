"""How much of this process's cores others use."""

import os
import time
from dataclasses import dataclass

import psutil

__all__ = ["CpuUse", "cores_of_others"]

# "guest" is counted in "user" already; "steal" is time that other virtual machines took.
_BUSY = ("user", "nice", "system", "irq", "softirq", "steal")
# The kernel counts in hundredths of a second: in less time a cell's share is guesswork.
_LEAST_SECONDS = 0.5


@dataclass(frozen=True)
class CpuUse:
    """Seconds up to one moment.

    Attributes:
        clock_s: of a clock.
        busy_s: that the cores of this process's affinity were busy, whoever used them.
        own_s: that this process used.
        cores: of the affinity.
    """

    clock_s: float
    busy_s: float
    own_s: float
    cores: int

    @classmethod
    def now(cls) -> "CpuUse":
        """Read the counters."""
        all_cores = psutil.cpu_times(percpu=True)
        usable = list(range(len(all_cores)))
        if hasattr(os, "sched_getaffinity"):
            usable = [core for core in os.sched_getaffinity(0) if core < len(all_cores)]
        busy_s = sum(getattr(all_cores[core], name, 0.0) for core in usable for name in _BUSY)
        return cls(time.monotonic(), busy_s, time.process_time(), len(usable))


def cores_of_others(before: CpuUse, after: CpuUse) -> float | None:
    """Cores that others kept busy between two moments, on average; None if that is too short."""
    seconds = after.clock_s - before.clock_s
    if seconds < _LEAST_SECONDS:
        return None
    others_s = (after.busy_s - before.busy_s) - (after.own_s - before.own_s)
    return max(0.0, others_s / seconds)
