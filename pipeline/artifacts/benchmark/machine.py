"""What a benchmark ran on."""

from dataclasses import dataclass

__all__ = [
    "Machine",
    "Processor",
]


@dataclass(frozen=True)
class Processor:
    """What decides a processor's speed and can change between two runs.

    Attributes:
        governor: of the clock, as Linux names it; None where the system does not tell.
        clock_mhz: of the usable cores at the start, the mean; None likewise.
        largest_clock_mhz: what the processor may reach; None likewise.
        affinity: the logical cores that the process may run on; None where there is no such thing.
        quota_cores: CPU quota of the control group; None without one.
        memory_limit_bytes: memory limit of the control group; None without one.
        virtual: runs in a virtual machine; None where that is unknown.
        energy_meter: where energy is read; None where the machine has none that may be read.
    """

    governor: str | None
    clock_mhz: float | None
    largest_clock_mhz: float | None
    affinity: tuple[int, ...] | None
    quota_cores: float | None
    memory_limit_bytes: int | None
    virtual: bool | None
    energy_meter: str | None


@dataclass(frozen=True)
class Machine:
    """What the benchmark ran on.

    Attributes:
        cpu: the processor's name.
        instruction_sets: the vector extensions that the operating system reports, if it does.
        physical_cores: of the machine, None if unknown.
        logical_cores: of the machine.
        usable_cores: logical cores that affinity and cgroup leave to the process.
        memory_bytes: of the machine.
        load_average: over the last minute before the start, None where there is none.
        os: name and version.
        python: version.
        processor: what can change between two runs.
    """

    cpu: str
    instruction_sets: tuple[str, ...]
    physical_cores: int | None
    logical_cores: int
    usable_cores: int
    memory_bytes: int
    load_average: float | None
    os: str
    python: str
    processor: Processor
