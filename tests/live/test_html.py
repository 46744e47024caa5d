"""The HTML report in Chromium: it draws, and answers to keys and clicks as a reader expects."""

from __future__ import annotations

import json
import struct
import sys
import time
import zlib
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from symbolizer.frame import Frame
from tests.unit.tracer.report import many_sites
from tracer.report import html
from tracer.report.model import Finding, LossNote, Report, Target, Totals
from tracer.report.site_table import SiteTable

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

from browsing.chromium import Page, find

EVIL = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
#: Bytes, blocks and growth of the sites of the small report, and the calls of each, innermost first.
SITES = (
    (6000, 3, 0.0, "steady", ("load_table", "setup", "main")),
    (3000, 300, 50.0, "lost", ("copy_header", "handle", "main")),
    (1000, 10, 500.0, "growing", (EVIL, "handle", "main")),
)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a page with three sites."""
    findings = tuple(_finding(rank, *site) for rank, site in enumerate(SITES, 1))
    held = np.array([[each.bytes * moment // 4 for moment in range(5)] for each in findings], np.int64)
    zeros = np.zeros(3)
    table = SiteTable(np.arange(3, dtype=np.uint64), held[:, -1], held[:, -1], held[:, -1], held[:, -1], held[:, -1], zeros,
                      zeros, np.zeros(3, np.uint8), zeros, zeros, np.arange(3), lambda row, rank: findings[row])
    report = Report(
        taken=datetime(2026, 3, 1, 9, 5, 7, tzinfo=UTC), elapsed_s=4.0, kernel="6.18.44", complete=False, findings=findings,
        targets=(Target(1, EVIL, "/opt/server"),), totals=Totals(10_000, 313, 20_000, 626, 313), sites=table,
        losses=(LossNote("in_flight", 7, 0, f"calls are missing {EVIL}", "wait"),))
    path = tmp_path_factory.mktemp("html") / "small.html"
    with path.open("wb") as out:
        html.write(report, out, series=many_sites.Curves(np.arange(5.0), held, held))
    return path


def _finding(rank: int, held: int, count: int, growth: float, verdict: str, calls: tuple[str, ...]) -> Finding:
    frames = tuple(Frame(0x1000 + 16 * at, name, 4, "/opt/server", None, "server.c", at + 1) for at, name in enumerate(calls))
    return Finding(rank, 1, held, count, held * 2, count * 2, count, 3.0, growth, 10, 1, None, frames, verdict=verdict,
                   confidence="high", evidence=f"evidence {EVIL}")


@pytest.fixture(scope="module")
def browser() -> Iterator[Page]:
    """Yield a page of Chromium, which scripts/test installs."""
    found = find()
    if found is None:
        pytest.skip("Chromium is not installed")
    with Page(found) as page:
        yield page


@pytest.fixture
def page(browser: Page, small: Path) -> Iterator[Page]:
    """Yield the small report as just opened; afterwards nothing may have gone wrong in it."""
    browser.events.clear()
    browser.call("Page.navigate", url="about:blank")
    browser.resize(1280, 800)
    browser.open(small)
    yield browser
    assert browser.problems() == []


def go(page: Page, view: str) -> None:
    page.ask(f"location.hash = {json.dumps(view)}")
    page.wait(f"document.getElementById('view').dataset.shown === {json.dumps(view)}")


def shown(page: Page, selector: str) -> list[str]:
    """Return the text of each element of a selector."""
    texts = page.ask(f"[...document.querySelectorAll({json.dumps(selector)})].map((each) => each.textContent)")
    assert isinstance(texts, list)
    return texts


def colours(png: bytes) -> int:
    """Return how many different colours a picture has (RGB or RGBA of 8 bits, as Chromium writes it)."""
    at, packed, width, depth = 8, b"", 0, 0
    while at < len(png):
        size, kind = struct.unpack(">I4s", png[at : at + 8])
        body = png[at + 8 : at + 8 + size]
        if kind == b"IHDR":
            width, depth = struct.unpack(">I", body[:4])[0], 4 if body[9] == 6 else 3
        packed += body if kind == b"IDAT" else b""
        at += size + 12
    rows = np.frombuffer(zlib.decompress(packed), np.uint8).reshape(-1, 1 + width * depth)
    # Differences of bytes to their neighbours, which say as well whether anything is there.
    return len(np.unique(rows[:, 1:].reshape(-1, depth)[:, :3].astype(np.uint32) @ np.array([1, 1 << 8, 1 << 16], np.uint32)))


def test_it_opens_without_a_network(page: Page) -> None:
    """The file is all that is asked for, and it says first what is held and what is wrong."""
    assert [url.partition(":")[0] for url in page.requests() if not url.startswith("about:")] == ["file"]
    assert shown(page, ".tile .value") == ["9.8 kB", "+2.4 kB/s", "20 kB", "4 s", "no"]
    assert [each.partition(" ")[0] for each in shown(page, ".judged b")] == ["1", "1", "1", "0"]
    assert len(shown(page, ".entry")) == 3


@pytest.mark.parametrize("view", ["overview", "sites", "flame", "trace", "site-2"])
def test_a_symbol_stays_text(page: Page, view: str) -> None:
    """No view makes an element of a name, an evidence or a loss: they are shown as they are, and nothing runs."""
    go(page, view)
    assert EVIL.split("=")[0] in page.ask("document.body.textContent")
    assert page.ask("document.querySelectorAll('#view script, #view img, header img').length") == 0
    assert "owned" not in page.ask("document.title").replace(EVIL, "")


def test_curves_are_drawn(page: Page) -> None:
    """The chart has a band for each site, whose values a key moves through the legend."""
    page.wait("document.querySelectorAll('.chart .band').length === 3")
    assert shown(page, ".chart ~ .legend b") == ["5.9 kB", "2.9 kB", "1.0 kB"]
    page.ask("document.querySelector('.chart').focus()")
    page.press("Home")
    assert shown(page, ".chart ~ .legend b") == ["0 bytes"] * 3
    page.press("ArrowRight")
    assert shown(page, ".chart ~ .legend b")[0] == "1.5 kB"


def test_the_table_sorts_and_filters(page: Page) -> None:
    """A click on a heading sorts by it, a word keeps the sites with it on their stack, a verdict those of its kind."""
    go(page, "sites")
    assert [each[:3] for each in shown(page, ".row .name a")] == ["loa", "cop", "<…>"]
    page.click("[data-column=count] button")
    assert shown(page, ".row:not(.head) .count") == ["300", "10", "3"]
    page.click("[data-column=count] button")
    assert shown(page, ".row:not(.head) .count") == ["3", "10", "300"]
    page.press("/")
    page.type("HANDLE")
    assert shown(page, ".row:not(.head) .count") == ["10", "300"]
    page.click("[data-value=lost]")
    assert shown(page, ".row .name a") == ["copy_header"]
    page.press("/")
    page.type("nothing has this")
    assert shown(page, ".rows .hint") == ["No site matches."]


def test_a_site_opens_by_keys(page: Page) -> None:
    """The table has the focus, an arrow chooses a site, Enter opens it, Escape leads back to the same row."""
    go(page, "sites")
    page.press("ArrowDown")
    page.press("Enter")
    page.wait("document.querySelector('.site h1')?.textContent === 'copy_header'")
    assert page.ask("location.hash") == "#site-1"
    assert [each.partition("+")[0] for each in shown(page, ".stack .function")] == ["copy_header", "handle", "main"]
    assert "300" in shown(page, ".figures dd")[1]
    page.wait("document.querySelectorAll('.chart .curve').length === 1")
    page.press("Escape")
    page.wait("location.hash === '#sites' && document.querySelector('.row.active .name a')?.textContent === 'copy_header'")


def test_the_flame_graph_zooms_and_searches(page: Page) -> None:
    """Arrows move, Enter gives a call the whole width, Escape gives it back; a search says what is held by it."""
    go(page, "flame")
    chosen = "document.querySelector('.flame').dataset.chosen"
    page.wait(chosen)
    assert colours(page.picture()) > 20
    page.ask("document.querySelector('.flame').focus()")
    for key, call in (("ArrowDown", "main"), ("ArrowDown", "setup"), ("ArrowRight", "handle"), ("ArrowDown", "copy_header"), ("ArrowUp", "handle")):
        page.press(key)
        assert page.ask(chosen) == call
    page.press("Enter")
    assert page.ask("document.querySelector('.flame').dataset.zoomed") == "handle"
    assert "100 % of what is shown" in shown(page, ".details .facts")[0]
    page.press("Escape")
    assert page.ask("document.querySelector('.flame').dataset.zoomed") == "main"
    page.press("/")
    page.type("copy_h")
    assert shown(page, ".tools .found") == ["1 call: 2.9 kB, 30 %"]
    page.press("Enter")
    assert page.ask(chosen) == "copy_header"


def test_the_flame_graph_by_clicks(page: Page) -> None:
    """A click zooms to what is under it; by growth the steady site is gone; allocation first turns the tree over."""
    go(page, "flame")
    page.wait("document.querySelector('.flame').dataset.chosen")
    page.click(".flame", 0.9, 2.5 / 4)
    assert page.ask("document.querySelector('.flame').dataset.zoomed") == "handle"
    page.click("[data-value=growth]")
    assert "550 bytes/s" in shown(page, ".details .facts")[0]
    page.click("[data-value=true]")
    page.ask("document.querySelector('.flame').focus()")
    page.press("ArrowDown")
    assert page.ask("document.querySelector('.flame').dataset.chosen") == EVIL


def test_losses_have_their_remedies(page: Page) -> None:
    """What the figures lack is said with what to do about it."""
    go(page, "trace")
    assert shown(page, ".losses .remedy") == ["wait"]
    assert shown(page, ".losses b") == ["7"]


def test_light_and_dark(page: Page) -> None:
    """Colours follow the system until a reader chooses."""
    background = "getComputedStyle(document.body).backgroundColor"
    light = page.ask(background)
    page.resize(1280, 800, dark=True)
    dark = page.ask(background)
    assert sum(map(int, dark[4:-1].split(","))) < 150 < 600 < sum(map(int, light[4:-1].split(",")))
    page.click("#theme")
    assert page.ask(background) == light
    page.click("#theme")
    page.click("#theme")
    assert page.ask(background) == dark


@pytest.mark.parametrize("width", [400, 720, 2560])
def test_it_fits_any_screen(page: Page, width: int) -> None:
    """No view has to be scrolled sideways."""
    page.resize(width, 800)
    for view in ("overview", "sites", "flame", "trace", "site-2"):
        go(page, view)
        assert page.ask("document.documentElement.scrollWidth") <= width, view


@pytest.mark.alone
def test_ten_thousand_sites_open_in_two_seconds(browser: Page, tmp_path: Path) -> None:
    """From the address to the drawn overview; then the table has only the rows in sight, and scrolls to its end."""
    series = many_sites.series()
    path = tmp_path / "many.html"
    with path.open("wb") as out:
        html.write(many_sites.report(series), out, series=series)
    began = time.monotonic()
    browser.open(path)
    took = time.monotonic() - began
    assert took < 2, f"{took:.2f} s"
    go(browser, "sites")
    browser.wait("document.querySelectorAll('.row').length > 5")
    browser.ask("document.querySelector('.body').focus()")
    browser.press("End")
    browser.wait(f"[...document.querySelectorAll('.row .rank')].pop().textContent === '{many_sites.SITES}'")
    assert browser.ask("document.querySelectorAll('.row').length") < 100


def test_one_report_needs_no_curves(browser: Page, tmp_path: Path) -> None:
    """Without a recording, as --listen serves it, the page has all but the curves, and says why."""
    report = replace(many_sites.report(many_sites.series(20, 2)), sites=None)
    path = tmp_path / "one.html"
    with path.open("wb") as out:
        html.write(report, out)
    browser.events.clear()
    browser.open(path)
    assert "one report" in browser.ask("document.querySelector('#view').textContent")
    for view in ("sites", "flame", "trace", "site-1"):
        go(browser, view)
    assert browser.problems() == []
