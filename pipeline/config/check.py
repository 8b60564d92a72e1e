"""The configuration of `smp-pipeline check`."""

from dataclasses import dataclass
from pathlib import Path

from pipeline.config.fields import check_bounds, option
from pipeline.errors import ConfigurationError

__all__ = ["CheckConfig"]

_LIMITS = "Limits"
_REPORTS = "Reports"


@dataclass(frozen=True)
class CheckConfig:
    """Which benchmark to hold against which, and how much worse it may be."""

    bench: Path = option(help="The bench.json to judge.", positional=True)
    baseline: Path = option(help="The bench.json that it must not fall behind.")
    update: bool = option(
        False, help="Judge nothing: make the benchmark the new baseline, and show what changed."
    )
    max_accuracy_drop: float = option(
        0.5,
        help="Allowed drop of the task's metric, in points (hundredths).",
        minimum=0,
        group=_LIMITS,
    )
    max_latency_ratio: float = option(
        1.10,
        help="Allowed growth of the latency ratio to the first model of the same benchmark.",
        minimum=0,
        exclusive_minimum=True,
        group=_LIMITS,
    )
    max_size_ratio: float = option(
        1.02,
        help="Allowed growth of the size on disk.",
        minimum=0,
        exclusive_minimum=True,
        group=_LIMITS,
    )
    confidence: float = option(
        0.95,
        help="Chance that a check passes where nothing has changed; a change for the worse fails "
        "only where it is beyond its limit and no chance.",
        minimum=0.5,
        maximum=0.9999,
        group=_LIMITS,
    )
    allow_unmeasured: bool = option(
        False,
        help="Pass although the machine was too unsteady to judge some latencies.",
        group=_LIMITS,
    )
    junit: Path | None = option(None, help="JUnit XML file to write.", group=_REPORTS)
    github: bool | None = option(
        None,
        help="Annotations and step summary for GitHub Actions; on there if not given.",
        group=_REPORTS,
    )

    def __post_init__(self) -> None:
        check_bounds(self)
        if self.update and self.junit is not None:
            raise ConfigurationError("--update judges nothing; leave out --junit")
