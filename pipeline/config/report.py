"""The configuration of `smp-pipeline report`."""

from dataclasses import dataclass
from pathlib import Path

from pipeline.config.fields import option
from pipeline.errors import ConfigurationError

__all__ = ["ReportConfig"]


@dataclass(frozen=True)
class ReportConfig:
    """Which benchmarks to report on, and where to."""

    bench: tuple[Path, ...] = option(
        help="One or more bench.json files; models of all of them go into one report.",
        positional=True,
    )
    output: Path = option(
        Path("report.html"), help="The HTML file to write; a Markdown file goes beside it."
    )

    def __post_init__(self) -> None:
        if not self.bench:
            raise ConfigurationError("BENCH: give at least one bench.json")
        if len({path.resolve() for path in self.bench}) < len(self.bench):
            raise ConfigurationError("BENCH: one file is given twice; give each once")
        if self.output.suffix != ".html":
            raise ConfigurationError(f"--output must end in .html, got {self.output}")
