"""Charts with one mark or line a model: scatter with Pareto front, distribution, slices."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.artifacts.benchmark import Estimate
from pipeline.report.svg import (
    Drawing,
    Scale,
    colour,
    element,
    label,
    marker,
    tooltip,
    x_axis,
    y_axis,
)
from pipeline.report.text import rounded

__all__ = ["Point", "Series", "distribution", "interval_rows", "pareto_front", "scatter"]

_WIDTH = 440.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 56.0, 424.0, 74.0, 272.0
_LEGEND_TOP, _LEGEND_STEP = 332.0, 19.0
_ROW_STEP, _ROW_LABEL = 13.0, 150.0
# Wider ranges than these are drawn on a logarithmic axis.
_LOG_SCATTER, _LOG_DISTRIBUTION = 20.0, 8.0
# A line through so many quantiles looks like one through all runs.
_MOST_STEPS = 200
# What lies beyond is no measurement: a foreign file may say anything.
_SMALLEST, _LARGEST = 1e-9, 1e12


@dataclass(frozen=True)
class Series:
    """A model: its number over the whole report, which gives it colour and shape, and its name."""

    number: int
    name: str


@dataclass(frozen=True)
class Point:
    """A model at two measured values, each with its 95 % interval."""

    series: Series
    x: Estimate
    y: Estimate


def pareto_front(points: Sequence[Point], *, more_is_better: bool) -> list[Point]:
    """The points that no other one is at least as good as in both directions, and better in one.

    Less is better along x. Of equal points all are kept. Kung, Luccio and Preparata (1975) call
    them the maxima of a set of vectors.

    Returns:
        The points by rising x.
    """
    sign = 1.0 if more_is_better else -1.0
    front: list[Point] = []
    for point in sorted(points, key=lambda point: (point.x.value, -sign * point.y.value)):
        best = front[-1] if front else None
        if (
            best is None
            or sign * (point.y.value - best.y.value) > 0
            or (point.x.value, point.y.value) == (best.x.value, best.y.value)
        ):
            front.append(point)
    return front


def scatter(
    title: str,
    subtitle: str,
    points: Sequence[Point],
    *,
    x_label: str,
    y_label: str,
    more_is_better: bool = True,
) -> Drawing | None:
    """Points with 95 % bars, and a dotted line along the Pareto front.

    Returns:
        None where no point has values that can be drawn.
    """
    points = [point for point in points if _has_place(point.x) and _has_place(point.y)]
    if not points:
        return None
    x = _scatter_scale([point.x for point in points], _LEFT, _RIGHT)
    y = _padded_scale([point.y for point in points], _BOTTOM, _TOP)
    name = f"{x_label} (logarithmic)" if x.logarithmic else x_label
    parts = [_titles(title, subtitle), _axes(x, y, name, y_label)]
    front = pareto_front(points, more_is_better=more_is_better)
    worst = y.low if more_is_better else y.high
    steps = f"M{x(front[0].x.value):.1f} {y(worst):.1f}" + "".join(
        f"V{y(point.y.value):.1f}H{x(following):.1f}"
        for point, following in zip(
            front, [*(point.x.value for point in front[1:]), x.high], strict=True
        )
    )
    parts.append(element("path", tooltip("Pareto front"), d=steps, class_="front"))
    for point in points:
        parts.append(_bars(point, x, y))
    for point in points:
        title_text = f"{point.series.name}: {_text(point.x)}; {_text(point.y)}"
        at = (x(point.x.value), y(point.y.value))
        parts.append(marker(point.series.number, *at, title_text, mark="point"))
    names = ", ".join(point.series.name for point in front)
    parts.append(_legend([point.series for point in points]))
    below = _height(len(points)) + 6
    parts.append(element("path", d=f"M8 {below - 3:.0f}h20", class_="front"))
    meaning = "Pareto front: what is better in one is worse in the other"
    parts.append(label(meaning, 32, below + 1, kind="subtitle"))
    return Drawing(
        _WIDTH,
        below + _LEGEND_STEP,
        "".join(parts),
        f"{title}, {subtitle}. {len(points)} models; on the Pareto front: {names}.",
    )


def distribution(
    title: str, subtitle: str, runs: Sequence[tuple[Series, Sequence[float]]]
) -> Drawing | None:
    """The share of runs that took at most so long, one step line a model, its median marked.

    Args:
        title: of the chart.
        subtitle: what a run is.
        runs: each model with its latencies, ms.

    Returns:
        None where no latency can be drawn.
    """
    known = [(series, sorted(filter(_drawable, values))) for series, values in runs]
    known = [(series, values) for series, values in known if values]
    if not known:
        return None
    low = min(values[0] for _, values in known)
    high = max(values[-1] for _, values in known)
    logarithmic = low > _SMALLEST and high > _LOG_DISTRIBUTION * low
    margin = 1.06 if logarithmic else 1.0
    spread = 0.0 if logarithmic else 0.04 * (high - low) or 0.04 * high
    x = Scale(max(low - spread, 0.0) / margin, (high + spread) * margin, _LEFT, _RIGHT, logarithmic)
    y = Scale(0.0, 1.0, _BOTTOM, _TOP)
    kind = "latency, ms (logarithmic)" if logarithmic else "latency, ms"
    parts = [_titles(title, subtitle), _axes(x, y, kind, "share of runs")]
    for series, values in known:
        shares = np.linspace(0.0, 1.0, min(len(values), _MOST_STEPS) + 1)
        steps = np.quantile(values, shares[1:], method="inverted_cdf")
        path = f"M{x(values[0]):.1f} {y(0.0):.1f}" + "".join(
            f"H{x(float(value)):.1f}V{y(float(share)):.1f}"
            for value, share in zip(steps, shares[1:], strict=True)
        )
        parts.append(
            element(
                "path",
                tooltip(series.name),
                d=path,
                class_=f"{colour(series.number)} steps",
            )
        )
    for series, values in known:
        median = float(np.median(values))
        text = f"{series.name}: median {rounded(median)} ms of {len(values)} runs"
        parts.append(marker(series.number, x(median), y(0.5), text, mark="median"))
    parts.append(_legend([series for series, _ in known]))
    return Drawing(
        _WIDTH,
        _height(len(known)),
        "".join(parts),
        f"{title}, {subtitle}: latencies of {len(known)} models from {rounded(low)} to "
        f"{rounded(high)} ms.",
    )


def interval_rows(
    title: str, subtitle: str, rows: Sequence[tuple[str, Sequence[tuple[Series, Estimate]]]]
) -> Drawing | None:
    """Rows of values with their 95 % bars, one line a model in each row, on one axis.

    Returns:
        None where nothing can be drawn.
    """
    known = [
        (name, [(series, value) for series, value in values if _has_place(value)])
        for name, values in rows
    ]
    known = [(name, values) for name, values in known if values]
    if not known:
        return None
    lines = sum(len(values) for _, values in known)
    bottom = _TOP + lines * _ROW_STEP + len(known) * _ROW_STEP / 2
    x = _padded_scale([value for _, values in known for _, value in values], _ROW_LABEL, _RIGHT)
    parts = [_titles(title, subtitle)]
    parts.append(x_axis(x, bottom, _TOP - 12))
    at = _TOP
    drawn: dict[int, Series] = {}
    for name, values in known:
        middle = at + (len(values) - 1) * _ROW_STEP / 2
        parts.append(label(name, _ROW_LABEL - 10, middle + 4, anchor="end", width=_ROW_LABEL - 10))
        for series, value in values:
            ends = {"x1": x(value.low), "x2": x(value.high), "y1": at, "y2": at}
            parts.append(element("line", class_=f"{colour(series.number)} bar", **ends))
            text = f"{name}, {series.name}: {_text(value)}"
            parts.append(marker(series.number, x(value.value), at, text, mark="slice"))
            drawn[series.number] = series
            at += _ROW_STEP
        at += _ROW_STEP / 2
    top = bottom + 40
    parts.append(_legend(list(drawn.values()), top))
    return Drawing(
        _WIDTH,
        _height(len(drawn), top),
        "".join(parts),
        f"{title}, {subtitle}: {len(known)} rows of {len(drawn)} models.",
    )


def _drawable(*values: float) -> bool:
    return all(abs(value) <= _LARGEST for value in values)  # false for NaN too


def _has_place(estimate: Estimate) -> bool:
    return _drawable(estimate.value, estimate.low, estimate.high)


def _text(estimate: Estimate) -> str:
    low, high = f"{estimate.low:,.4g}", f"{estimate.high:,.4g}"
    return f"{estimate.value:,.4g}" + ("" if low == high else f" ({low} to {high})")


def _ends(estimates: Sequence[Estimate]) -> tuple[float, float]:
    low = min(min(estimate.low, estimate.value) for estimate in estimates)
    return low, max(max(estimate.high, estimate.value) for estimate in estimates)


def _scatter_scale(estimates: Sequence[Estimate], start: float, end: float) -> Scale:
    """From zero, or logarithmic where the values are of several magnitudes."""
    low, high = _ends(estimates)
    if low > _SMALLEST and high > _LOG_SCATTER * low:
        return Scale(low / 1.3, high * 1.3, start, end, logarithmic=True)
    return Scale(min(low, 0.0), high * 1.08 if high > 0 else 1.0, start, end)


def _padded_scale(estimates: Sequence[Estimate], start: float, end: float) -> Scale:
    """A little more than the intervals: the differences are what counts here, not the zero."""
    low, high = _ends(estimates)
    margin = 0.08 * (high - low) or 0.05 * abs(high) or 1.0
    return Scale(low - margin, high + margin, start, end)


def _bars(point: Point, x: Scale, y: Scale) -> str:
    across, up = x(point.x.value), y(point.y.value)
    classes = f"{colour(point.series.number)} bar"
    horizontal = {"x1": x(point.x.low), "x2": x(point.x.high), "y1": up, "y2": up}
    vertical = {"x1": across, "x2": across, "y1": y(point.y.low), "y2": y(point.y.high)}
    return element("line", class_=classes, **horizontal) + element(
        "line", class_=classes, **vertical
    )


def _titles(title: str, subtitle: str) -> str:
    return label(title, 8, 20, kind="title", width=_WIDTH - 40) + label(
        subtitle, 8, 37, kind="subtitle", width=_WIDTH - 16
    )


def _axes(x: Scale, y: Scale, x_name: str, y_name: str) -> str:
    return y_axis(y, _LEFT, _RIGHT, y_name) + x_axis(x, _BOTTOM, _TOP, x_name)


def _legend(series: Sequence[Series], top: float = _LEGEND_TOP) -> str:
    lines = []
    for row, one in enumerate(series):
        at = top + row * _LEGEND_STEP
        lines.append(marker(one.number, 18, at, one.name))
        lines.append(label(one.name, 32, at + 4, width=_WIDTH - 40))
    return "".join(lines)


def _height(models: int, top: float = _LEGEND_TOP) -> float:
    return top + models * _LEGEND_STEP
