"""The section on what a benchmark ran on, and with what."""

from collections.abc import Sequence

from pipeline.artifacts.benchmark import Benchmark
from pipeline.report.document import Block, Section, Table
from pipeline.report.sources import Source
from pipeline.report.text import number

__all__ = ["environment_section"]


def environment_section(sources: Sequence[Source]) -> Section:
    """The machine, the versions and the hashes of every file."""
    blocks: list[Block] = []
    for source in sources:
        table = Table(["what", "value"], _facts(source.benchmark), numeric_from=2)
        blocks += [Section(f"Environment{source.suffix}", [table])] if source.label else [table]
    return Section("Environment", blocks)


def _facts(benchmark: Benchmark) -> list[list[str]]:
    machine, processor = benchmark.machine, benchmark.machine.processor
    threads = dict.fromkeys(measured.cell.threads for measured in benchmark.cells)
    facts = {
        "processor": f"{machine.cpu}, {machine.physical_cores or 'unknown'} physical and "
        f"{machine.logical_cores} logical cores, {machine.usable_cores} usable by the process",
        "vector extensions": ", ".join(machine.instruction_sets) or "unknown",
        "clock": _known(processor.clock_mhz, "MHz at the start"),
        "largest clock": _known(processor.largest_clock_mhz, "MHz"),
        "governor of the clock": processor.governor or "unknown",
        "affinity": "unknown"
        if processor.affinity is None
        else f"logical cores {', '.join(map(str, processor.affinity))}",
        "CPU quota": "none"
        if processor.quota_cores is None
        else f"{number(processor.quota_cores, 2)} cores",
        "memory": _gib(machine.memory_bytes),
        "memory limit": "none"
        if processor.memory_limit_bytes is None
        else _gib(processor.memory_limit_bytes),
        "virtual machine": {None: "unknown", True: "yes", False: "no"}[processor.virtual],
        "energy meter": processor.energy_meter or "none",
        "load average at the start": _known(machine.load_average, "", digits=2),
        "system": f"{machine.os}, Python {machine.python}",
        "threads": ", ".join(map(str, threads)),
        "versions": ", ".join(f"{name} {version}" for name, version in benchmark.versions.items()),
        "seed": str(benchmark.settings.get("seed", "unknown")),
        "finished": benchmark.created,
    }
    rows = [[name, value] for name, value in facts.items()]
    for model in benchmark.models:
        rows.append([f"source of {model.name}", model.source])
        rows.append([f"SHA-256 of {model.name}", model.model_sha256 or "no ONNX file"])
    return rows


def _known(value: float | None, unit: str, *, digits: int = 0) -> str:
    return "unknown" if value is None else f"{number(value, digits)} {unit}".rstrip()


def _gib(size_bytes: int) -> str:
    return f"{number(size_bytes / 2**30, 1)} GiB"
