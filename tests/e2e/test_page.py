"""The page in a real browser against a real server: typed into, driven by keys, on a desk and on a phone."""

import csv
import io
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from export.runtime import Predictor
from tests.serving import local_server

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH")
TEXT = "my parcel is late again"
HOSTILE = '<img src=x onerror="document.title=1"> my card'


@pytest.fixture(scope="module")
def server(showing_bundle: Path) -> Iterator[str]:
    with local_server({"shop": showing_bundle}) as client:
        yield f"http://127.0.0.1:{client.port}"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any, server: str) -> Iterator[Any]:
    yield from opened(browser, server)


def opened(browser: Any, url: str, **options: Any) -> Iterator[Any]:
    """Open the page; when the test is over, nothing may have gone wrong in it or been asked of anybody else."""
    context = browser.new_context(**options)
    page = context.new_page()
    told: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: told.append(message.text))
    page.on("pageerror", lambda error: told.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(url)
    yield page
    context.close()
    assert [line for line in told if "401" not in line] == []
    assert [address for address in asked if not address.startswith((f"{url}/", "data:", f"blob:{url}/"))] == []


def test_a_typed_text_is_answered_and_explained(page: Any, showing_bundle: Path) -> None:
    page.fill("#text", TEXT)
    page.wait_for_selector("#words .word")
    student = Predictor.load(showing_bundle).predict(TEXT)[0]
    names, values = (page.locator(f"#bars .{part}").all_inner_texts() for part in ("name", "value"))
    ranked = sorted(student.probabilities.items(), key=lambda item: -item[1])
    assert names == [label for label, _ in ranked]
    assert values == [f"{100 * probability:.1f} %" for _, probability in ranked]
    assert page.locator("#words").inner_text() == TEXT
    assert page.locator("#explained").inner_text() == student.label
    assert "in the model" in page.locator("#latency").inner_text()
    assert page.locator("#alike li").first.inner_text().startswith(TEXT)


def test_everything_can_be_done_with_the_keyboard_alone(page: Any) -> None:
    page.wait_for_selector("h1:text('shop')")
    page.keyboard.type(f"{TEXT}\n")  # the field has the focus from the start
    page.keyboard.type("the bank\nthe hat")
    page.wait_for_selector("#answers li:nth-child(3)")
    page.keyboard.press("Escape")
    page.keyboard.press("ArrowDown")
    page.wait_for_selector("#answers li:nth-child(2)[aria-selected=true]")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    # The bars are drawn again when the explanation comes, and keep the focus.
    page.wait_for_function("document.activeElement === document.querySelectorAll('#bars button')[1]")
    second = page.locator("#bars button").nth(1)
    page.keyboard.press("Enter")
    page.wait_for_selector("#bars li:nth-child(2) button[aria-pressed=true]")
    assert page.locator("#explained").inner_text() == second.get_attribute("data-label")
    page.keyboard.press("/")
    assert page.locator("#text").evaluate("(text) => text === document.activeElement")
    page.locator("#tab-try").focus()
    page.keyboard.press("ArrowRight")
    assert page.locator("#batch").is_visible()
    assert page.locator("#try").is_hidden()


def test_a_hostile_text_stays_text(page: Any) -> None:
    page.fill("#text", f"{HOSTILE}\n{TEXT}")
    page.wait_for_selector("#answers li:nth-child(2)")
    page.wait_for_selector("#words .word")
    assert page.locator("#answers q").first.inner_text() == HOSTILE
    assert HOSTILE in page.locator("#alike").inner_text()
    assert page.locator("img").count() == 0
    assert page.title() != "1"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_a_phone_in_light_and_dark(browser: Any, server: str, scheme: str) -> None:
    for page in opened(browser, server, viewport={"width": 360, "height": 740}, color_scheme=scheme):
        page.fill("#text", "\n".join([TEXT, "the hat " * 30]))
        page.wait_for_selector("#words .word")
        assert page.evaluate("() => document.documentElement.scrollWidth") <= 360
        colour = page.evaluate("() => getComputedStyle(document.body).backgroundColor")
        lightness = sum(map(int, re.findall(r"\d+", colour)[:3])) / 3
        assert (lightness > 127) is (scheme == "light")
        page.click("#tab-batch")
        assert page.evaluate("() => document.documentElement.scrollWidth") <= 360


def test_a_csv_file_comes_back_with_answers(page: Any, showing_bundle: Path) -> None:
    texts = [f"my parcel {number} is late" for number in range(70)] + ['the "hat", is\nlate', ""]
    given = io.StringIO()
    csv.writer(given).writerows(
        [["id", "message", "label"], *([number, text, "x"] for number, text in enumerate(texts))]
    )
    page.wait_for_selector("h1:text('shop')")
    page.click("#tab-batch")
    file = {"name": "messages.csv", "mimeType": "text/csv", "buffer": given.getvalue().encode("utf-8-sig")}
    page.set_input_files("#file", file)
    page.wait_for_selector("#start:enabled")
    assert page.locator("#column").input_value() == "1"
    page.click("#start")
    page.wait_for_selector("#download:not([hidden])")
    with page.expect_download() as download:
        page.click("#download")
    rows = list(csv.DictReader(io.StringIO(Path(download.value.path()).read_bytes().decode("utf-8"), newline="")))
    assert download.value.suggested_filename == "messages.answers.csv"
    assert [row["message"] for row in rows] == texts
    assert {row["label"] for row in rows} == {"x"}
    wanted = [answer.label for text in texts for answer in Predictor.load(showing_bundle).predict(text)]
    assert [row["student_label"] for row in rows] == wanted
    assert {row["source"] for row in rows} == {"student"}


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"text\n", "no rows"), (b'text\n"never closed\n', "never closed"), (b"text\n\xff\xfe\n", "UTF-8")],
)
def test_a_file_that_cannot_be_read_is_refused_with_the_reason(page: Any, content: bytes, said: str) -> None:
    page.wait_for_selector("h1:text('shop')")
    page.click("#tab-batch")
    page.set_input_files("#file", {"name": "messages.csv", "mimeType": "text/csv", "buffer": content})
    page.wait_for_selector(f"#batch-status:has-text('{said}')")
    assert page.locator("#start").is_disabled()


def test_a_server_with_a_token_is_used_once_it_is_given(browser: Any, showing_bundle: Path, tmp_path: Path) -> None:
    doubt = tmp_path / "doubt.yaml"
    doubt.write_text(yaml.safe_dump({"below": "abstain", "threshold": 1.0}))
    with local_server({"shop": showing_bundle}, token="secret", doubt=doubt) as client:
        for page in opened(browser, f"http://127.0.0.1:{client.port}"):
            page.wait_for_selector("#token-field:not([hidden])")
            page.fill("#token", "secret")
            page.keyboard.press("Enter")
            page.wait_for_selector("h1:text('shop')")
            page.fill("#text", f"{TEXT}\nthe hat")
            page.wait_for_selector("#answers .badge")
            assert page.locator("#answers .badge").all_inner_texts() == ["abstains", "abstains"]
