from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.checking.drawn import (
    draw_good,
    findings,
    halves,
    image_of,
    inspected,
    kinds,
    of_kind,
    save,
    survey_of,
    typed,
)

from pixelwise.checking.images import constant_images, grey_images, mixed_forms, shallow_images


def test_images_of_other_bands(folder: Path) -> None:
    for path in folder.glob("*/images/*.png"):
        save(path, np.asarray(Image.open(path)).astype(np.uint16).mean(axis=2).astype(np.uint16))
    save(folder / "train/images/train01.png", image_of(halves(), 5))
    found = of_kind(findings(folder), "mixed-pictures")
    assert (found.severity, found.count, found.of) == ("error", 1, 22)
    assert found.what == "1 image differs in bands or pixel type from most (1 band of uint16)"
    assert found.why.endswith("train01.png has 3 bands of uint8.")
    assert found.fix == "Save all images with the same bands and pixel type, or split the data set."


def test_grey_among_colour_images_is_a_notice(folder: Path) -> None:
    save(folder / "train/images/train01.png", image_of(halves(), 5)[..., 0])
    found = findings(folder)
    assert [(one.kind, one.severity, one.what) for one in found] == [
        ("decided-on-opening", "notice", "1 of 22 images is grey: converted to RGB (data.bands=rgb)"),
        ("grey-pictures", "notice", "1 of 22 images is grey, as stored or converted"),
    ]


def test_deep_images_of_one_and_three_bands_are_fixed_by_data_bands() -> None:
    deep = [inspected(bands=1, dtype="uint16"), *(inspected(bands=3, dtype="uint16") for _ in range(3))]
    found = next(iter(mixed_forms(survey_of({"train": deep}))))
    assert (found.severity, found.count) == ("error", 1)
    assert typed(found.fix.partition(" or ")[0]).data.bands == "rgb"


def test_mixed_pixel_types_are_not_fixed_by_data_bands() -> None:
    deep = [inspected(bands=1, dtype="uint16") for _ in range(3)]
    found = list(mixed_forms(survey_of({"train": [*deep, inspected(bands=1)]})))
    assert found[0].fix == "Save all images with the same bands and pixel type, or split the data set."
    colour = list(mixed_forms(survey_of({"train": [*deep, inspected(bands=3)]})))
    assert colour[0].fix == found[0].fix  # bands=rgb would leave two pixel types
    assert not list(mixed_forms(survey_of({"train": deep})))


@pytest.mark.parametrize("value", [0, 7, 255])
def test_a_constant_image(folder: Path, value: int) -> None:
    save(folder / "val/images/val04.png", np.full((64, 64, 3), value, np.uint8))
    found = of_kind(findings(folder), "constant-pictures")
    assert (found.severity, found.count, found.of) == ("warning", 1, 22)
    assert found.where == (str(folder / "val/images/val04.png"),)
    assert found.what == "1 image is nearly constant"


def test_a_dark_image_is_not_constant(folder: Path) -> None:
    save(folder / "val/images/val04.png", image_of(halves(), 3) // 20)
    assert kinds(findings(folder)) == []


def test_constant_images_are_relative_to_the_data_set() -> None:
    def of(*spreads: float) -> list[str]:
        return kinds(constant_images(survey_of({"train": [inspected(dtype="float32", spread=s) for s in spreads]})))

    assert of(0.01, 0.012, 0.008) == []
    assert of(0.01, 0.012, 0.0001) == ["constant-pictures"]
    assert of(0.01, 0.012, 0.0) == ["constant-pictures"]


def test_the_only_image_of_its_form_is_a_warning() -> None:
    found = list(constant_images(survey_of({"train": [inspected(), inspected(), inspected(bands=1, spread=0.0)]})))
    assert [(one.severity, one.what) for one in found] == [
        ("warning", "1 image is nearly constant"),
    ]
    assert found[0].why == "There is nothing to learn from them."


def test_a_constant_data_set_is_an_error() -> None:
    found = list(constant_images(survey_of({"train": [inspected(spread=0.0) for _ in range(3)]})))
    assert (found[0].severity, found[0].count) == ("error", 3)


def deepened(factor: int) -> np.ndarray:
    return image_of(halves(), 3)[..., 0].astype(np.uint16) * factor


@pytest.mark.parametrize(
    ("factor", "words"), [(1, "no value above 255"), (256, "only multiples of 256"), (257, "only multiples of 257")]
)
def test_sixteen_bit_images_with_eight_bit_values(tmp_path: Path, factor: int, words: str) -> None:
    draw_good(tmp_path)
    for path in tmp_path.glob("*/images/*.png"):
        save(path, deepened(factor))
    found = of_kind(findings(tmp_path), "shallow-pictures")
    assert (found.severity, found.count, found.of) == ("notice", 22, 22)
    assert words in found.what
    for path in tmp_path.glob("train/images/*.png"):
        save(path, deepened(100))
    found = of_kind(findings(tmp_path), "shallow-pictures")
    assert (found.severity, found.count, found.of) == ("warning", 10, 22)
    assert found.what.startswith("10 of 22 16-bit images")


def test_dark_sixteen_bit_images_are_not_shallow() -> None:
    def of(spread: float) -> list[str]:
        deep = [inspected(dtype="uint16", bands=1, spread=900.0) for _ in range(3)]
        dark = inspected(dtype="uint16", bands=1, spread=spread, depth="low")
        return kinds(shallow_images(survey_of({"train": [*deep, dark]})))

    assert of(30.0) == []
    assert of(4.0) == ["shallow-pictures"]


def test_genuine_sixteen_bit_images_are_not_reported() -> None:
    assert not list(shallow_images(survey_of({"train": [inspected(dtype="uint16", bands=1)] * 3})))


def test_colour_images_that_are_grey(folder: Path) -> None:
    for k in range(3):
        grey = image_of(halves(20 + 2 * k), k)[..., :1]
        save(folder / f"train/images/train0{k}.png", np.repeat(grey, 3, axis=2))
    found = of_kind(findings(folder), "grey-pictures")
    assert (found.severity, found.count, found.of) == ("notice", 3, 22)
    assert found.what == "3 of 22 colour images are grey: their three bands are identical"


def test_bands_that_differ_in_one_pixel_are_not_grey(folder: Path) -> None:
    grey = np.repeat(image_of(halves(20), 0)[..., :1], 3, axis=2)
    grey[33, 35, 2] ^= 1
    save(folder / "train/images/train00.png", grey)
    assert kinds(findings(folder)) == []


def test_a_data_set_of_grey_images_has_its_own_message() -> None:
    found = list(grey_images(survey_of({"train": [inspected(grey=True)] * 4})))
    assert found[0].what == "all 4 images are grey but stored as colour: their three bands are identical"
    assert not list(grey_images(survey_of({"train": [inspected(bands=1)] * 4})))
