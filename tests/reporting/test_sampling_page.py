"""The page on which points are answered: escaping, and answering in a browser."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.reporting.browser import Browser

from pixelwise.labels import Labels
from pixelwise.reporting.sampling_page import chip, chip_window, write_sampling_page

NAMES = ("field", 'a "b", c', "</script><b>x</b>", " spaced")


def page(folder: Path, count: int = 4) -> Path:
    (folder / "chips").mkdir()
    points = []
    for number in range(1, count + 1):
        Image.fromarray(np.full((101, 101, 3), 40 * number, np.uint8)).save(folder / "chips" / f"{number}.png")
        place = {"point": number, "row": number, "column": 2 * number, "place": f"row {number}"}
        points.append(place | {"chip": f"chips/{number}.png"})
    write_sampling_page(folder / "index.html", "a<b>.tif", f"id{folder.name}", Labels(NAMES), points, "unsure")
    return folder / "index.html"


def test_names_cannot_end_the_data(tmp_path: Path) -> None:
    text = page(tmp_path).read_text()
    assert text.count("</script>") == 2
    assert "<b>" not in text
    data = text.split('id="data">')[1].split("</script>")[0]
    assert [each["name"] for each in json.loads(data)["classes"]] == list(NAMES)


@pytest.mark.parametrize("at", [(0, 0), (5, 299), (150, 150)])
def test_the_point_is_in_the_centre_of_its_chip(at: tuple[int, int]) -> None:
    image = np.zeros((1, 200, 300), np.uint8)
    image[0, at[0], at[1]] = 77
    window = chip_window(image.shape[1:], at)
    shown = chip(image[(slice(None), *window.slices)], window, at)
    assert shown.shape == (101, 101, 3)
    assert (shown[50, 50] == 77).all()


@pytest.fixture(scope="module")
def browser():
    with Browser() as browser:
        yield browser


def press(browser: Browser, key: str) -> None:
    for kind in ("keyDown", "keyUp"):
        browser.call("Input.dispatchKeyEvent", type=kind, key=key, text=key if len(key) == 1 else "")


def heading(browser: Browser) -> str:
    return str(browser.ask("document.getElementById('heading').textContent"))


def answers(browser: Browser) -> list[list[str]]:
    """Save, and return the table that would be downloaded."""
    browser.ask(
        "window.saved = null; HTMLAnchorElement.prototype.click = function () {"
        " window.savedName = this.download; };"
        "const create = URL.createObjectURL; URL.createObjectURL = blob => { blob.text().then(t => window.saved = t); return create(blob); }; 0"
    )
    browser.ask("document.getElementById('save').click(); 0")
    for _ in range(100):
        text = browser.ask("window.saved")
        if text is not None:
            break
    assert text is not None
    assert browser.ask("window.savedName") == "answers.csv"
    return list(csv.reader(io.StringIO(text)))


def test_points_are_answered_by_keys_and_clicks_and_kept(browser: Browser, tmp_path: Path) -> None:
    path = page(tmp_path)
    browser.problems.clear()
    browser.show(path)
    assert heading(browser) == "Point 1 of 4"
    assert browser.ask("document.getElementById('chip').naturalWidth") == 101
    press(browser, "2")
    assert heading(browser) == "Point 2 of 4"
    press(browser, "ArrowRight")
    assert heading(browser) == "Point 3 of 4"
    browser.ask("document.querySelectorAll('#answers button')[2].click(); 0")
    press(browser, "0")
    assert heading(browser) == "Point 2 of 4", "the one that is left"
    browser.show(path)
    assert heading(browser) == "Point 2 of 4", "the answers are kept"
    press(browser, "4")
    press(browser, "9")
    assert browser.ask("document.getElementById('done').textContent") == "4 of 4 answered"
    rows = answers(browser)
    assert rows[0] == ["sample", "point", "row", "column", "answer"]
    assert [row[4] for row in rows[1:]] == [NAMES[1], NAMES[3], NAMES[2], "unsure"]
    assert [row[:4] for row in rows[1:]] == [[f"id{tmp_path.name}", str(n), str(n), str(2 * n)] for n in range(1, 5)]
    assert browser.problems == []


def test_an_answer_is_corrected(browser: Browser, tmp_path: Path) -> None:
    browser.show(page(tmp_path))
    press(browser, "1")
    press(browser, "ArrowLeft")
    pressed = "[...document.querySelectorAll('#answers button')].map(b => b.getAttribute('aria-pressed'))"
    assert browser.ask(pressed)[0] == "true"
    press(browser, "3")
    assert answers(browser)[1][4] == NAMES[2]


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [360, 1440])
def test_the_page_fits_and_is_legible(browser: Browser, tmp_path: Path, width: int, dark: bool) -> None:
    from tests.reporting.test_browser import CONTRAST, STICKS_OUT

    browser.problems.clear()
    browser.show(page(tmp_path), width=width, dark=dark)
    assert browser.ask(STICKS_OUT) == []
    assert browser.ask(CONTRAST) == []
    assert browser.problems == []
