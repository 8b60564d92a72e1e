"""What people read of a model's kernels and its time by operator."""

from collections import defaultdict

from rich import box
from rich.markup import escape
from rich.table import Table

from pipeline.artifacts.benchmark import Benchmark, OperatorProfile
from pipeline.markdown import markdown_table, plain

__all__ = ["operator_section", "operator_table", "plan_lines"]

# The terminal shows operators and stages that take at least this share of a run.
_SHOWN_SHARE = 0.02


def operator_section(benchmark: Benchmark) -> str:
    """The Markdown section; empty where no model was profiled."""
    profiles = [(model.name, model.profile) for model in benchmark.models if model.profile]
    if not profiles:
        return ""
    parts = ["## Time by operator"]
    for name, profile in profiles:
        rows = [[plain(cell) for cell in row] for row, _ in _operator_rows(profile)]
        parts += [
            f"### {plain(name)}",
            *map(plain, plan_lines(profile)),
            markdown_table(["operator", "calls", "ms a run", "share"], rows),
        ]
    first = profiles[0][1]
    parts.append(
        f"Means over {first.runs} runs at batch size {first.batch_size} and sequence length "
        f"{first.sequence_length}, in a process of its own under ONNX Runtime's profiler, which "
        "takes time of its own. The kernel of each matrix is in the JSON file."
    )
    return "\n\n".join(parts)


def operator_table(name: str, profile: OperatorProfile) -> Table:
    """Where one model's time goes, for a terminal."""
    table = Table(
        title=f"{escape(name)}: time by operator",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    table.add_column("operator", overflow="fold")
    for header in ("calls", "ms a run", "share"):
        table.add_column(header, justify="right", no_wrap=True)
    for row, share in _operator_rows(profile):
        if share >= _SHOWN_SHARE:
            table.add_row(*map(escape, row))
    return table


def _operator_rows(profile: OperatorProfile) -> list[tuple[list[str], float]]:
    """Operator, calls, ms and share of all operators as text, and the share as a number.

    The stages within the native library's operators stand below the first of these.
    """
    total_ms = sum(entry.ms for entry in profile.operators) or 1.0

    def row(name: str, calls: str, ms: float) -> tuple[list[str], float]:
        return [name, calls, f"{ms:.3f}", f"{ms / total_ms:.1%}"], ms / total_ms

    rows = []
    stages = list(profile.stages_ms.items())
    for entry in profile.operators:
        rows.append(row(entry.operator, f"{entry.calls:g}", entry.ms))
        if entry.operator.startswith("Smp"):
            rows += [row(f"- {stage}", "", ms) for stage, ms in stages]
            stages = []
    return rows


def plan_lines(profile: OperatorProfile) -> list[str]:
    """The kernels of the native library, with the number and mean density of their matrices."""
    densities: dict[str, list[float]] = defaultdict(list)
    for entry in profile.plan:
        densities[entry.kernel].append(entry.density)
    if not densities:
        return []
    kernels = [
        f"{kernel} for {len(values)} (mean density {sum(values) / len(values):.3g})"
        for kernel, values in sorted(densities.items(), key=lambda item: -len(item[1]))
    ]
    count = "1 matrix" if len(profile.plan) == 1 else f"{len(profile.plan)} matrices"
    return [f"Kernels ({profile.isa}) of {count}: {', '.join(kernels)}."]
