"""The benchmarks of a report, and which of them can be drawn together."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.artifacts.benchmark import Benchmark, ModelResult
from pipeline.report.charts import Series

__all__ = ["Source", "gather", "same_data", "signed"]


@dataclass(frozen=True)
class Source:
    """A benchmark in a report.

    Attributes:
        label: its file's name, or path where two have the same name; empty in a report of one.
        benchmark: what the file holds.
        first_number: the number of its first model among all models of the report.
    """

    label: str
    benchmark: Benchmark
    first_number: int

    @property
    def suffix(self) -> str:
        """For titles: which file it is, where there are several."""
        return f" ({self.label})" if self.label else ""

    def series(self) -> list[tuple[Series, ModelResult]]:
        """Its models, each with its number and a name that is unique within the report."""
        return [
            (Series(self.first_number + position, model.name + self.suffix), model)
            for position, model in enumerate(self.benchmark.models)
        ]


def gather(benchmarks: Sequence[tuple[Path, Benchmark]]) -> list[Source]:
    """Number the models of several files through."""
    names = [path.name for path, _ in benchmarks]
    sources, number = [], 0
    for path, benchmark in benchmarks:
        label = path.name if names.count(path.name) == 1 else str(path)
        sources.append(Source(label if len(benchmarks) > 1 else "", benchmark, number))
        number += len(benchmark.models)
    return sources


def same_data(sources: Sequence[Source]) -> list[list[Source]]:
    """Groups of sources whose metrics can be compared: same task, examples and references."""
    groups: dict[object, list[Source]] = {}
    for source in sources:
        task, data = source.benchmark.task, source.benchmark.data
        if data is not None:
            key = (task, data.example_ids, data.references)
            groups.setdefault(key, []).append(source)
    return list(groups.values())


def signed(sources: Sequence[Source]) -> str:
    """For titles: which files a group is of; empty in a report of one."""
    labels = ", ".join(source.label for source in sources if source.label)
    return f" ({labels})" if labels else ""
