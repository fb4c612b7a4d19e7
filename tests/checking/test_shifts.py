from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.checking.drawn import findings, inspected, kinds, of_kind, save, survey_of
from tests.checking.test_alignment import blobs, moved, painted

from pixelwise.checking.alignment import LENGTH, REACH, alignment_profiles
from pixelwise.checking.inspection import inspect_image
from pixelwise.checking.shifts import Shift, shifted_masks
from pixelwise.checking.survey import Survey
from pixelwise.config import read_request
from pixelwise.datasets.dataset import open_data

RECIPES = Path(__file__).parents[2] / "recipes"


def draw(root: Path, shift: tuple[int, int], every: int = 1) -> None:
    """Draw twenty images with shifted masks, one in `every`."""
    for split, count in (("train", 10), ("val", 10)):
        for k in range(count):
            mask = blobs(100 * count + k)
            image = painted(mask, k)
            wrong = np.where(moved(mask, *shift) == 255, 0, moved(mask, *shift)) if k % every == 0 else mask
            save(root / split / "images" / f"{split}{k}.png", np.moveaxis(image, 0, -1))
            save(root / split / "masks" / f"{split}{k}.png", wrong.astype(np.uint8))
    (root / "labels.yaml").write_text("names: [a, b, c]\n")


def test_aligned_masks_are_not_reported(tmp_path: Path) -> None:
    draw(tmp_path, (0, 0))
    assert not {"shifted-masks", "some-masks-shifted"} & set(kinds(findings(tmp_path)))


@pytest.mark.parametrize(
    ("shift", "words", "back"),
    [
        ((3, 0), "3 pixels right of their images", "3 pixels to the left"),
        ((-2, 4), "2 pixels left of and 4 pixels below their images", "2 pixels to the right and 4 pixels up"),
    ],
)
def test_all_masks_shifted(tmp_path: Path, shift: tuple[int, int], words: str, back: str) -> None:
    draw(tmp_path, shift)
    found = of_kind(findings(tmp_path), "shifted-masks")
    assert found.severity == "warning"
    assert found.what == f"masks are about {words}: 20 of 20 would fit better elsewhere"
    assert found.fix.startswith(f"Move the masks {back}, ")


def test_some_masks_shifted(tmp_path: Path) -> None:
    draw(tmp_path, (0, -4), every=2)
    found = of_kind(findings(tmp_path), "some-masks-shifted")
    assert (found.count, found.of) == (10, 20)
    assert found.what.startswith("some masks are about 4 pixels above their images")
    assert found.examples == tuple((split, k) for split in ("train", "val") for k in range(0, 10, 2))


def test_one_pixel_is_not_a_shift(tmp_path: Path) -> None:
    draw(tmp_path, (1, -1))
    assert not {"shifted-masks", "some-masks-shifted"} & set(kinds(findings(tmp_path)))


def noise(count: int, seed: int) -> Survey:
    rng = np.random.default_rng(seed)
    profiles = (1 + 0.3 * rng.standard_normal((count, 2, LENGTH))).astype(np.float16)
    return survey_of({"train": [inspected(profiles=one) for one in profiles]})


@pytest.mark.parametrize("count", [8, 20, 100])
def test_noise_is_rarely_reported_as_a_shift(count: int) -> None:
    """The confidence level is 99 % for each axis; one more is allowed for chance."""
    assert sum(bool(list(shifted_masks(noise(count, seed)))) for seed in range(100)) <= 3


def test_too_few_images_are_not_reported() -> None:
    peaked = np.ones((2, LENGTH), np.float16)
    peaked[0, REACH + 3] = 2
    assert not list(shifted_masks(survey_of({"train": [inspected(profiles=peaked)] * 7})))
    assert len(list(shifted_masks(survey_of({"train": [inspected(profiles=peaked)] * 8})))) == 1


def test_the_number_of_examined_images_is_reported() -> None:
    peaked = np.ones((2, LENGTH), np.float16)
    peaked[1, REACH - 3] = 2
    survey = survey_of({"train": [inspected(profiles=peaked)] * 10 + [inspected()] * 30})
    found = list(shifted_masks(survey))
    assert found[0].what == (
        "masks are about 3 pixels below their images: 10 of 10 would fit better elsewhere (of those examined)"
    )
    assert found[0].of == 10


def test_shifts_in_words() -> None:
    assert [Shift(*by).words for by in ((0, 0), (1, 0), (-2, 0), (0, 3), (4, -5))] == [
        "",
        "1 pixel right of",
        "2 pixels left of",
        "3 pixels below",
        "4 pixels right of and 5 pixels above",
    ]


@pytest.mark.parametrize("name", ["drive", "aerial_roads"])
def test_real_masks_are_aligned_and_shifted_ones_are_found(name: str, real: Callable[[str], Path]) -> None:
    config, base = read_request(RECIPES / f"{name}.yaml", [f"data.root={real(name)}"])
    opened = open_data(config.data, base)
    pairs = [(split.read(k), inspect_image(split, k)) for split in opened for k in range(len(split))]
    assert not list(shifted_masks(Survey(opened, tuple(one for _, one in pairs))))
    ignored = opened.labels.ignore_index
    for right, down in ((4, 0), (0, 4), (0, -4)):
        wrong = tuple(
            replace(one, profiles=alignment_profiles(sample.image, moved(sample.mask, right, down), ignored))
            for sample, one in pairs
            if sample.mask is not None
        )
        found = of_kind(shifted_masks(Survey(opened, wrong)), "shifted-masks")
        told = found.what.split("about ")[1].split(" ")
        assert abs(int(told[0]) - max(abs(right), abs(down))) <= 1
        assert told[2] == ("right" if right else "below" if down > 0 else "above")
