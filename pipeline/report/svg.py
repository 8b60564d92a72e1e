"""Drawing as SVG: elements, scales, axes and marks. Colours and fonts are classes of chart.css."""

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.report.text import printable

__all__ = [
    "CHART_STYLE",
    "Drawing",
    "Scale",
    "colour",
    "element",
    "label",
    "marker",
    "standalone_svg",
    "to_svg",
    "tooltip",
    "x_axis",
    "y_axis",
]

CHART_STYLE = Path(__file__).with_name("chart.css").read_text(encoding="utf-8")

# Two models that share a colour, from the eighth on, differ in shape.
_COLOURS = 7
_SHAPES = (
    "M-4.5 0a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0 -9 0z",  # circle
    "M-4 -4h8v8h-8z",  # square
    "M0 -5.5l5 9h-10z",  # triangle
    "M0 -5.8l5.8 5.8l-5.8 5.8l-5.8 -5.8z",  # diamond
    "M0 5.5l5 -9h-10z",  # triangle, downwards
    "M-1.7 -5h3.4v3.3h3.3v3.4h-3.3v3.3h-3.4v-3.3h-3.3v-3.4h3.3z",  # plus
    "M0 -5.8l1.6 3.8l4 0.2l-3.1 2.6l1 4l-3.5 -2.2l-3.5 2.2l1 -4l-3.1 -2.6l4 -0.2z",  # star
)
# Wider than the mean over the letters of usual sans-serif fonts, in units of the font's size.
_LETTER_WIDTH = 0.65
_FONT_SIZE = 12
_LOG_STEPS = (1, 2, 5)
_SMALLEST_STEP = 1e-12
_SVG = "http://www.w3.org/2000/svg"


@dataclass(frozen=True)
class Drawing:
    """A finished chart.

    Attributes:
        width, height: of its own coordinates, which a browser may scale.
        content: SVG elements.
        description: what it shows, for those who don't see it.
    """

    width: float
    height: float
    content: str
    description: str


def element(name: str, *children: str, **attributes: str | float) -> str:
    """An SVG element around finished children; attribute values are escaped.

    Args:
        name: the tag.
        children: SVG, or escaped text.
        attributes: ``class_`` gives class, ``text_anchor`` gives text-anchor.
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{_value(value)}"'
        for key, value in attributes.items()
    )
    return f"<{name}{written}>{''.join(children)}</{name}>"


def _value(value: str | float) -> str:
    if isinstance(value, str):
        return html.escape(printable(value))
    return f"{value:.2f}".rstrip("0").rstrip(".")


def tooltip(text: str) -> str:
    """What a browser shows over the element that this is a child of."""
    return element("title", html.escape(printable(text)))


def label(
    text: str, x: float, y: float, *, anchor: str = "start", kind: str = "", width: float = math.inf
) -> str:
    """A line of text; what is wider than ``width`` is cut, and whole in the tooltip."""
    letters = width / (_LETTER_WIDTH * _FONT_SIZE)
    shown, title = printable(text), ""
    if len(shown) > letters:
        title = tooltip(text)
        shown = shown[: max(1, int(letters) - 1)] + "…"
    return element(
        "text", html.escape(shown), title, x=x, y=y, text_anchor=anchor, class_=f"text {kind}"
    )


def colour(series: int) -> str:
    """The classes of a series' colour."""
    return f"series s{(series + series // _COLOURS) % _COLOURS}"


def marker(series: int, x: float, y: float, title: str, *, mark: str = "") -> str:
    """A point of a series with a tooltip; ``mark`` is a class to find it by."""
    shape = element("path", d=_SHAPES[series % len(_SHAPES)])
    return element(
        "g",
        tooltip(title),
        shape,
        class_=f"{colour(series)} marker {mark}".rstrip(),
        transform=f"translate({_value(x)} {_value(y)})",
    )


@dataclass(frozen=True)
class Scale:
    """From values to coordinates.

    Attributes:
        low, high: the ends in values; both positive where it is logarithmic.
        start, end: the ends in coordinates.
        logarithmic: equal ratios are equally far apart.
    """

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        """The coordinate of a value; of one outside, the nearer end's."""
        low, high, value = self.low, self.high, min(max(value, self.low), self.high)
        if self.logarithmic:
            low, high, value = math.log(low), math.log(high), math.log(value)
        share = (value - low) / (high - low) if high > low else 0.5
        return self.start + share * (self.end - self.start)

    def ticks(self, count: int) -> list[float]:
        """About ``count`` round values, in order."""
        if self.logarithmic and self.high >= 4 * self.low:
            first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
            powers = [10.0**power for power in range(first, last + 1)]
            values = [step * power for power in powers for step in _LOG_STEPS]
            values = [value for value in values if self.low <= value <= self.high]
            return values if len(values) <= count + 3 else [v for v in values if v in powers]
        rough = (self.high - self.low) / count
        if not rough > _SMALLEST_STEP:
            return [self.low]
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough)
        numbers = range(math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9) + 1)
        return [number * step for number in numbers]


def x_axis(x: Scale, bottom: float, top: float, name: str = "") -> str:
    """The horizontal axis at ``bottom``, with grid lines up to ``top``, and its name below."""
    parts = []
    for value in x.ticks(5):
        at = x(value)
        parts.append(element("line", x1=at, x2=at, y1=bottom, y2=top, class_="grid"))
        parts.append(label(_tick(value), at, bottom + 17, anchor="middle"))
    parts.append(element("line", x1=x.start, x2=x.end, y1=bottom, y2=bottom, class_="axis"))
    parts.append(label(name, (x.start + x.end) / 2, bottom + 36, anchor="middle"))
    return "".join(parts)


def y_axis(y: Scale, left: float, right: float, name: str) -> str:
    """The vertical axis at ``left``, with grid lines up to ``right``, and its name on top."""
    parts = []
    for value in y.ticks(5):
        at = y(value)
        parts.append(element("line", x1=left, x2=right, y1=at, y2=at, class_="grid"))
        parts.append(label(_tick(value), left - 8, at + 4, anchor="end"))
    parts.append(label(name, left, y.end - 10))
    return "".join(parts)


def _tick(value: float) -> str:
    return f"{value:,.10g}" if abs(value) < 1e9 else f"{value:.3g}"


def to_svg(drawing: Drawing) -> str:
    """The drawing as an element of an HTML page, whose style sheet has ``CHART_STYLE``."""
    return _svg(drawing, drawing.content)


def standalone_svg(drawings: Sequence[Drawing]) -> str:
    """Drawings side by side as one file, which brings its style sheet along."""
    content, left = element("style", CHART_STYLE), 0.0
    for drawing in drawings:
        content += element("g", drawing.content, transform=f"translate({_value(left)} 0)")
        left += drawing.width
    height = max(drawing.height for drawing in drawings)
    description = " ".join(drawing.description for drawing in drawings)
    content = element("rect", width=left, height=height, class_="background") + content
    return _svg(Drawing(left, height, content, description), content, xmlns=_SVG) + "\n"


def _svg(drawing: Drawing, content: str, **attributes: str | float) -> str:
    return element(
        "svg",
        content,
        viewBox=f"0 0 {_value(drawing.width)} {_value(drawing.height)}",
        width=drawing.width,
        height=drawing.height,
        role="img",
        aria_label=drawing.description,
        **attributes,
    )
