"""The report as Markdown."""

import re

from pipeline.report.charts import Series, distribution
from pipeline.report.document import Charts, Details, Section, Table, Text
from pipeline.report.markdown import to_markdown

DRAWING = distribution("Latency", "cell", [(Series(0, "m"), [1.0, 2.0])])


def test_sections_tables_and_notes_become_markdown() -> None:
    table = Table(["name", "kind", "ms"], [["a|b", "x", "1.0"], ["<b>c</b>", "y", "2.0"]], 2)
    inner = Section("Inner", [Text("Careful.", warning=True), table])
    assert to_markdown(Section("Outer", [Text("Plain."), inner])) == (
        "# Outer\n\nPlain.\n\n## Inner\n\n> **Note:** Careful.\n\n"
        "| name | kind | ms |\n| --- | --- | ---: |\n"
        "| a\\|b | x | 1.0 |\n| \\<b\\>c\\</b\\> | y | 2.0 |\n"
    )


def test_charts_are_left_out_and_one_picture_can_stand_for_them() -> None:
    assert DRAWING is not None
    document = Section("Report", [Charts([DRAWING])])
    assert to_markdown(document) == "# Report\n"
    assert to_markdown(document, image="bench.svg") == (
        "# Report\n\n![charts of the figures below](bench.svg)\n"
    )


def test_details_fold_and_hold_markdown() -> None:
    text = to_markdown(Section("Report", [Details("Of my_model & <b>", [Text("Hid_den.")])]))
    # The summary is HTML, the rest Markdown.
    summary = "<summary>Of my_model &amp; &lt;b&gt;</summary>"
    assert f"<details>{summary}\n\nHid\\_den.\n\n</details>\n" in text


def test_names_open_no_element_and_no_line() -> None:
    hostile = "<script>alert(1)</script>\n# title\r\x00"
    table = Table(["model"], [[hostile]])
    text = to_markdown(Section(hostile, [Details(hostile, [table])]))
    assert re.findall(r"(?<!\\)<(?!/?details>|/?summary>)", text) == []
    assert sum(line.startswith("#") for line in text.splitlines()) == 1
    assert len([line for line in text.splitlines() if line.startswith("|")]) == 3
