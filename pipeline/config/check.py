"""The configuration of `smp-pipeline check`."""

from dataclasses import dataclass
from pathlib import Path

from pipeline.config.fields import check_bounds, option

__all__ = ["CheckConfig"]


@dataclass(frozen=True)
class CheckConfig:
    """Which benchmark to hold against which, and how much worse it may be."""

    bench: Path = option(help="The bench.json to judge.", positional=True)
    baseline: Path = option(help="The bench.json that it must not fall behind.")
    max_accuracy_drop: float = option(
        0.5, help="Allowed drop of the task's metric, in points (hundredths).", minimum=0
    )
    max_latency_ratio: float = option(
        1.10,
        help="Allowed growth of the latency ratio to the first model of the same benchmark.",
        minimum=0,
        exclusive_minimum=True,
    )
    max_size_ratio: float = option(
        1.02, help="Allowed growth of the size on disk.", minimum=0, exclusive_minimum=True
    )

    def __post_init__(self) -> None:
        check_bounds(self)
