"""The page in a browser: quiet, as wide as the window, sortable, files to take away, readable in the dark, printed."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from analysis.compare import compare_run
from analysis.figures import captioned, front, looks
from analysis.report import Cell, Gallery, Page, Passage, Points, Section, Table, render
from tests.analysis.chromium import BROWSER, DRIVER, Chromium

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(
    not (BROWSER and DRIVER),
    reason="no chromium and chromedriver here; Debian: apt-get install chromium chromium-driver",
)
OPEN = "document.querySelectorAll('main details').forEach(fold => { fold.open = true })"
WIDER = """
return [...document.querySelectorAll('body *')].filter(e => !e.parentElement.closest('.scroll, .frame'))
  .filter(e => e.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
  .map(e => e.tagName + '.' + e.className)"""
CONTRAST = """
const light = c => { const [r, g, b] = c.match(/[\\d.]+/g).slice(0, 3).map(v => { v /= 255;
  return v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4 }); return .2126 * r + .7152 * g + .0722 * b };
const ground = e => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;
  if (c !== 'rgba(0, 0, 0, 0)') return c } return 'rgb(255, 255, 255)' };
return [...document.querySelectorAll('p, td, th, li, a, summary, dt, dd, h1, h2, figcaption, small, button')]
  .filter(e => e.textContent.trim() && e.checkVisibility()).map(e => {
    const [a, b] = [light(getComputedStyle(e).color), light(ground(e))].sort((x, y) => y - x);
    return [(a + .05) / (b + .05), e.tagName + ': ' + e.textContent.trim().slice(0, 40)] })
  .filter(([ratio]) => ratio < 4.5)"""
PIXEL = """
const [done] = [arguments[1]], image = document.images[arguments[0]], canvas = document.createElement('canvas');
canvas.width = canvas.height = 20; const ink = canvas.getContext('2d'); ink.drawImage(image, 0, 0, 20, 20);
return [...ink.getImageData(0, 0, 1, 1).data]"""


@pytest.fixture(scope="module")
def report(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the report of a small run."""
    return compare_run(run_folder, tmp_path_factory.mktemp("page"))


@pytest.fixture(scope="module")
def browser(report: Path) -> Iterator[Chromium]:
    """Return a browser that shows the report."""
    with Chromium() as browser:
        browser.look(1400)
        browser.open(report)
        yield browser


def wait_for(path: Path, seconds: float = 20) -> str:
    """Return the text of a file that a download leaves."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if path.is_file() and path.stat().st_size:
            return path.read_text(encoding="utf-8")
        time.sleep(0.05)
    raise AssertionError(f"{path.name} was not downloaded; there are {[p.name for p in path.parent.iterdir()]}")


@pytest.mark.parametrize("width", [1400, 768, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_wider_than_the_window_and_every_word_is_readable(
    browser: Chromium, width: int, scheme: str
) -> None:
    browser.look(width, scheme=scheme)
    browser.run(OPEN)
    size = browser.run("return [document.documentElement.scrollWidth, innerWidth]")
    assert size == [width, width], browser.run(WIDER)
    assert browser.run(WIDER) == []
    assert browser.run(CONTRAST) == []


def test_the_console_is_silent_and_every_picture_is_shown(browser: Chromium) -> None:
    browser.look(1400)
    shown = browser.run("return [...document.images].map(i => i.complete && i.naturalWidth > 0)")
    assert len(shown) > 30
    assert all(shown)
    assert browser.messages() == []


def test_figures_turn_dark_with_the_page(browser: Chromium) -> None:
    at = browser.run("return [...document.images].findIndex(i => i.src.startsWith('data:image/svg'))")
    ground = {}
    for scheme in ("light", "dark"):
        browser.look(1400, scheme=scheme)
        time.sleep(0.3)
        ground[scheme] = browser.run(PIXEL, at)[:3]
    assert ground["light"] == [255, 255, 255]
    assert max(ground["dark"]) < 60


def test_a_click_sorts_a_table_and_a_second_one_turns_it_round(browser: Chromium) -> None:
    browser.look(1400)
    read = """
      const table = [...document.querySelectorAll('#agreement table')][0];
      const at = [...table.tHead.rows[0].cells].findIndex(c => c.textContent.trim() === arguments[0]);
      const key = new KeyboardEvent('keydown', { key: 'Enter' }), head = table.tHead.rows[0].cells[at];
      const event = arguments[1] === 'key' ? key : new Event('click');
      if (arguments[1]) head.querySelector('[role=button]').dispatchEvent(event);
      return [...table.tBodies[0].rows].map(r => r.cells[at].firstChild.textContent.trim())"""
    before = browser.run(read, "bias %", False)
    up = browser.run(read, "bias %", True)
    down = browser.run(read, "bias %", "key")
    assert sorted(map(float, before)) == list(map(float, up))
    assert list(map(float, down)) == list(map(float, up))[::-1]
    assert before != up
    names = browser.run(read, "method", True)
    assert names == sorted(names)
    state = "return document.querySelector('#agreement th[aria-sort]').textContent.trim()"
    assert browser.run(state) == "method"


def test_figures_their_data_and_tables_are_downloaded_from_the_file(browser: Chromium) -> None:
    browser.look(1400)
    links = browser.run("return [...document.querySelectorAll('a.file')].map(a => [a.download, a.hidden, !!a.href])")
    assert all(not hidden and target for _, hidden, target in links)
    click = "document.querySelector(arguments[0]).click()"
    browser.run(click, '#density a[download="density_area.svg"]')
    assert "</svg>" in wait_for(browser.downloads / "density_area.svg")
    browser.run(click, '#density a[download="density_area.csv"]')
    assert wait_for(browser.downloads / "density_area.csv").startswith("neighbours,n_cells,error")
    browser.run(click, "#search a[data-table]")
    name = browser.run("return document.querySelector('#search a[data-table]').download")
    rows = wait_for(browser.downloads / name).splitlines()
    assert rows[0].startswith("trial,target,model,status")
    assert len(rows) == 7
    assert any("\"'=cmd() / resnet18" in row for row in rows), "an apostrophe before what a spreadsheet would run"


def test_the_contents_follow_the_reader_on_a_wide_page(browser: Chromium) -> None:
    browser.look(1400)
    assert browser.run("return document.querySelector('nav details').open")
    browser.run("document.documentElement.style.scrollBehavior = 'auto'")
    browser.run("document.getElementById('traits').scrollIntoView()")
    time.sleep(0.5)
    assert browser.run("return document.querySelector('nav a[aria-current]').hash") == "#traits"
    inside = "const r = document.querySelector('nav').getBoundingClientRect(); return r.top >= -1 && r.top < 5"
    assert browser.run(inside), "the contents stay in view"


def test_the_methods_text_is_copied_whole(browser: Chromium) -> None:
    browser.look(1400)
    browser.cdp("Browser.grantPermissions", permissions=["clipboardReadWrite", "clipboardSanitizedWrite"])
    browser.run("document.querySelector('button[data-copy]').click()")
    time.sleep(0.3)
    assert browser.run("return document.querySelector('button[data-copy]').textContent").startswith(("Copied", "Sel"))
    assert "A cell counted as found" in browser.run("return getSelection().toString()")


def test_hostile_and_endless_names_run_nothing_and_widen_nothing(browser: Chromium, tmp_path: Path) -> None:
    names = ("<img src=x onerror=alert(1)>", '"><script>alert(2)</script>', "w" * 60, "a$b_{c}$ </svg>")
    rows: list[list[Cell | str]] = [[name, Cell("1.0", below=name)] for name in names]
    pictures = [front({name: (0.5, 0.5), "b": (0.6, 0.4)}, "area", ["b"], looks([name, "b"])) for name in names]
    pictures = [captioned(picture, name) for picture, name in zip(pictures, names, strict=True)]
    blocks = (Table(names[0], ("method", names[2]), rows, ("method",), names[1]), Gallery(pictures, names[2]))
    passage = Passage(names, names)
    section = Section("a", names[2], names, (*blocks, passage, Points((names[:2], names[2:]))), names[2])
    told = Page(names[0], names[2], names, names, (section,), True, dict(zip(names, names, strict=True)))
    (tmp_path / "hostile.html").write_text(render(told), encoding="utf-8")
    for width in (1400, 390):
        browser.look(width)
        browser.open(tmp_path / "hostile.html")
        assert browser.run("return document.documentElement.scrollWidth") == width
        assert browser.run(WIDER) == []
        assert browser.run("return [...document.images].every(i => i.complete && i.naturalWidth > 0)")
    assert browser.messages() == []
    assert browser.run("return document.querySelectorAll('script').length") == 1


def test_it_prints(browser: Chromium, report: Path, tmp_path: Path) -> None:
    browser.open(report)
    browser.printed(tmp_path / "page.pdf")
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")
    assert (tmp_path / "page.pdf").stat().st_size > 100_000


def test_the_contents_are_folded_on_a_phone_and_the_page_works_without_its_script(
    browser: Chromium, report: Path
) -> None:
    browser.look(390)
    browser.open(report)
    assert not browser.run("return document.querySelector('nav details').open")
    browser.cdp("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(report)
        assert browser.run("return document.documentElement.className") == ""
        assert browser.run("return document.querySelectorAll('nav a').length") > 15
        assert browser.run("return document.querySelector('#verdict').checkVisibility()")
        assert browser.run("return [...document.querySelectorAll('a.file')].every(a => a.hidden || a.href)")
        assert browser.run("return document.documentElement.scrollWidth") == 390
    finally:
        browser.cdp("Emulation.setScriptExecutionDisabled", value=False)
