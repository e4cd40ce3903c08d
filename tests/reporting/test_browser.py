"""The pages in a real browser: they open offline, fit a phone, and answer to the keyboard."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import needed
from made_runs import write_run, write_samples

from atkd.reporting import pages, report
from atkd.runtime.files import write_json

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)
pytestmark = needed(BROWSER is not None, "chromium not found: install it to test the pages")

LAPTOP, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 780}
VIEWS = [(size, scheme) for size in (LAPTOP, PHONE) for scheme in ("light", "dark")]
HOSTILE = '<img src=x onerror="document.title=1"><script>document.title=2</script>'


def token(text: str, uncertainty: float) -> dict[str, Any]:
    """One token as the explorer's file has it, of a teacher and a student."""
    says = [[text, 0.9], ["other", 0.1]]
    return {
        "token": text, "easy": uncertainty < 0.3, "uncertainty": uncertainty, "p": [0.9, 0.8],
        "says": [says, says], "truth": says, "terms": [{"tkd": 0.1, "dkd": 0.2}],
    }  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with its three pages."""
    folder = write_run(tmp_path_factory.mktemp("run"), documents=3, seeds=3)
    for key in ("opt/-/1.3b/teacher/1", "opt/125m/1.3b/supervised_kd/1"):
        write_samples(folder, key, [HOSTILE, "a long answer " * 40, "short"])
    documents = [
        {"task": "dolly", "prompt": HOSTILE,
         "tokens": [token("He", 0.1), token(" sat", 0.5), token(" down", 1.0)]}
        for _ in range(2)
    ]  # fmt: skip
    keys = ["opt/-/1.3b/teacher/1", "opt/125m/1.3b/supervised_kd/1"]
    write_json(folder / pages.EXPLORED, {"runs": keys, "documents": documents})
    report.redraw(folder)
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium without a window."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def opened(browser: Any, run: Path) -> Iterator[Any]:
    """Opens a page in a view; afterwards nothing may have been fetched or complained of."""
    troubles: list[str] = []
    contexts = []

    def visit(name: str, size: dict[str, int] = LAPTOP, scheme: str = "light") -> Any:
        contexts.append(browser.new_context(viewport=size, color_scheme=scheme, offline=True))
        page = contexts[-1].new_page()
        page.on("console", lambda said: troubles.append(said.text))
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("request", lambda sent: None if sent.url.startswith(("file:", "data:"))
                else troubles.append(sent.url))  # fmt: skip
        page.goto((run / name).as_uri())
        return page

    yield visit
    for context in contexts:
        context.close()
    assert troubles == []


@pytest.mark.parametrize("name", ["index.html", "samples.html", "explorer.html"])
@pytest.mark.parametrize(("size", "scheme"), VIEWS)
def test_a_page_fits_its_window_and_can_be_read(
    opened: Any, name: str, size: dict[str, int], scheme: str
) -> None:
    page = opened(name, size, scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
    for rule in ("body", "p.soft, .note, figcaption", "a, select, button, summary"):
        assert page.evaluate(CONTRAST, rule) >= 4.5, rule
    assert page.evaluate("getComputedStyle(document.body).fontSize") == "16px"


@pytest.mark.parametrize("size", [LAPTOP, PHONE])
def test_figures_are_drawn_and_keep_a_readable_size(opened: Any, size: dict[str, int]) -> None:
    page = opened("index.html", size)
    shapes = page.evaluate(
        "[...document.images].map(i => [i.complete && i.naturalWidth, i.width, i.alt])"
    )
    assert len(shapes) > 5
    for drawn, width, alt in shapes:
        assert drawn > 0 and alt
        assert width >= min(drawn, 600)  # on a phone a figure scrolls in its own frame


def test_verdicts_lead_and_links_lead_somewhere(opened: Any) -> None:
    page = opened("index.html")
    sections = page.evaluate("[...document.querySelectorAll('h2')].map(h => h.id)")
    assert sections[0] == "claims" and sections[-1] == "provenance"
    links = page.evaluate("[...document.querySelectorAll('nav a')].map(a => a.href)")
    assert len(links) == len(sections) + 2
    for link in links:
        page.goto(link)
        name = link.partition("#")[2]
        assert not name or page.evaluate("id => !!document.getElementById(id)", name)


def test_a_reader_moves_from_token_to_token_by_keyboard(opened: Any) -> None:
    page = opened("explorer.html")
    first = page.locator("article:not([hidden]) button.token").first
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "text"
    page.keyboard.press("Tab")
    assert first.evaluate("b => b === document.activeElement")
    said = []
    for key in ("ArrowRight", "End", "Home", "ArrowLeft"):
        page.keyboard.press(key)
        said.append(page.evaluate(OPEN))
    assert [name for name, *_ in said] == ["sat", "down", "He", "He"]
    assert all(shown == name and count == 1 for name, shown, count in said)


def test_another_text_is_chosen_by_keyboard(opened: Any) -> None:
    page = opened("explorer.html", PHONE)
    page.locator("#text").focus()
    page.keyboard.press("ArrowDown")
    shown = page.evaluate("[...document.querySelectorAll('article')].map(a => !a.hidden)")
    assert shown == [False, True]


def test_a_screen_reader_hears_what_is_shown(opened: Any) -> None:
    heard = opened("explorer.html").locator("body").aria_snapshot()
    assert 'button "He, uncertainty 0.10, easy" [expanded]' in heard
    assert 'button "sat, uncertainty 0.50, hard"' in heard
    assert 'combobox "Text"' in heard


def test_answers_are_found_and_hostile_ones_stay_text(opened: Any) -> None:
    page = opened("samples.html")
    assert page.title().startswith("Answers")
    page.locator("#find").fill("no such words")
    assert page.locator("output").inner_text() == "0 documents shown"
    page.locator("#find").fill("")
    page.get_by_text(HOSTILE).first.wait_for()
    assert HOSTILE in page.locator("body").inner_text()
    assert page.evaluate("document.querySelectorAll('article img').length") == 0


# The least contrast ratio (WCAG 2) of text that matches a selector with what lies behind it.
CONTRAST = """selector => {
  const brush = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgb = text => {
    brush.clearRect(0, 0, 1, 1);
    brush.fillStyle = text;
    brush.fillRect(0, 0, 1, 1);
    return [...brush.getImageData(0, 0, 1, 1).data];
  };
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255).map(
    v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4
  ).reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = e => {
    for (; e; e = e.parentElement) {
      const c = rgb(getComputedStyle(e).backgroundColor);
      if (c[3] === 255) return c;
    }
    return [255, 255, 255];
  };
  const ratio = e => {
    const [a, b] = [light(rgb(getComputedStyle(e).color)), light(behind(e))].sort((x, y) => y - x);
    return (a + 0.05) / (b + 0.05);
  };
  const seen = [...document.querySelectorAll(selector)].filter(e => e.checkVisibility());
  return Math.min(21, ...seen.map(ratio));
}"""
# The focused token, the one whose details are open, and how many are.
OPEN = """() => {
  const open = [...document.querySelectorAll('article:not([hidden]) details.token[open]')];
  const name = open[0].querySelector('summary code').textContent.trim();
  return [document.activeElement.textContent.trim(), name, open.length];
}"""
