"""Elements, scales and labels."""

import math
import xml.etree.ElementTree as ElementTree

from hypothesis import given
from hypothesis import strategies as st

from pipeline.report.svg import Drawing, Scale, element, label, marker, standalone_svg, to_svg

POSITIVE = st.floats(1e-6, 1e9)
HOSTILE = '</title></svg><script>alert("1")</script>\x00\ud800\u202e'


@given(POSITIVE, POSITIVE, POSITIVE, st.booleans())
def test_a_scale_keeps_the_order_and_stays_within_its_ends(
    low: float, high: float, value: float, logarithmic: bool
) -> None:
    low, high = sorted((low, high))
    scale = Scale(low, high, 300.0, 20.0, logarithmic)
    assert 20.0 - 1e-9 <= scale(value) <= 300.0 + 1e-9
    if low < high:
        assert math.isclose(scale(low), 300.0) and math.isclose(scale(high), 20.0)
        assert scale(low) >= scale(value) - 1e-9


@given(POSITIVE, POSITIVE, st.booleans())
def test_ticks_are_few_ordered_and_within_the_ends(
    low: float, high: float, logarithmic: bool
) -> None:
    low, high = sorted((low, high))
    ticks = Scale(low, high, 0.0, 1.0, logarithmic).ticks(5)
    assert len(ticks) <= 17
    assert ticks == sorted(ticks)
    margin = 1e-6 * max(high - low, high * 1e-9)
    assert all(low - margin <= tick <= high + margin for tick in ticks)


def test_ticks_are_round() -> None:
    assert Scale(0.0, 10.0, 0.0, 1.0).ticks(5) == [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]
    assert Scale(6.0, 300.0, 0.0, 1.0, True).ticks(5) == [10.0, 20.0, 50.0, 100.0, 200.0]
    assert Scale(1e-3, 1e3, 0.0, 1.0, True).ticks(5) == [10.0**power for power in range(-3, 4)]


def test_what_names_say_is_text() -> None:
    drawing = Drawing(100, 50, label(HOSTILE, 1, 2) + marker(0, 3, 4, HOSTILE), HOSTILE)
    for svg in (to_svg(drawing), standalone_svg([drawing])):
        svg.encode("utf-8")
        tags = {node.tag.rpartition("}")[2] for node in ElementTree.fromstring(svg).iter()}
        assert tags <= {"svg", "g", "text", "title", "path", "style", "rect"}


def test_a_long_label_is_cut_and_whole_in_its_tooltip() -> None:
    name = "a-very-long-name-of-a-model"
    node = ElementTree.fromstring(label(name, 0, 0, width=60))
    assert node.text is not None and node.text.endswith("…") and len(node.text) < 12
    assert node.findtext("title") == name
    assert ElementTree.fromstring(label("short", 0, 0, width=60)).find("title") is None


def test_attributes_are_escaped_and_numbers_are_short() -> None:
    assert element("rect", class_='a"b', stroke_width=1.5, x=2.0) == (
        '<rect class="a&quot;b" stroke-width="1.5" x="2"></rect>'
    )


def test_drawings_stand_side_by_side_in_one_file_with_its_own_styles() -> None:
    root = ElementTree.fromstring(
        standalone_svg([Drawing(100, 50, "", "left"), Drawing(80, 70, "", "right")])
    )
    assert root.attrib["viewBox"] == "0 0 180 70"
    assert root.attrib["aria-label"] == "left right"
    (style,) = root.findall("{http://www.w3.org/2000/svg}style")
    assert "prefers-color-scheme" in str(style.text)
