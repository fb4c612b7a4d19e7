"""The whole page: sound HTML, every number with its n and the way to its definition, and nothing that can be broken out of."""

from __future__ import annotations

import copy
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from tests.reporting.drawn import draw

from pixelwise.errors import DataError
from pixelwise.labels import Labels
from pixelwise.metrics.definitions import DEFINITIONS
from pixelwise.reporting import choose, write_report

VOID = {"br", "col", "hr", "img", "input", "link", "meta"}
EVIL = "<script>alert(1)</script>\"'></style><img src=x onerror=alert(1)>\u202egnp.exe\u2066\udcff\x00\x1b[31m"


class Page(HTMLParser):
    """Read a page, and refuse elements that are not closed in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.words = [], [], []
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        assert len({key for key, _ in attrs}) == len(attrs), (tag, attrs)
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.words.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def written(tmp_path, scores, labels, **options):
    path = tmp_path / "report.html"
    write_report(path, scores, labels=labels, **options)
    raw = path.read_bytes()
    return Page(raw.decode("utf-8"))


def require_sound(page):
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for link in page.all("a"):
        if link["href"].startswith("#"):
            assert link["href"][1:] in ids, link
        else:
            assert link["href"].startswith(("https://arxiv.org/abs/", "https://doi.org/10.")), link
    assert all(image["alt"] and image["src"].startswith("data:image/") for image in page.all("img"))
    assert not [tag for tag, _ in page.elements if tag in ("link", "iframe", "object", "embed", "base", "form")]
    assert len(page.all("script")) == 1
    assert not [key for _, attributes in page.elements for key in attributes if key.startswith("on")]
    assert all("scope" in head for head in page.all("th"))
    assert all(drawing.get("aria-label") for drawing in page.all("svg"))


def test_the_page_is_sound_and_whole(tmp_path, case, scores, run):
    case.fetched.clear()
    page = written(
        tmp_path,
        scores,
        case.labels,
        fetch=case.fetch,
        run=run,
        environment={"Python": "3.11"},
        commands=["pixelwise evaluate run data"],
    )
    require_sound(page)
    sections = [section["id"] for section in page.all("section")]
    assert sections == [
        "classes", "pictures", "suspects", "confusion", "sizes", "distances", "calibration", "scores", "training", "data",
        "configuration", "repeat", "definitions",
    ]  # fmt: skip
    assert "pixelwise evaluate run data" in page.text
    assert (
        "temperature 1.25, fitted on the val part, which moved the calibration error there from 0.080 to 0.020"
        in page.text
    )
    assert "because # of <b>this</b>" in page.text
    assert "1 step had a loss or gradient that was no number, and was not made." in page.text
    assert (tmp_path / "report.html").stat().st_size < 4e6


def test_only_what_is_shown_is_fetched_and_each_image_once(tmp_path, case, scores):
    case.fetched.clear()
    written(tmp_path, scores, case.labels, fetch=case.fetch)
    chosen = {id for ids in choose(scores).values() for id in ids}
    assert len(case.fetched) == len(set(case.fetched))
    assert set(case.fetched) == chosen | {one["id"] for one in scores["tables"]["suspects"][:12]}


def test_every_score_stands_there_with_its_interval_its_n_and_a_link_to_its_definition(tmp_path, case, scores):
    page = written(tmp_path, scores, case.labels)
    links = {link["href"] for link in page.all("a")}
    for row in (scores, *scores["classes"]):
        for key in DEFINITIONS:
            if row.get(key) is None:
                continue
            assert f"#def-{key}" in links, key
            low, high, n = (row[f"{key}_{end}"] for end in ("low", "high", "n"))
            if DEFINITIONS[key].unit != "share, 0…1":
                continue
            assert f"{row[key]:.3f}" in page.text, key
            assert f"{low:.3f}–{high:.3f}" in page.text, key
            assert f"n\xa0{n}" in " ".join(page.words), key


def test_sentences_say_what_the_numbers_are(tmp_path, case, scores):
    text = written(tmp_path, scores, case.labels).text
    miou = round(100 * scores["miou"])
    assert f"On 12 images, prediction and truth overlap by {miou} % on average over the 4 classes" in text
    assert f"always “ {scores['baseline']['answer']} ” {scores['baseline']['miou']:.3f}" in text


def test_nothing_breaks_out(tmp_path, run):
    labels = Labels((EVIL, "שלום<b>", "x" * 3000, "&amp;"))
    case = draw(labels, images=6)
    scores = case.scores()
    renamed = copy.deepcopy(scores)
    new = {sample.id: f"{EVIL}/{sample.id}" for sample in case.samples}
    for one in (*renamed["per_image"], *renamed["tables"]["suspects"]):
        one["id"] = new[one["id"]]
    old = {after: before for before, after in new.items()}
    for key in ("model", "data", "split", "convention", "interval"):
        renamed[key] = EVIL
    renamed["notices"], renamed["excluded"] = [EVIL], [EVIL]
    renamed["peer"] = {"convention": EVIL, "scores": [{"call": EVIL, "says": EVIL, "value": 0.5}]}
    for name in ("config.yaml", "data.json", "log.jsonl"):
        (run / name).write_text((run / name).read_text() + f"\n{EVIL!r}: [\n")
    page = written(
        tmp_path,
        renamed,
        labels,
        fetch=lambda id: case.fetch(old[id]),
        run=run,
        title=EVIL,
        environment={EVIL: EVIL},
        commands=[EVIL],
    )
    require_sound(page)
    assert "<script>alert(1)</script>" in page.text, "shown as text"
    raw = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert raw.count("<script") == 1
    assert not set("\u202e\u2066\x00\x1b") & set(raw)
    assert "\\u202e" in raw
    assert "\\xff" in raw


def test_the_policy_forbids_all_but_what_is_there(tmp_path, case, scores):
    import base64
    import hashlib

    page = written(tmp_path, scores, case.labels)
    policy = next(m["content"] for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    raw = (tmp_path / "report.html").read_text(encoding="utf-8")
    script = re.search(r"<script>(.*)</script>", raw, re.S)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert f"script-src 'sha256-{digest}'" in policy
    assert "unsafe-eval" not in policy
    assert "script-src 'unsafe-inline'" not in policy


@pytest.mark.parametrize(
    "missing", ["tables", "per_image", "baseline", "confusion", "convention", "interval", "excluded"]
)
def test_a_missing_part_leaves_out_what_needs_it(tmp_path, case, scores, missing):
    part = {key: value for key, value in scores.items() if key != missing}
    require_sound(written(tmp_path, part, case.labels, fetch=case.fetch))


def test_masks_of_another_tool_have_no_probabilities_and_no_run(tmp_path):
    case = draw(Labels(("background", "disc")), seeing=False)
    page = written(tmp_path, case.scores(), case.labels, fetch=case.fetch)
    require_sound(page)
    assert not {"calibration", "suspects", "training", "data", "configuration"} & {s["id"] for s in page.all("section")}


def test_one_class(tmp_path):
    case = draw(Labels(("all",)))
    require_sound(written(tmp_path, case.scores(), case.labels, fetch=case.fetch))


def test_one_image_has_no_interval_and_says_so(tmp_path):
    case = draw(Labels(("background", "disc")), images=1)
    page = written(tmp_path, case.scores(), case.labels, fetch=case.fetch)
    require_sound(page)
    assert "no interval" in page.text
    assert case.fetched == ["p00"]


def test_many_classes_show_the_matrix_as_a_image_and_the_strongest_confusions(tmp_path):
    labels = Labels(tuple(f"class number {k}" for k in range(150)))
    case = draw(labels, images=6)
    scores = case.scores()
    page = written(tmp_path, scores, labels, fetch=case.fetch)
    require_sound(page)
    assert sum(image.get("class") == "pixels" for image in page.all("img")) == 3
    matrix = np.array(scores["confusion"])
    np.fill_diagonal(matrix, 0)
    t, p = np.unravel_index(matrix.argmax(), matrix.shape)
    assert f"class number {t} is taken for class number {p}" in page.text
    assert (tmp_path / "report.html").stat().st_size < 4e6


def test_undefined_scores_are_shown_as_such(tmp_path, case, scores):
    nothing = copy.deepcopy(scores)
    for row in (nothing, *nothing["classes"], nothing["baseline"]):
        for key in DEFINITIONS:
            for end in ("", "_low", "_high"):
                if f"{key}{end}" in row:
                    row[f"{key}{end}"] = None
    for one in nothing["per_image"]:
        one["miou"] = None
    page = written(tmp_path, nothing, case.labels, fetch=case.fetch)
    require_sound(page)
    assert "No class has a union of truth and prediction, so there is no mIoU." in page.text
    assert "nan" not in page.text.lower().split()


@pytest.mark.parametrize(("bands", "dtype"), [(1, np.uint8), (1, np.uint16), (7, np.uint16), (2, np.int32)])
def test_images_of_every_kind(tmp_path, bands, dtype):
    case = draw(Labels(("background", "disc")), images=3, bands=bands, dtype=dtype)
    page = written(tmp_path, case.scores(), case.labels, fetch=case.fetch)
    assert sum("panel" not in image and "alt" in image for image in page.all("img")) >= 12


def test_what_the_prediction_left_open_is_a_column_and_rows_add_up(tmp_path):
    case = draw(Labels(("background", "disc")), seeing=False)
    for mask in case.predictions.values():
        mask[10:20] = 255
    scores = case.scores()
    assert scores["unassigned_pixels"]
    page = written(tmp_path, scores, case.labels)
    assert "(open)" in page.text
    recall = scores["classes"][0]["recall"]
    shown = re.findall(r'class="number hit" style="--w:(\d+)%"', (tmp_path / "report.html").read_text())
    assert shown[0] == f"{100 * recall:.0f}"


def test_a_image_that_is_gone_is_told_and_breaks_nothing(tmp_path, case, scores):
    def gone(id):
        raise DataError(id, expected="an image", found="nothing", do="Check the path.")

    page = written(tmp_path, scores, case.labels, fetch=gone)
    require_sound(page)
    assert "expected an image, found nothing. Check the path." in page.text


def test_a_run_folder_that_is_empty_or_broken_breaks_nothing(tmp_path, case, scores):
    folder = tmp_path / "broken"
    folder.mkdir()
    require_sound(written(tmp_path, scores, case.labels, run=folder))
    (folder / "config.yaml").write_bytes(b"a: [\xff")
    (folder / "data.json").write_text('{"fingerprint": [1]}')
    (folder / "log.jsonl").write_text(
        '[1]\n{"event": "step"}\nnot json\n{"event": "step", "step": "x", "loss": null}\n'
    )
    page = written(tmp_path, scores, case.labels, run=folder)
    require_sound(page)
    assert "a: [\\xff" in page.text, "what is no YAML is shown as it is"


def test_equal_input_gives_an_equal_page(tmp_path, case, scores):
    first = written(tmp_path, scores, case.labels, fetch=case.fetch)
    assert first.elements == written(tmp_path, scores, case.labels, fetch=case.fetch).elements
