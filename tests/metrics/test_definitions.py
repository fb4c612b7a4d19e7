"""Every score has a definition, and the page of documentation is made of them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from pixelwise.evaluation import METRICS, evaluate
from pixelwise.grid import Grid
from pixelwise.labels import Labels
from pixelwise.metrics.definitions import DEFINITIONS, FAMILIES, documentation
from pixelwise.types import Prediction, Sample

DOCUMENT = Path(__file__).parents[2] / "docs" / "metrics.md"
OTHERS = {"pq", "sq", "rq", "boundary_pq", "ap"}


class Two:
    """Two pictures that are predicted right, with probabilities."""

    labels = Labels(("background", "disc"))

    def __len__(self):
        return 2

    def read(self, index):
        mask = np.zeros((12, 16), np.uint8)
        mask[3:9, 4 + index : 10] = 1
        return Sample(np.zeros((1, 12, 16), np.uint8), mask, Grid(), str(index))

    def __call__(self, image, grid, *, id=""):
        return Prediction(self.read(int(id)).mask, self.labels, grid, id)

    def observed(self, image, grid, id, observe):
        mask = self.read(int(id)).mask
        observe(0, np.stack([mask != 1, mask == 1]).astype(np.float32))
        return self(image, grid, id=id)


@pytest.fixture(scope="module")
def plain():
    both = Two()
    return evaluate(both, both, metrics=METRICS, resamples=5).to_dict()


def test_every_score_of_an_evaluation_is_defined(plain):
    rows = [plain, *plain["classes"]]
    keys = {key.removesuffix("_n") for row in rows for key in row if key.endswith("_n")}
    assert keys <= set(DEFINITIONS)
    assert keys | OTHERS == set(DEFINITIONS), "defined, but given by nothing"


def test_every_share_lies_in_0_to_1_and_a_right_answer_is_the_better_end(plain):
    for row in (plain, *plain["classes"]):
        for key, one in DEFINITIONS.items():
            value = row.get(key)
            if value is None:
                continue
            assert one.unit != "share, 0…1" or 0 <= value <= 1, key
            if one.better != "neither":
                assert value == pytest.approx(1.0 if one.better == "higher" else 0.0), key


def test_every_definition_is_whole():
    assert list(DEFINITIONS) == [key for family in FAMILIES.values() for key in family]
    assert len({one.title for one in DEFINITIONS.values()}) == len(DEFINITIONS)
    for key, one in DEFINITIONS.items():
        assert all((one.title, one.formula, one.unit)), key
        assert all(text.endswith(".") for text in (one.says, one.over)), key
        assert one.better in ("higher", "lower", "neither"), key
        if one.source:
            assert re.search(r"\b(19|20)\d\d\b", one.source), key
            assert re.search(r"arXiv:\d{4}\.\d{4,5}|doi:10\.\d+/\S+", one.source), key


def test_the_documentation_is_that_of_the_definitions():
    assert DOCUMENT.read_text(encoding="utf-8") == documentation()


def test_the_documentation_names_every_key_once():
    assert re.findall(r"^### `(\w+)`", documentation(), re.M) == list(DEFINITIONS)
