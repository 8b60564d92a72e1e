"""Charts of a model's matrices, one square a matrix: type by layer."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from pipeline.report.svg import Drawing, colour, element, label, tooltip
from pipeline.report.text import number

__all__ = ["MatrixPlace", "density_grid", "kernel_grid", "place"]

_LABEL, _RIGHT, _TOP = 190.0, 432.0, 66.0
_WIDTH = 440.0
_ROW = 24.0
_WIDEST_CELL = 44.0
# A cell of this width has room for its density in figures.
_ROOM = 27.0
_LAYER = re.compile(r"(?:^|[._/])(?:layers?|h|blocks?)[._/](\d+)(?=[._/]|$)")
_MEANINGLESS = re.compile(r"[._/]?(weight|kernel|MatMul)$")


Attributes = Mapping[str, str | float]


class MatrixPlace(NamedTuple):
    """Where in the encoder a matrix stands; no layer where its name tells none."""

    matrix_type: str
    layer: int | None


def place(name: str) -> MatrixPlace:
    """The type and layer that a matrix's name tells.

    ``encoder.layer.3.attention.self.query.weight`` is ``attention.self.query`` of layer 3.
    """
    found = _LAYER.search(name)
    if found is None or len(found[1]) > 4:
        return MatrixPlace(name, None)
    rest = _MEANINGLESS.sub("", name[found.end() :].lstrip("._/"))
    return MatrixPlace(rest or name, int(found[1]))


def density_grid(title: str, subtitle: str, densities: Mapping[str, float]) -> Drawing:
    """The share of kept weights of every matrix, the stronger the colour the more."""
    most = max(filter(math.isfinite, densities.values()), default=0.0) or 1.0
    cells = {}
    for name, density in densities.items():
        share = min(max(density / most, 0.0), 1.0) if math.isfinite(density) else 0.0
        rectangle: Attributes = {"class_": "cell heat", "fill_opacity": 0.06 + 0.9 * share}
        text = number(density, 3)
        cells[name] = _Cell(rectangle, text.removeprefix("0"), share > 0.62, f"{name}: {text}")
    description = f"{title}, {subtitle}: densities of {len(densities)} matrices."
    densest: tuple[Attributes, str] = (
        {"class_": "cell heat", "fill_opacity": 0.96},
        f"density {number(most, 3)}, the most",
    )
    return _grid(title, subtitle, cells, description, [densest])


def kernel_grid(title: str, subtitle: str, kernels: Mapping[str, tuple[str, float]]) -> Drawing:
    """The kernel of every matrix by colour, its density in figures.

    Args:
        title: of the chart.
        subtitle: the models.
        kernels: matrix -> kernel and density.
    """
    numbers = {
        kernel: at for at, kernel in enumerate(dict.fromkeys(k for k, _ in kernels.values()))
    }
    cells = {}
    for name, (kernel, density) in kernels.items():
        text = number(density, 3)
        rectangle: Attributes = {"class_": f"cell kernel {colour(numbers[kernel] + 1)}"}
        cells[name] = _Cell(rectangle, text.removeprefix("0"), False, f"{name}: {kernel}, {text}")
    description = f"{title}, {subtitle}: kernels of {len(kernels)} matrices."
    legend: list[tuple[Attributes, str]] = [
        ({"class_": f"cell kernel {colour(at + 1)}"}, kernel) for kernel, at in numbers.items()
    ]
    return _grid(title, subtitle, cells, description, legend)


class _Cell(NamedTuple):
    """A square: attributes of its rectangle, its figure, on a strong ground or not, its tooltip."""

    rectangle: Attributes
    text: str
    strong: bool
    title: str


def _grid(
    title: str,
    subtitle: str,
    cells: Mapping[str, _Cell],
    description: str,
    legend: Sequence[tuple[Attributes, str]],
) -> Drawing:
    places = {name: place(name) for name in cells}
    types = list(dict.fromkeys(at.matrix_type for at in places.values()))
    layers = sorted({-1 if at.layer is None else at.layer for at in places.values()})
    width = min(_WIDEST_CELL, (_RIGHT - _LABEL) / len(layers)) if layers else _WIDEST_CELL
    parts = [label(title, 8, 20, kind="title", width=_WIDTH - 40)]
    parts.append(label(subtitle, 8, 37, kind="subtitle", width=_WIDTH - 16))
    step = math.ceil(len(layers) / 12) or 1
    for column, layer in enumerate(layers):
        if layer >= 0 and column % step == 0:
            at = _LABEL + (column + 0.5) * width
            parts.append(label(str(layer), at, _TOP - 6, anchor="middle", kind="subtitle"))
    if layers and layers[-1] >= 0:
        parts.append(label("layer", _LABEL - 10, _TOP - 6, anchor="end", kind="subtitle"))
    for row, matrix_type in enumerate(types):
        at = _TOP + (row + 0.5) * _ROW + 4
        parts.append(label(matrix_type, _LABEL - 10, at, anchor="end", width=_LABEL - 14))
    for name, cell in cells.items():
        matrix_type, found = places[name]
        left = _LABEL + layers.index(-1 if found is None else found) * width
        top = _TOP + types.index(matrix_type) * _ROW
        rectangle = element("rect", x=left, y=top, width=width, height=_ROW, **cell.rectangle)
        text = ""
        if width >= _ROOM:
            kind = "centre strong" if cell.strong else "centre"
            middle = (left + width / 2, top + _ROW / 2 + 4)
            text = label(cell.text, *middle, anchor="middle", kind=kind)
        parts.append(element("g", tooltip(cell.title), rectangle, text, class_="matrix"))
    bottom = _TOP + len(types) * _ROW + 12
    for row, (style, meaning) in enumerate(legend):
        top = bottom + row * 19
        parts.append(element("rect", x=12.0, y=top, width=12.0, height=12.0, **style))
        parts.append(label(meaning, 32, top + 10, width=_WIDTH - 40))
    return Drawing(_WIDTH, bottom + 19 * len(legend), "".join(parts), description)
