"""Every score has a definition, and the documentation page is generated from them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from pixelwise.evaluation import METRICS, evaluate
from pixelwise.grid import Grid
from pixelwise.labels import Labels
from pixelwise.metrics.calibration import Layout, calibration_scores, calibration_sums, classwise_errors
from pixelwise.metrics.definitions import DEFINITIONS, FAMILIES, documentation
from pixelwise.types import Prediction, Sample

DOCUMENT = Path(__file__).parents[2] / "docs" / "metrics.md"
OTHERS = {"pq", "sq", "rq", "boundary_pq", "ap"}


class Two:
    """Two images that are predicted right, with probabilities."""

    labels = Labels(("background", "disc"))

    def __len__(self):
        return 2

    def read(self, index):
        mask = np.zeros((12, 16), np.uint8)
        mask[3:9, 4 + index : 10] = 1
        return Sample(np.zeros((1, 12, 16), np.uint8), mask, Grid(), str(index))

    def __call__(self, image, grid, valid=None, *, id=""):
        return Prediction(self.read(int(id)).mask, self.labels, grid, id)

    def observed(self, image, grid, valid, id, observe):
        mask = self.read(int(id)).mask
        observe(0, np.stack([mask != 1, mask == 1]).astype(np.float32))
        return self(image, grid, valid, id=id)


@pytest.fixture(scope="module")
def plain():
    both = Two()
    return evaluate(both, both, metrics=METRICS).to_dict()


def test_every_score_of_an_evaluation_is_defined(plain):
    rows = [plain, *plain["classes"]]
    keys = {key.removesuffix("_n") for row in rows for key in row if key.endswith("_n")}
    assert keys <= set(DEFINITIONS)
    assert keys | OTHERS == set(DEFINITIONS), "defined, but given by nothing"


def test_perfect_prediction_has_the_best_score(plain):
    for row in (plain, *plain["classes"]):
        for key, one in DEFINITIONS.items():
            value = row.get(key)
            if value is None:
                continue
            assert one.unit != "share, 0…1" or 0 <= value <= 1, key
            if one.better != "neither":
                assert value == pytest.approx(1.0 if one.better == "higher" else 0.0), key


def test_every_definition_is_complete():
    assert list(DEFINITIONS) == [key for family in FAMILIES.values() for key in family]
    assert len({one.title for one in DEFINITIONS.values()}) == len(DEFINITIONS)
    for key, one in DEFINITIONS.items():
        assert all((one.title, one.formula, one.unit)), key
        assert all(text.endswith(".") for text in (one.says, one.over)), key
        assert one.better in ("higher", "lower", "neither"), key
        if not one.source.startswith("pixelwise's own"):
            assert re.search(r"\b(19|20)\d\d\b", one.source), key
            assert re.search(r"arXiv:\d{4}\.\d{4,5}|doi:10\.\d+/\S+|chapter \d", one.source), key


def test_documentation_is_up_to_date():
    assert DOCUMENT.read_text(encoding="utf-8") == documentation()


def test_documentation_lists_every_key_once():
    assert re.findall(r"^### `(\w+)`", documentation(), re.M) == list(DEFINITIONS)


def test_section_on_functions_and_its_snippet():
    before, after = documentation().split("## Segments and objects\n\n")
    assert set(re.findall(r"^### `(\w+)`", after, re.M)) == OTHERS
    assert after.startswith("These scores are not part of an evaluation and have no intervals")
    assert "except for segments and objects (last section)" in before
    (snippet,) = re.findall(r"```python\n(.*?)```", after, re.S)
    names: dict = {}
    exec(snippet, names)
    np.testing.assert_allclose(names["quality"], [[0.75, 0], [0.75, 0], [1, 0], [1, 1]])
    assert set(OTHERS - {"boundary_pq", "ap"}) == {"pq", "sq", "rq"} <= set(names["quality"]._fields)
    assert names["average_precision"](names["objects"], [names["car"] | {"score": 0.9}], "box").ap == pytest.approx(1)


def test_resampled_calibration_errors_are_above_the_value():
    """As documented: images of a calibrated model, each with random errors."""
    generator = np.random.default_rng(0)
    layout, sums = Layout(2, 15), []
    for _ in range(12):
        p = generator.uniform(0, 1, (1, 8)).repeat(40, axis=0)
        truth = (generator.random(8) < p).astype(np.uint8)  # the rows are wrong together
        sums.append(calibration_sums(np.stack([1 - p, p]).astype(np.float32), truth))

    def errors(totals):
        scores = calibration_scores(totals, layout)
        of_class = classwise_errors(totals, layout)[..., 1]
        return np.stack([scores["ece"], scores["mce"], scores["classwise_ece"], of_class], -1)

    sums = np.array(sums)
    value = errors(sums.sum(0)[None])[0]
    drawn = errors(sums[generator.integers(0, 12, (500, 12))].sum(1))
    assert (drawn.mean(0)[[0, 2, 3]] > 1.1 * value[[0, 2, 3]]).all()
    assert drawn.mean(0)[1] > value[1]
    for key in ("ece", "mce", "classwise_ece", "calibration_error"):
        assert "noise counts as error" in DEFINITIONS[key].over
        own = "the class's own probability, not over confidence" in DEFINITIONS[key].over
        assert own == (key in ("classwise_ece", "calibration_error"))


def test_class_bins_are_over_the_probability_of_the_class():
    """Binned by confidence, all pixels would share a bin and errors would cancel."""
    p = np.array([[0.1, 0.3], [0.5, 0.6], [0.4, 0.1]], np.float32)
    totals = calibration_sums(p, np.array([0, 1], np.uint8), bins=2)
    by_own = (abs(0.1 + 0.3 - 1), abs(0.5 + 0.6 - 1))
    found = classwise_errors(totals, Layout(3, 2))[:2]
    np.testing.assert_allclose(found, np.array(by_own) / 2, rtol=1e-6)
    apart = classwise_errors(calibration_sums(p, np.array([0, 1], np.uint8), bins=5), Layout(3, 5))[:2]
    np.testing.assert_allclose(apart, np.array([0.9 + 0.3, 0.5 + 0.4]) / 2, rtol=1e-6)
