"""The configuration of `smp-pipeline bench`."""

from dataclasses import dataclass
from pathlib import Path

from pipeline.config.fields import check_bounds, option
from pipeline.errors import ConfigurationError

__all__ = ["BenchConfig"]


@dataclass(frozen=True)
class BenchConfig:
    """Which models to measure, on what data, over which grid."""

    models: tuple[Path, ...] = option(
        help="Model directories that `export` wrote; ratios are to the first.", positional=True
    )
    validation_file: Path = option(help="Labelled texts: csv, tsv, json, jsonl or parquet.")
    output: Path = option(
        Path("bench.json"),
        help="The JSON file to write; a Markdown report and a plot go beside it.",
    )
    text_column: str | None = option(None, help="Column of the text; the model's if not given.")
    text_pair_column: str | None = option(
        None, help="Column of the second text; the model's if not given."
    )
    label_column: str | None = option(None, help="Column of the label; the model's if not given.")
    max_samples: int | None = option(
        None, help="Use the first so many examples; all if not given.", minimum=1
    )
    batch_sizes: tuple[int, ...] = option(
        (1, 8), help="Batch sizes of the latency grid.", minimum=1
    )
    sequence_lengths: tuple[int, ...] = option(
        (32, 128), help="Sequence lengths of the latency grid, in tokens.", minimum=2
    )
    repetitions: int = option(
        30, help="Timed runs of each model in each cell of the grid.", minimum=3
    )
    warmup: int = option(3, help="Runs of each model in each cell before timing.", minimum=1)
    threads: int = option(0, help="Threads of each session; 0 takes all cores.", minimum=0)
    profile: bool = option(
        False,
        help="Show the time by operator of dense and packed models too, as of engine models.",
    )
    bootstrap_samples: int = option(
        1000, help="Bootstrap samples behind each 95 % interval.", minimum=100
    )
    seed: int = option(
        0, help="Seed of the bootstrap and of the order of the timed runs.", minimum=0
    )

    def __post_init__(self) -> None:
        check_bounds(self)
        if not self.models:
            raise ConfigurationError("MODELS: give at least one model directory")
        if self.output.suffix != ".json":
            raise ConfigurationError(f"--output must end in .json, got {self.output}")
        for name in ("batch_sizes", "sequence_lengths"):
            values = getattr(self, name)
            if not values or len(set(values)) != len(values):
                flag = "--" + name.replace("_", "-")
                raise ConfigurationError(f"{flag} must be one or more different numbers")
