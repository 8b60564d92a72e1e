"""Pareto front, scatter, distribution and rows: the right marks, whatever the values."""

import math
import re

from hypothesis import given
from hypothesis import strategies as st

from pipeline.artifacts.benchmark import Estimate
from pipeline.report.charts import (
    Point,
    Series,
    distribution,
    interval_rows,
    pareto_front,
    scatter,
)
from pipeline.report.svg import Drawing

VALUES = st.integers(0, 8).map(float)
ANY = st.floats(allow_nan=True, allow_infinity=True)


def exact(value: float) -> Estimate:
    return Estimate(value, value, value)


def point(number: int, x: float, y: float) -> Point:
    return Point(Series(number, f"model {number}"), exact(x), exact(y))


def marks(drawing: Drawing | None, kind: str) -> int:
    return 0 if drawing is None else len(re.findall(rf'class="[^"]* {kind}"', drawing.content))


def draw(points: list[Point]) -> Drawing | None:
    return scatter("Accuracy", "cell", points, x_label="ms", y_label="accuracy")


@given(st.lists(st.tuples(VALUES, VALUES), min_size=1), st.booleans())
def test_the_front_is_what_nothing_else_dominates(
    values: list[tuple[float, float]], more_is_better: bool
) -> None:
    points = [point(number, x, y) for number, (x, y) in enumerate(values)]
    sign = 1.0 if more_is_better else -1.0
    expected = {
        (x, y)
        for x, y in values
        if not any(a <= x and sign * b >= sign * y and (a, b) != (x, y) for a, b in values)
    }
    front = pareto_front(points, more_is_better=more_is_better)
    assert {(p.x.value, p.y.value) for p in front} == expected
    # Equal points are all on it, and it runs to the right.
    assert len(front) == sum((x, y) in expected for x, y in values)
    assert [p.x.value for p in front] == sorted(p.x.value for p in front)


@given(st.lists(st.tuples(ANY, ANY), max_size=9))
def test_every_finite_point_is_drawn_and_no_coordinate_is_lost(
    values: list[tuple[float, float]],
) -> None:
    drawing = draw([point(number, x, y) for number, (x, y) in enumerate(values)])
    finite = sum(abs(x) <= 1e12 and abs(y) <= 1e12 for x, y in values)
    assert marks(drawing, "point") == finite
    assert drawing is None or not re.search(r"[\"\s(]-?(?:nan|inf)", drawing.content)


def test_a_scatter_of_several_magnitudes_is_logarithmic_and_says_so() -> None:
    near, far = (
        draw([point(0, 1.0, 0.9), point(1, 3.0, 0.8)]),
        draw([point(0, 1.0, 0.9), point(1, 300.0, 0.8)]),
    )
    assert near is not None and "logarithmic" not in near.content
    assert far is not None and "ms (logarithmic)" in far.content
    assert "on the Pareto front: model 0." in far.description


@given(st.lists(st.lists(ANY, min_size=1, max_size=300), max_size=3))
def test_a_distribution_has_a_line_and_a_median_for_each_model_with_runs(
    runs: list[list[float]],
) -> None:
    # As the benchmark's file has them: positive, or what JSON lacks.
    runs = [[abs(value) or 1.0 for value in values] for values in runs]
    models = [(Series(number, "m"), values) for number, values in enumerate(runs)]
    drawing = distribution("Latency", "cell", models)
    drawn = sum(any(value <= 1e12 for value in values) for values in runs)
    assert marks(drawing, "steps") == marks(drawing, "median") == drawn


def test_a_distribution_rises_from_no_run_to_all_of_them() -> None:
    drawing = distribution("Latency", "cell", [(Series(0, "m"), [3.0, 1.0, 2.0, 4.0])])
    assert drawing is not None
    (path,) = re.findall(r'd="(M[^"]*)" class="[^"]*steps"', drawing.content)
    heights = [float(value) for value in re.findall(r"V([\d.]+)", path)]
    across = [float(value) for value in re.findall(r"H([\d.]+)", path)]
    assert len(heights) == 4 and heights == sorted(heights, reverse=True)
    assert across == sorted(across)
    assert heights[-1] == 74.0  # the axis' upper end: every run took at most the longest


def test_rows_have_a_mark_and_a_bar_for_each_model() -> None:
    values = [(Series(0, "a"), Estimate(0.9, 0.8, 1.0)), (Series(1, "b"), exact(math.nan))]
    drawing = interval_rows("Accuracy", "parts", [("short", values), ("long", values[:1])])
    assert marks(drawing, "slice") == marks(drawing, "bar") == 2
    assert interval_rows("Accuracy", "parts", [("short", values[1:])]) is None
