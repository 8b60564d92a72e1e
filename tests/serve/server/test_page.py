import base64
import hashlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, expect

from serve.server.page import PAGE, PAGE_HEADERS
from tests.serve.server.http_front import Front, running

TOKEN = "0123456789abcdef-token"
MakeModel = Callable[..., Path]


@pytest.fixture(scope="module")
def front(
    model: Path, make_model: MakeModel, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Front]:
    directory = tmp_path_factory.mktemp("more")
    many = tuple(f"label {number}" for number in range(14))
    models = (
        make_model(directory / "x-pairs", text_pair_column="second"),
        make_model(directory / "x-score", labels=(), metric="pearson"),
        make_model(directory / "x-many", labels=many),
    )
    with running(model, *models) as found:
        yield found


class Visit:
    """A page that is open, and what it did."""

    def __init__(self, page: Page, front: Front) -> None:
        self.page = page
        self.origin = f"http://127.0.0.1:{front.port}/"
        self.requests: list[str] = []
        self.errors: list[str] = []
        page.on("request", self._on_request)
        page.on("console", self._on_console)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.goto(self.origin)

    def _on_request(self, request: Request) -> None:
        if not request.url.startswith("data:"):
            self.requests.append(request.url)

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.errors.append(message.text)

    def assert_quiet(self) -> None:
        assert self.requests
        assert all(url.startswith(self.origin) for url in self.requests)
        assert self.errors == []


@pytest.fixture
def visit(browser: Browser, front: Front) -> Iterator[Visit]:
    with browser.new_page(viewport={"width": 400, "height": 900}) as page:
        visit = Visit(page, front)
        yield visit
        visit.assert_quiet()


def test_a_text_gets_its_label_with_the_keyboard_alone(visit: Visit) -> None:
    page = visit.page
    expect(page.get_by_label("Model")).to_have_value("words")
    page.keyboard.press("Tab")
    expect(page.get_by_label("Model")).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("Control+A")
    page.keyboard.type("a bad and dull film")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#label")).to_have_text("0")
    expect(page.locator("#bars li")).to_have_text(["0 98.2 %", "1 1.8 %"])
    widths = [bar.bounding_box() for bar in page.locator(".track div").all()]
    assert all(box is not None for box in widths)
    assert widths[0]["width"] > 20 * widths[1]["width"]  # type: ignore[index]
    assert float(page.locator("#latency").inner_text()) > 0


def test_the_page_says_what_the_model_is(visit: Visit) -> None:
    facts = visit.page.locator("#facts")
    for fact in ("Weights kept", "50 %", "dense", "kB", "32 tokens", "0, 1"):
        expect(facts).to_contain_text(fact)


def test_a_model_of_pairs_takes_a_second_text(visit: Visit) -> None:
    page = visit.page
    expect(page.get_by_label("Second text")).to_be_hidden()
    page.get_by_label("Model").select_option("x-pairs")
    page.get_by_label("Text", exact=True).fill("good")
    page.get_by_label("Second text").fill("bad")
    page.get_by_role("button", name="Run").click()
    expect(page.locator("#label")).to_have_text("0")


def test_a_model_without_labels_gives_a_number(visit: Visit) -> None:
    page = visit.page
    page.get_by_label("Model").select_option("x-score")
    page.get_by_label("Text", exact=True).fill("good good bad")
    page.get_by_role("button", name="Run").click()
    expect(page.locator("#label")).to_have_text("1.000")
    expect(page.locator("#bars")).to_be_hidden()


def test_of_many_labels_the_most_probable_are_shown(visit: Visit) -> None:
    page = visit.page
    page.get_by_label("Model").select_option("x-many")
    page.get_by_role("button", name="Run").click()
    expect(page.locator("#bars li")).to_have_count(10)
    expect(page.locator("#more")).to_have_text("and 4 less probable labels")


def test_what_a_text_says_is_text(visit: Visit) -> None:
    page = visit.page
    page.get_by_label("Text", exact=True).fill("<img src=x onerror=alert(1)> good")
    page.get_by_role("button", name="Run").click()
    expect(page.locator("#label")).to_have_text("1")
    assert page.locator("img").count() == 0


def test_it_fits_narrow_windows(visit: Visit) -> None:
    visit.page.get_by_role("button", name="Run").click()
    expect(visit.page.locator("#result")).to_be_visible()
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= 400


def test_errors_are_shown_as_the_server_says_them(
    browser: Browser, model: Path, front: Front
) -> None:
    with running(model, max_text_chars=10) as strict, browser.new_page() as page:
        visit = Visit(page, strict)
        page.get_by_label("Text", exact=True).fill("much too long")
        page.get_by_role("button", name="Run").click()
        expect(page.get_by_role("alert")).to_contain_text("a text of 13 characters")
        page.get_by_label("Text", exact=True).fill("good")
        page.get_by_role("button", name="Run").click()
        expect(page.locator("#label")).to_have_text("1")
        expect(page.get_by_role("alert")).to_be_hidden()
        # Chromium itself notes the answer's status.
        assert all("413" in error for error in visit.errors)


def test_a_server_that_went_away_is_an_error(browser: Browser, model: Path) -> None:
    with running(model) as front, browser.new_page() as page:
        Visit(page, front)
        expect(page.get_by_role("button", name="Run")).to_be_enabled()
        front.run(front.server.stop(1.0))
        page.get_by_role("button", name="Run").click()
        expect(page.get_by_role("alert")).to_have_text("The server does not answer.")


def test_the_token_is_asked_for(browser: Browser, model: Path) -> None:
    with running(model, token=TOKEN) as front, browser.new_page() as page:
        Visit(page, front)
        expect(page.get_by_role("alert")).to_contain_text("wants a token")
        expect(page.get_by_label("token")).to_be_focused()
        page.keyboard.type("0123456789abcdef-wrong")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_contain_text("is not this server's")
        page.get_by_label("token").fill(TOKEN)
        page.keyboard.press("Enter")
        expect(page.get_by_label("token")).to_be_hidden()
        page.get_by_role("button", name="Run").click()
        expect(page.locator("#label")).to_have_text("1")


def test_the_policy_lets_in_what_the_page_has_and_nothing_else(visit: Visit) -> None:
    policy = dict(PAGE_HEADERS)[b"content-security-policy"].decode()
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    for tag in ("script", "style"):
        (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>".encode(), PAGE, flags=re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    blocked = visit.page.evaluate(
        """() => new Promise((resolve) => {
            document.addEventListener(
                "securitypolicyviolation", (event) => resolve(event.blockedURI));
            const script = document.createElement("script");
            script.textContent = "document.title = 'changed'";
            document.head.append(script);
        })"""
    )
    assert blocked == "inline"
    assert visit.page.title() == "Try a model"
    visit.errors.clear()  # Chromium notes what it blocked
