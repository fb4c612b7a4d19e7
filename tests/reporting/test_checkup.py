"""The page of a data check: content, escaping and layout."""

from __future__ import annotations

import re

import numpy as np
import pytest
from tests.reporting.browser import Browser
from tests.reporting.test_browser import CONTRAST, OPEN_ALL, STICKS_OUT

from pixelwise.errors import MaskError
from pixelwise.labels import Labels
from pixelwise.reporting import write_checkup

LABELS = Labels(("background", "road", "<b>person</b>"))


def finding(severity="error", **changes):
    plain = {
        "kind": "unknown-ids", "severity": severity, "what": "3 masks hold ids that no class has: 17 in 212 pixels",
        "where": ["masks/a.png", "masks/<script>alert(1)</script>.png", "c", "d", "e"], "count": 6, "of": 9,
        "why": "A class without a name is not learned.", "fix": "pixelwise check data --set 'data.ignored=[x]'",
        "examples": [["train", 0], ["val", 1]],
    }  # fmt: skip
    return plain | changes


def plain(findings=None):
    return {
        "data": "my/<i>data</i>",
        "parts": {"train": 6, "val": 3},
        "classes": [
            {"name": name, "pixels": {"train": 100 * k + 1, "val": 10}, "pictures": {"train": k, "val": 2}}
            for k, name in enumerate(LABELS.names)
        ],
        "ignored_share": 0.02,
        "findings": [finding(), finding("warning", kind="shifted"), finding("notice", kind="grey", examples=[])]
        if findings is None
        else findings,
    }


def read_example(split, index):
    if split == "val":
        raise MaskError("masks/b.png", expected="ids 0–2", found="17", do="Add it.")
    image = np.random.default_rng(index).integers(0, 255, (3, 50, 70), dtype=np.uint8)
    return f"p{index}", image, np.full((50, 70), index % 3, np.uint8)


@pytest.fixture
def page(tmp_path):
    write_checkup(tmp_path / "check.html", plain(), labels=LABELS, read_example=read_example)
    return tmp_path / "check.html"


def test_findings_are_shown_with_their_fix_and_escaped(page):
    text = page.read_text()
    assert text.count('<article class="finding') == 3
    assert "3 masks hold ids that no class has: 17 in 212 pixels" in text
    assert "--set &#39;data.ignored=[x]&#39;" in text
    assert "<b>person" not in text
    assert "<i>data" not in text
    assert "<script>alert" not in text
    assert text.count("<script>") == 1


def test_examples_are_shown_or_the_reason_why_not(page):
    text = page.read_text()
    assert text.count('src="data:image/webp') == 2 * 2  # image and mask of train 0, in two findings
    assert "masks/b.png: expected ids 0–2, found 17. Add it." in text
    assert "and 1 more" in text
    assert "train · <bdi>p0</bdi>" in text


def test_each_image_is_fetched_once(tmp_path):
    read = []

    def recording(split, index):
        read.append((split, index))
        return read_example(split, index)

    write_checkup(tmp_path / "c.html", plain(), labels=LABELS, read_example=recording)
    assert sorted(read) == [("train", 0), ("val", 1)]


@pytest.mark.parametrize(
    ("severities", "verdict"),
    [
        (["error", "warning"], "1\u00a0error would prevent training"),
        (["warning"], "The data can be used for training, but the warnings"),
        (["notice"], "The data can be used for training."),
        ([], "The data can be used for training."),
    ],
)
def test_the_verdict_depends_on_the_worst_severity(tmp_path, severities, verdict):
    write_checkup(tmp_path / "c.html", plain([finding(s) for s in severities]), labels=LABELS)
    assert verdict in (tmp_path / "c.html").read_text()


def test_classes_have_shares_and_missing_classes_are_marked(page):
    text = page.read_text()
    assert re.search(r'class="number miss"[^>]*>0 of 6<', text)
    assert "2 of 3" in text
    assert "2\u202f% of the pixels are ignored" in text


def test_suspects_are_shown_if_a_model_was_given(tmp_path):
    suspect = {
        "id": "train/p1", "truth": "background", "prediction": "road", "pixels": 90, "box": [1, 2, 20, 30], "confidence": 0.97,
    }  # fmt: skip

    def fetch(id):
        assert id == "train/p1"
        return (*read_example("train", 0)[1:], np.ones((50, 70), np.uint8))

    write_checkup(tmp_path / "c.html", plain() | {"suspects": [suspect], "model": "run"}, labels=LABELS, fetch=fetch)
    text = (tmp_path / "c.html").read_text()
    assert "Possible annotation errors" in text
    assert "with a confidence of 97\u202f%" in text


@pytest.fixture(scope="module")
def browser():
    with Browser() as browser:
        yield browser


@pytest.mark.parametrize("width", [360, 1440])
def test_it_fits_and_makes_no_requests(browser, page, width):
    browser.problems.clear()
    browser.show(page, width)
    browser.ask(OPEN_ALL)
    assert browser.ask(STICKS_OUT) == []
    assert browser.ask("document.documentElement.scrollWidth") <= width
    assert browser.problems == []


@pytest.mark.parametrize("dark", [False, True])
def test_all_text_has_enough_contrast(browser, page, dark):
    browser.show(page, dark=dark)
    browser.ask(OPEN_ALL)
    assert browser.ask(CONTRAST) == []
