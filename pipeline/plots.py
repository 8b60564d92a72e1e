"""The benchmark's plot: the task's metric against latency and against size."""

from pathlib import Path

from pipeline.artifacts.benchmark import Benchmark, Estimate

__all__ = ["plot_benchmark"]

# Okabe and Ito's colours, which colour-blind readers tell apart; the markers repeat the difference.
_COLOURS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_MARKERS = "osD^vPX*"


def plot_benchmark(benchmark: Benchmark, path: Path) -> None:
    """Write a PNG with two panels that share the metric's axis; bars are 95 % intervals."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    metric = benchmark.task.metric
    cell = benchmark.models[0].latency[0]
    figure = Figure(figsize=(9.0, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    by_latency, by_size = figure.subplots(1, 2, sharey=True)
    for index, model in enumerate(benchmark.models):
        quality = model.metrics[metric]
        latency = model.latency[0].p50_ms
        size_mb = model.size.directory_bytes / 1e6
        style = {
            "color": _COLOURS[index % len(_COLOURS)],
            "marker": _MARKERS[index % len(_MARKERS)],
            "markersize": max(5.0, 10.0 - 1.5 * index),  # equal points stay visible
            "linestyle": "none",
            "elinewidth": 1.2,
            "capsize": 3,
            "alpha": 0.9,
        }
        vertical = _bars(quality)
        by_latency.errorbar(
            latency.value, quality.value, xerr=_bars(latency), yerr=vertical, **style
        )
        by_size.errorbar(size_mb, quality.value, yerr=vertical, label=_literal(model.name), **style)
    by_latency.set_xlabel(
        f"median latency, ms (batch {cell.batch_size}, {cell.sequence_length} tokens, "
        f"threads: {benchmark.threads})"
    )
    by_size.set_xlabel("model directory, MB")
    by_latency.set_ylabel(f"{metric} ({benchmark.data.rows} examples)")
    for axes in (by_latency, by_size):
        axes.set_xlim(left=0.0, right=axes.get_xlim()[1] * 1.05)
        axes.grid(alpha=0.25, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=min(4, len(benchmark.models)), frameon=False)
    title = "Bars: 95 % bootstrap intervals"
    if benchmark.noisy_cells:
        title += f"; timing was noisy in {benchmark.noisy_cells} of {len(benchmark.noise)} cells"
    figure.suptitle(title, fontsize=10)
    figure.savefig(path, format="png", dpi=150)


def _bars(estimate: Estimate) -> list[list[float]]:
    """Lengths of the bars below and above; none negative, which matplotlib refuses."""
    below = max(0.0, estimate.value - estimate.low)
    above = max(0.0, estimate.high - estimate.value)
    return [[below], [above]]


def _literal(name: str) -> str:
    """A name that matplotlib takes neither for mathematics nor, by its underscore, as hidden."""
    name = name.replace("$", r"\$")
    return f"\u200b{name}" if name.startswith("_") else name
