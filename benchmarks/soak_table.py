"""The report of benchmarks/soak.py as Markdown."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.http_load import Tally
from benchmarks.soak_actors import Sample
from benchmarks.table_head import write_lines
from pipeline.markdown import markdown_table

if TYPE_CHECKING:
    from benchmarks.soak import Soak

_MINUTE_S = 60.0


def write_table(done: "Soak", facts: Mapping[str, Any], path: Path) -> None:
    """Write the report.

    Args:
        done: what became of it.
        facts: heading -> JSON value.
        path: the Markdown file.
    """
    write_lines(_report(done, facts), path)


def slope_bytes_per_minute(samples: Sequence[Sample]) -> float:
    """Growth of memory, the least-squares line through the samples."""
    minutes = [sample.time_s / _MINUTE_S for sample in samples]
    return float(np.polyfit(minutes, [sample.rss_bytes for sample in samples], 1)[0])


def after_warm_up(samples: Sequence[Sample]) -> Sequence[Sample]:
    """Without the first minute, or the first third of less than three."""
    return samples[min(int(_MINUTE_S), len(samples) // 3) :]


def _report(done: "Soak", facts: Mapping[str, Any]) -> Iterator[str]:
    yield "# A server under everything at once"
    yield ""
    yield "Written by `python -m benchmarks.soak`."
    for name, value in facts.items():
        yield ""
        yield f"{name.capitalize()}: {json.dumps(value)}"
    yield ""
    yield "## Requests"
    yield ""
    tallies = {"steady": done.steady, "changing": done.changing}
    statuses = sorted(set().union(*(tally.statuses for tally in tallies.values())))
    headers = ["model", *map(str, statuses), "lost", "doubled or wrong", "largest difference"]
    yield markdown_table(
        headers, [_requests(name, tallies[name], statuses, done.end) for name in tallies]
    )
    yield ""
    yield (
        f"Lost: without an answer, although the server had not been told to stop. "
        f"{done.vanished:,} clients vanished. What was no request got "
        f"{_counts(done.rubbish)}. The changing model: {_counts(done.changes)}. Told to stop under "
        f"load, the server ended with exit code {done.exit_code}; {done.tracebacks} tracebacks in "
        "its log."
    )
    yield ""
    yield "## Minute by minute"
    yield ""
    yield markdown_table(
        ["minute", "answers", "p50, ms", "p99, ms", "health check, longest, ms", "memory, MB"],
        list(_minutes(done)),
    )
    yield ""
    memory = [sample.rss_bytes for sample in done.samples]
    warm = after_warm_up(done.samples)
    yield (
        f"Memory: {memory[0] / 1e6:.1f} MB at the start, {warm[0].rss_bytes / 1e6:.1f} after the "
        f"warm-up, {max(memory) / 1e6:.1f} at most, {memory[-1] / 1e6:.1f} at the end; "
        f"{slope_bytes_per_minute(warm) / 1e6:+.2f} MB a minute after the warm-up."
    )


def _requests(name: str, tally: Tally, statuses: Sequence[int], end: float) -> list[str]:
    counts = [f"{tally.statuses[status]:,}" for status in statuses]
    lost = sum(time < end for time in tally.unanswered)
    return [
        *(name, *counts, f"{lost:,}", f"{len(tally.wrong):,}"),
        f"{tally.largest_difference:.2g}",
    ]


def _counts(counts: Mapping[Any, int]) -> str:
    return ", ".join(f"{name} ({count:,} times)" for name, count in sorted(counts.items()))


def _minutes(done: "Soak") -> Iterator[list[str]]:
    last = done.samples[-1].time_s
    for number in range(math.ceil((last - done.start) / _MINUTE_S)):
        since = done.start + number * _MINUTE_S
        until = since + _MINUTE_S
        samples = [sample for sample in done.samples if since <= sample.time_s < until]
        if not samples:
            continue
        yield [
            str(number + 1),
            f"{sum(since <= came < until for came, _ in done.steady.times):,}",
            f"{1e3 * done.steady.seconds(0.5, since=since, until=until):.1f}",
            f"{1e3 * done.steady.seconds(0.99, since=since, until=until):.1f}",
            f"{1e3 * max(sample.health_s for sample in samples):.1f}",
            f"{samples[-1].rss_bytes / 1e6:.1f}",
        ]
