"""A benchmark on a terminal of 80 columns: the first cell, one row a model."""

from rich import box
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from pipeline.artifacts.benchmark import Benchmark, Estimate, ModelResult, OperatorProfile
from pipeline.report.models import operator_rows, plan_line, without_size, without_startup
from pipeline.report.overview import runs_on, warnings
from pipeline.report.text import printable, rounded

__all__ = ["benchmark_table", "print_benchmark"]

# The terminal shows operators and stages that take at least this share of a run.
_SHOWN_SHARE = 0.02
_ABSENT = "-"


def print_benchmark(benchmark: Benchmark) -> None:
    """Print the table and what a reader must know about it to stdout."""
    Console().print(benchmark_table(benchmark))


def benchmark_table(benchmark: Benchmark) -> Group:
    """One row a model; latency in the first cell."""
    task = benchmark.task
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, expand=False)
    table.add_column("model", overflow="fold", min_width=8)
    for header in ("size\nMB", "zipped\nMB", "load\nms", "peak\nMiB", "p50\nms", "p99\nms"):
        table.add_column(header, justify="right", no_wrap=True)
    table.add_column("p50 ratio\n(95 %)", justify="right", no_wrap=True)
    if task is not None:
        table.add_column(f"{task.metric}\n(95 %)", justify="right", no_wrap=True)
    for position, model in enumerate(benchmark.models):
        row = _row(model, is_first=position == 0)
        if task is not None:
            assert model.quality is not None
            row.append(_two_lines(model.quality.metrics[task.metric], 3))
        table.add_row(Text(printable(model.name)), *row)
    lines = [_caption(benchmark), *warnings(benchmark)]
    named = [(model.name, model) for model in benchmark.models]
    missing = without_size(named) + without_startup(named)
    lines += [f"{_ABSENT} (not measured) {reason}" for reason in missing]
    parts: list[Table | Text] = [table, *(Text(printable(line)) for line in lines)]
    for model in benchmark.models:
        if model.profile is not None:
            parts.append(_operator_table(model.name, model.profile))
            if model.profile.plan:
                parts.append(Text(printable(plan_line(model.profile))))
    return Group(*parts)


def _row(model: ModelResult, *, is_first: bool) -> list[str]:
    size, startup, summary = model.size, model.startup, model.timings[0].summary
    row = [_ABSENT] * 7
    if size is not None:
        row[0:2] = [*(rounded(count / 1e6) for count in (size.directory_bytes, size.zipped_bytes))]
    if startup is not None:
        row[2:4] = [f"{startup.load_ms:.0f}", f"{startup.peak_memory_bytes / 2**20:.0f}"]
    if summary is not None:
        row[4:6] = [f"{summary.p50_ms.value:.1f}", f"{summary.p99_ms:.1f}"]
        row[6] = "1" if is_first else _two_lines(summary.ratio, 2)
    return row


def _two_lines(estimate: Estimate, digits: int) -> str:
    return f"{estimate.value:.{digits}f}\n{estimate.low:.{digits}f}-{estimate.high:.{digits}f}"


def _caption(benchmark: Benchmark) -> str:
    others = len(benchmark.cells) - 1
    rest = f"; {others} more in the report" if others else ""
    quality = (
        "quality is not measured: there were no labelled texts (--validation-file)."
        if benchmark.task is None or benchmark.data is None
        else f"{benchmark.task.metric} is over {benchmark.data.rows} texts."
    )
    usual = runs_on(benchmark.models[0])
    other = [f"{m.name} on {runs_on(m)}" for m in benchmark.models if runs_on(m) != usual]
    where = "; ".join([f"on {usual}", *other])
    return (
        f"Latency: {benchmark.cells[0].cell.name}, {where}{rest}. Size is that of the whole "
        f"directory; {quality}"
    )


def _operator_table(name: str, profile: OperatorProfile) -> Table:
    """Where one model's time goes."""
    table = Table(
        title=Text(f"{printable(name)}: time by operator"),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    table.add_column("operator", overflow="fold")
    for header in ("calls", "ms a run", "share"):
        table.add_column(header, justify="right", no_wrap=True)
    for row, share in operator_rows(profile):
        if share >= _SHOWN_SHARE:
            table.add_row(*(Text(printable(cell)) for cell in row))
    return table
