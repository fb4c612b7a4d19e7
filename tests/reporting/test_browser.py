"""The report in a browser: layout, contrast in light and dark, interaction, printing, and no warnings."""

from __future__ import annotations

import pytest
from tests.reporting.browser import Browser
from tests.reporting.drawn import draw

from pixelwise.labels import Labels
from pixelwise.reporting import write_report

# Elements that overflow the page and are not in a container that scrolls.
STICKS_OUT = """[...document.querySelectorAll("main *, nav")].filter(e => {
  const box = e.getBoundingClientRect();
  return box.width > 1 && box.right > innerWidth + 1 && !e.closest(".scroll") && !e.closest("svg") && !e.closest(".unseen") && !e.closest(".baseline bdi");
}).map(e => e.tagName + "." + e.className + " " + e.getBoundingClientRect().right)"""
# Contrast of all text with its background (WCAG 2.2): relative luminances, with translucent layers blended.
CONTRAST = """(() => {
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const rgba = c => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = c; canvas.fillRect(0, 0, 1, 1);
    const d = canvas.getImageData(0, 0, 1, 1).data; return [d[0], d[1], d[2], d[3] / 255]; };
  const over = (a, b) => [0, 1, 2].map(i => a[i] * a[3] + b[i] * (1 - a[3])).concat(1);
  const behind = e => e ? over(rgba(getComputedStyle(e).backgroundColor), behind(e.parentElement)) : [255, 255, 255, 1];
  const light = c => { const [r, g, b] = c.map(v => v / 255).map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
    return .2126 * r + .7152 * g + .0722 * b; };
  const low = [];
  for (const e of document.querySelectorAll("body *")) {
    if (![...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()) || !e.getClientRects().length || e.closest("script")) continue;
    const style = getComputedStyle(e), back = behind(e);
    const ink = over(rgba(e.closest("svg") ? style.fill : style.color), back);
    const [a, b] = [light(ink), light(back)].sort((x, y) => y - x);
    if ((a + .05) / (b + .05) < 4.5) low.push([e.tagName, e.className, e.textContent.slice(0, 20), (a + .05) / (b + .05)].join(" "));
  }
  return low;
})()"""
OPEN_ALL = "document.querySelectorAll('details').forEach(e => e.open = true)"


@pytest.fixture(scope="module")
def browser():
    with Browser() as browser:
        yield browser


@pytest.fixture
def report(tmp_path, case, scores, run):
    path = tmp_path / "report.html"
    write_report(
        path, scores, labels=case.labels, fetch=case.fetch, run=run, environment={"A": "b"}, commands=["x " * 90]
    )
    return path


@pytest.fixture
def hostile(tmp_path):
    """Write a report with long and unusual names."""
    labels = Labels(("W" * 400, "שלום " * 20, "<script>document.title='broken'</script>", "a b " * 60))
    case, path = draw(labels, images=3), tmp_path / "hostile.html"
    write_report(path, {**case.scores(), "model": "m" * 500, "notices": ["n" * 900]}, labels=labels, fetch=case.fetch)
    return path


@pytest.mark.parametrize("width", [360, 768, 1440])
@pytest.mark.parametrize("name", ["report", "hostile"])
def test_it_fits(browser, request, name, width):
    browser.problems.clear()
    browser.show(request.getfixturevalue(name), width)
    browser.ask(OPEN_ALL)
    assert browser.ask(STICKS_OUT) == []
    assert browser.ask("document.documentElement.scrollWidth") <= width
    assert browser.ask("document.title").endswith("· pixelwise")
    assert browser.problems == []


@pytest.mark.parametrize("dark", [False, True])
def test_all_text_has_enough_contrast(browser, report, dark):
    browser.show(report, dark=dark)
    browser.ask(OPEN_ALL)
    background = browser.ask("getComputedStyle(document.documentElement).backgroundColor")
    assert background == ("rgb(20, 22, 26)" if dark else "rgb(252, 252, 251)")
    assert browser.ask(CONTRAST) == []


def test_tabs_work_and_tables_sort(browser, report):
    browser.problems.clear()
    browser.show(report)
    seen = "[...document.querySelectorAll('.panel')].map(e => e.getClientRects().length > 0)"
    assert browser.ask(seen) == [True, False, False]
    browser.ask("document.querySelectorAll('.tabs label')[2].click()")
    assert browser.ask(seen) == [False, False, True]
    column = "[...document.querySelector('table[data-sortable]').tBodies[0].rows].map(r => +r.cells[1].dataset.sort)"
    button = "document.querySelectorAll('table[data-sortable] thead th')[1].querySelector('button').click()"
    browser.ask(button)
    found = browser.ask(column)
    assert found == sorted(found, reverse=True)
    browser.ask(button)
    assert browser.ask(column) == found[::-1]
    assert browser.problems == []


def test_links_lead_to_definitions(browser, report):
    browser.show(report)
    browser.ask("document.querySelector('a[href=\"#def-iou\"]').click()")
    assert browser.ask("document.querySelector(':target h4').firstChild.data").strip() == "IoU"


def test_images_can_be_decoded(browser, report):
    browser.show(report)
    broken = "Promise.all([...document.images].map(i => i.decode().then(() => 0, () => 1))).then(all => all.reduce((a, b) => a + b, 0))"
    found = browser.call("Runtime.evaluate", expression=broken, awaitPromise=True, returnByValue=True)
    assert found["result"]["value"] == 0
    assert browser.ask("document.images.length") > 40


def test_all_sections_are_printed(browser, report):
    browser.show(report)
    assert browser.printed().startswith(b"%PDF")
    browser.call("Emulation.setEmulatedMedia", media="print")
    shown = "[...document.querySelectorAll('.panel, main h2')].every(e => e.getClientRects().length > 0)"
    assert browser.ask(shown)
    assert browser.ask("document.querySelector('nav').getClientRects().length") == 0
    browser.call("Emulation.setEmulatedMedia", media="")
