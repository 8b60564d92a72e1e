"""Tables and text in Markdown, as a renderer reads them."""

import html
import re
import string

from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from pipeline.markdown import markdown_table, plain

SEEN = string.ascii_letters + string.digits + string.punctuation


def rendered(text: str) -> str:
    return str(MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(text))


@given(st.text(SEEN, min_size=1))
@example("&lt;b&gt;")
@example("~~gone~~")
@example("a|b`c`*d*_e_[f](g)<h>\\i")
def test_a_cell_shows_the_text_as_it_is(text: str) -> None:
    table = rendered(markdown_table(["model", "ms"], [[plain(text), "1"]]))
    (cell,) = re.findall("<td>(.*?)</td>", table)
    assert "<" not in cell and html.unescape(cell) == text


def test_figures_stand_to_the_right_and_lines_on_one() -> None:
    assert markdown_table(["a", "b"], [[plain("x\ny"), "1"]]) == (
        "| a | b |\n| --- | ---: |\n| x y | 1 |"
    )
