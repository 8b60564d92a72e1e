"""The page as a browser shows it: whole, quiet, and alone."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect

from pipeline.artifacts.benchmark import Benchmark
from pipeline.config import ReportConfig
from pipeline.report import write_report
from pipeline.report.document import Section, Table, Text
from pipeline.report.html import to_html
from tests.pipeline.report.conftest import MATRICES
from tests.pipeline.report.renamed import renamed

HOSTILE = "<script>alert(1)</script>"
SCHEMES = ("light", "dark")
Save = Callable[..., Path]


@contextmanager
def opened(browser: Browser, path: Path, **options: object) -> Iterator[Page]:
    """The page; in the end it must have asked for nothing but itself, and have had no errors."""
    requests: list[str] = []
    problems: list[str] = []

    def on_console(message: ConsoleMessage) -> None:
        problems.append(message.text)

    with browser.new_page(**options) as page:
        page.on("request", lambda request: requests.append(request.url))
        page.on("console", on_console)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("dialog", lambda dialog: problems.append(dialog.message))
        page.goto(path.as_uri())
        yield page
    assert requests == [path.as_uri()]
    assert problems == []


@pytest.fixture
def report(saved: Save, tmp_path: Path) -> Callable[..., Path]:
    """A function that writes a report on benchmarks."""

    def write(*benchmarks: Benchmark) -> Path:
        files = [saved(each, f"{number}.json") for number, each in enumerate(benchmarks)]
        output = tmp_path / "report.html"
        write_report(ReportConfig(tuple(files), output))
        return output

    return write


def test_the_charts_have_a_mark_for_each_figure(
    browser: Browser, report: Callable[..., Path], full_benchmark: Benchmark
) -> None:
    with opened(browser, report(full_benchmark)) as page:
        glance = page.locator("main > section").first
        # Three models have a latency, two of them a file.
        expect(glance.locator("svg").nth(0).locator(".point")).to_have_count(3)
        expect(glance.locator("svg").nth(1).locator(".point")).to_have_count(2)
        expect(glance.locator(".front").first).to_be_visible()
        # A steady and a noisy cell; the unusable one has no chart.
        expect(page.locator("svg:has(.steps)")).to_have_count(2)
        expect(page.locator(".steps")).to_have_count(6)
        expect(page.locator(".median")).to_have_count(6)
        # Three parts of the data, three models.
        expect(page.locator(".slice")).to_have_count(9)
        expect(page.locator("svg:has(.heat) .matrix")).to_have_count(len(MATRICES))
        expect(page.locator("svg:has(.kernel) .matrix")).to_have_count(len(MATRICES))
        for chart in page.locator("svg").all():
            assert chart.get_attribute("role") == "img"
            assert len(chart.get_attribute("aria-label") or "") > 20


def test_everything_is_said_in_words_and_figures(
    browser: Browser, report: Callable[..., Path], full_benchmark: Benchmark
) -> None:
    with opened(browser, report(full_benchmark)) as page:
        text = page.locator("main").inner_text()
        for expected in (
            "Timing was unusable in 1 of 3 cells",
            "in batches of 32, 1 thread: The clock fell. No latency is given there",
            "Timing was noisy in 1 of 3 cells",
            "pruned gave 1 of 32 texts another label in a padded batch than alone.",
            "0.8800 (0.8600 to 0.9000)",
            "Size of dense (pytorch): no ONNX file to measure.",
            "int8 for 3 (mean density 0.1)",
            "logical cores 0, 1",
            "2.00 cores",
        ):
            assert expected in text
        summary = page.get_by_text("The other 2 cells")
        summary.focus()
        page.keyboard.press("Enter")
        expect(page.get_by_text("Unusable. The clock fell.")).to_be_visible()
        expect(page.get_by_role("heading", name="single-stream, 1 text, 1 thread")).to_be_visible()


def test_on_paper_everything_is_unfolded_and_light(
    browser: Browser, report: Callable[..., Path], full_benchmark: Benchmark
) -> None:
    with opened(browser, report(full_benchmark), color_scheme="dark") as page:
        hidden = page.get_by_text("Unusable. The clock fell.")
        expect(hidden).to_be_hidden()
        page.emulate_media(media="print")
        expect(hidden).to_be_visible()
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert ground == "rgb(255, 255, 255)"


@pytest.mark.parametrize("width", [400, 1200])
def test_nothing_overflows(
    browser: Browser, report: Callable[..., Path], full_benchmark: Benchmark, width: int
) -> None:
    long = renamed(full_benchmark, "n" * 90, "a name of many words " * 5)
    viewport = {"width": width, "height": 800}
    with opened(browser, report(long, full_benchmark), viewport=viewport) as page:
        page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true })")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        outside = page.evaluate(
            """() => [...document.querySelectorAll('figure, h1, h2, h3, p, summary')]
                .filter(e => e.getBoundingClientRect().right > innerWidth
                          || e.scrollWidth > e.clientWidth + 1)
                .map(e => e.textContent.slice(0, 80))"""
        )
        assert outside == []
        cut = page.evaluate(
            """() => [...document.querySelectorAll('svg')].flatMap(svg => {
                const all = svg.getBoundingClientRect();
                return [...svg.querySelectorAll('text, .marker, rect')].filter(e => {
                    const box = e.getBoundingClientRect();
                    return box.left < all.left - 1 || box.right > all.right + 1
                        || box.top < all.top - 1 || box.bottom > all.bottom + 1;
                }).map(e => e.textContent);
            })"""
        )
        assert cut == []


@pytest.mark.parametrize("scheme", SCHEMES)
def test_text_and_marks_stand_out_from_the_ground(
    browser: Browser, report: Callable[..., Path], full_benchmark: Benchmark, scheme: str
) -> None:
    def luminance(colour: str) -> float:
        channels = [int(value) / 255 for value in re.findall(r"\d+", colour)[:3]]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    def contrast(one: str, other: str) -> float:
        low, high = sorted((luminance(one), luminance(other)))
        return (high + 0.05) / (low + 0.05)

    with opened(browser, report(full_benchmark), color_scheme=scheme) as page:

        def style(selector: str, name: str) -> str:
            found = page.locator(selector).first
            return str(found.evaluate(f"e => getComputedStyle(e).{name}"))

        ground = style("main > section", "backgroundColor")
        assert (luminance(ground) > 0.5) == (scheme == "light")
        for selector in ("td", "th", "summary"):
            assert contrast(style(selector, "color"), ground) >= 4.5
        for selector in ("svg .title", "svg .subtitle"):
            assert contrast(style(selector, "fill"), ground) >= 4.5
        for series in range(3):
            assert contrast(style(f".point.s{series}", "fill"), ground) >= 3.0
        warning = style(".warning", "backgroundColor")
        assert contrast(style(".warning", "color"), warning) >= 4.5


def test_names_of_foreign_files_are_text_and_run_nothing(
    browser: Browser, saved: Save, full_benchmark: Benchmark, tmp_path: Path
) -> None:
    hostile = renamed(full_benchmark, HOSTILE, '"><img src=x onerror=alert(2)>', "ODD")
    path = saved(hostile)
    odd = path.read_text(encoding="utf-8").replace("ODD", r"\ud800\u202ey\u0000")
    path.write_text(odd, encoding="utf-8")
    path = write_report(ReportConfig((path,), tmp_path / "report.html"))[0]
    with opened(browser, path) as page:
        assert page.locator("script, img, iframe, a, form, [onerror]").count() == 0
        expect(page.get_by_role("cell", name=HOSTILE).first).to_be_visible()


def test_the_policy_allows_its_own_styles_only(
    browser: Browser, report: Callable[..., Path], full_benchmark: Benchmark
) -> None:
    with browser.new_page() as page:
        page.goto(report(full_benchmark).as_uri())
        for element in ("script", "style"):
            blocked = page.evaluate(
                """name => new Promise(resolve => {
                    document.addEventListener('securitypolicyviolation',
                        event => resolve(event.effectiveDirective), {once: true});
                    const added = document.createElement(name);
                    added.textContent = '/* from elsewhere */';
                    document.head.append(added);
                })""",
                element,
            )
            assert blocked == f"{element}-src-elem"


class Balance(HTMLParser):
    """Checks that every element that must be closed is, in the right order."""

    VOID = ("meta", "link", "br", "img", "input")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_a_document_becomes_balanced_html_with_aligned_columns() -> None:
    document = Section(
        "A & B",
        [Text("note", warning=True), Section("In", [Table(["name", "ms"], [["a<b", "1"]])])],
    )
    page = to_html(document)
    balance = Balance()
    balance.feed(page)
    assert balance.open == []
    assert "<title>A &amp; B</title>" in page
    assert '<p class="warning">note</p>' in page
    assert "<h2>In</h2>" in page
    assert '<tr><td>a&lt;b</td><td class="number">1</td></tr>' in page
