"""The report: valid HTML, scores with intervals and links to their definitions, and escaping."""

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
from pixelwise.reporting import write_report
from pixelwise.reporting.gallery import choose
from pixelwise.reporting.results import Results

VOID = {"br", "col", "hr", "img", "input", "link", "meta"}
EVIL = "<script>alert(1)</script>\"'></style><img src=x onerror=alert(1)>\u202egnp.exe\u2066\udcff\x00\x1b[31m"


class Page(HTMLParser):
    """Parse a page, and reject elements that are not closed in order."""

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


def require_valid(page):
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


def test_the_page_is_valid_and_complete(tmp_path, case, scores, run):
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
    require_valid(page)
    sections = [section["id"] for section in page.all("section")]
    assert sections == [
        "classes", "images", "suspects", "confusion", "sizes", "distances", "calibration", "scores", "training", "data",
        "configuration", "repeat", "definitions",
    ]  # fmt: skip
    assert "pixelwise evaluate run data" in page.text
    assert (
        "temperature of 1.25, fitted on the val split, which changed the calibration error there from 0.080 to 0.020"
        in page.text
    )
    assert "because # of <b>this</b>" in page.text
    assert "1 step with a loss or gradient that is not finite was skipped." in page.text
    assert (tmp_path / "report.html").stat().st_size < 4e6


def test_only_images_shown_are_fetched_and_only_once(tmp_path, case, scores):
    case.fetched.clear()
    written(tmp_path, scores, case.labels, fetch=case.fetch)
    chosen = {id for ids in choose(Results.from_dict(scores)).values() for id in ids}
    assert len(case.fetched) == len(set(case.fetched))
    assert set(case.fetched) == chosen | {one["id"] for one in scores["tables"]["suspects"][:12]}


def test_all_scores_have_interval_n_and_definition(tmp_path, case, scores):
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


def test_the_summary_has_the_scores(tmp_path, case, scores):
    text = written(tmp_path, scores, case.labels).text
    miou = round(100 * scores["miou"])
    assert f"On 12 images, prediction and ground truth overlap by {miou} % (IoU), averaged over the 4 classes." in text
    assert f"always “ {scores['baseline']['answer']} ” {scores['baseline']['miou']:.3f}" in text


def test_all_text_is_escaped(tmp_path, run):
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
    require_valid(page)
    assert "<script>alert(1)</script>" in page.text, "shown as text"
    raw = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert raw.count("<script") == 1
    assert not set("\u202e\u2066\x00\x1b") & set(raw)
    assert "\\u202e" in raw
    assert "\\xff" in raw


def test_the_content_security_policy_allows_only_the_script(tmp_path, case, scores):
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
def test_missing_keys_are_tolerated(tmp_path, case, scores, missing):
    rest = {key: value for key, value in scores.items() if key != missing}
    require_valid(written(tmp_path, rest, case.labels, fetch=case.fetch))


def test_masks_have_no_probabilities_and_no_run(tmp_path):
    case = draw(Labels(("background", "disc")), observable=False)
    page = written(tmp_path, case.scores(), case.labels, fetch=case.fetch)
    require_valid(page)
    assert not {"calibration", "suspects", "training", "data", "configuration"} & {s["id"] for s in page.all("section")}


def test_one_class(tmp_path):
    case = draw(Labels(("all",)))
    require_valid(written(tmp_path, case.scores(), case.labels, fetch=case.fetch))


def test_one_image_has_no_interval(tmp_path):
    case = draw(Labels(("background", "disc")), images=1)
    page = written(tmp_path, case.scores(), case.labels, fetch=case.fetch)
    require_valid(page)
    assert "no interval" in page.text
    assert case.fetched == ["p00"]


def test_the_matrix_of_many_classes_is_an_image(tmp_path):
    labels = Labels(tuple(f"class number {k}" for k in range(150)))
    case = draw(labels, images=6)
    scores = case.scores()
    page = written(tmp_path, scores, labels, fetch=case.fetch)
    require_valid(page)
    assert sum(image.get("class") == "pixels" for image in page.all("img")) == 3
    matrix = np.array(scores["confusion"])
    np.fill_diagonal(matrix, 0)
    t, p = np.unravel_index(matrix.argmax(), matrix.shape)
    assert f"class number {t} predicted as class number {p}" in page.text
    assert (tmp_path / "report.html").stat().st_size < 4e6


def test_undefined_scores(tmp_path, case, scores):
    nothing = copy.deepcopy(scores)
    for row in (nothing, *nothing["classes"], nothing["baseline"]):
        for key in DEFINITIONS:
            for end in ("", "_low", "_high"):
                if f"{key}{end}" in row:
                    row[f"{key}{end}"] = None
    for one in nothing["per_image"]:
        one["miou"] = None
    page = written(tmp_path, nothing, case.labels, fetch=case.fetch)
    require_valid(page)
    assert "No class occurs in the ground truth or in a prediction, so the mIoU is undefined." in page.text
    assert "nan" not in page.text.lower().split()


@pytest.mark.parametrize(("bands", "dtype"), [(1, np.uint8), (1, np.uint16), (7, np.uint16), (2, np.int32)])
def test_bands_and_pixel_types(tmp_path, bands, dtype):
    case = draw(Labels(("background", "disc")), images=3, bands=bands, dtype=dtype)
    page = written(tmp_path, case.scores(), case.labels, fetch=case.fetch)
    assert sum("panel" not in image and "alt" in image for image in page.all("img")) >= 12


def test_pixels_without_a_predicted_class_are_a_column(tmp_path):
    case = draw(Labels(("background", "disc")), observable=False)
    for mask in case.predictions.values():
        mask[10:20] = 255
    scores = case.scores()
    assert scores["unassigned_pixels"]
    page = written(tmp_path, scores, case.labels)
    assert "(no class)" in page.text
    recall = scores["classes"][0]["recall"]
    shown = re.findall(r'class="number hit" style="--w:(\d+)%"', (tmp_path / "report.html").read_text())
    assert shown[0] == f"{100 * recall:.0f}"


def test_missing_images_are_reported(tmp_path, case, scores):
    def gone(id):
        raise DataError(id, expected="an image", found="nothing", do="Check the path.")

    page = written(tmp_path, scores, case.labels, fetch=gone)
    require_valid(page)
    assert "expected an image, found nothing. Check the path." in page.text


def test_empty_and_damaged_run_folders(tmp_path, case, scores):
    folder = tmp_path / "broken"
    folder.mkdir()
    require_valid(written(tmp_path, scores, case.labels, run=folder))
    (folder / "config.yaml").write_bytes(b"a: [\xff")
    (folder / "data.json").write_text('{"fingerprint": [1]}')
    (folder / "log.jsonl").write_text(
        '[1]\n{"event": "step"}\nnot json\n{"event": "step", "step": "x", "loss": null}\n'
    )
    page = written(tmp_path, scores, case.labels, run=folder)
    require_valid(page)
    assert "a: [\\xff" in page.text, "invalid YAML is shown as text"


def test_equal_input_results_in_an_equal_page(tmp_path, case, scores):
    first = written(tmp_path, scores, case.labels, fetch=case.fetch)
    assert first.elements == written(tmp_path, scores, case.labels, fetch=case.fetch).elements
