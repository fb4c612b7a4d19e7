from dataclasses import replace
from io import BytesIO
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
    row,
    save,
    survey_of,
    typed,
)

from pixelwise.checking.inspection import UnknownIds
from pixelwise.checking.masks import (
    blended_ids,
    forgotten_masks,
    grey_palette,
    ignored_masks,
    mask_notices,
    specks,
    unknown_ids,
)

BINARY = "names: [ground, road]\n"


def test_unknown_ids_are_counted_over_all_masks(folder: Path) -> None:
    for k in range(3):
        mask = halves(40)
        mask[:4, :10] = 9
        save(folder / f"train/masks/train0{k}.png", mask)
    mask = halves(40)
    mask[0, :5] = 7
    save(folder / "val/masks/val00.png", mask)
    found = of_kind(findings(folder, skip_bad=False), "unknown-ids")
    assert (found.severity, found.count, found.of) == ("error", 4, 22)
    assert found.what == (
        "4 masks hold ids that the labels do not define: 9 in 3 masks (120 pixels) and 7 in 1 mask (5 pixels)"
    )
    assert found.why.endswith("train00.png: expected class ids 0, 1, found 9 in 40 pixels.")
    assert found.fix == "Add class 9 to labels.yaml, or set ignore_index."
    assert "unknown-ids" not in kinds(findings(folder, labels={"names": {0: "a", 1: "b", 7: "c", 9: "d"}}))


def test_ids_that_begin_with_one(folder: Path) -> None:
    for path in folder.glob("*/masks/*.png"):
        save(path, halves(30, 1, 2))
    found = of_kind(findings(folder), "unknown-ids")
    assert (found.count, found.fix) == (22, "Write names: {1: ground, 2: road} in labels.yaml.")
    assert found.why.startswith("The ids begin with 1.")


def test_an_undefined_class_in_every_mask_does_not_mean_ids_begin_with_one(folder: Path) -> None:
    for path in folder.glob("*/masks/*.png"):
        mask = halves(30)
        mask[:5, :5] = 2
        save(path, mask)
    found = of_kind(findings(folder), "unknown-ids")
    assert found.count == 22
    assert "begin with 1" not in found.why
    assert "names: {1: ground" not in found.fix


def squares(classes: int = 4) -> np.ndarray:
    mask = np.zeros((64, 64), np.uint8)
    for k in range(1, classes):
        mask[8 * k : 8 * k + 8, 10:50] = k
    return mask


def test_a_palette_that_was_converted_to_grey(folder: Path) -> None:
    """What `Image.open(mask).convert("L")` makes of ids 0 to 3 with PASCAL VOC's palette: 0, 38, 75, 113."""
    (folder / "labels.yaml").write_text("names: [ground, road, car, tram]\n")
    for path in folder.glob("*/masks/*.png"):
        coloured = Image.fromarray(squares())
        coloured.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0])
        coloured.convert("L").save(path)
    found = of_kind(findings(folder), "unknown-ids")
    assert (found.count, found.severity) == (22, "error")
    assert found.why.startswith("They are the grey levels of palette colours")
    assert found.fix == (
        "Export the masks again with their palette; or set --set 'data.mask_values={0: 0, 38: 1, 75: 2, 113: 3}'."
    )
    mended = findings(folder, mask_values={0: 0, 38: 1, 75: 2, 113: 3})
    assert not {"unknown-ids", "absent-classes"} & set(kinds(mended))


def test_a_grey_palette_of_the_labels_own_colours(folder: Path) -> None:
    colours = [[20, 20, 20], [200, 40, 40], [40, 200, 40]]
    (folder / "labels.yaml").write_text(f"names: [ground, road, car]\ncolours: {colours}\n")
    for path in folder.glob("*/masks/*.png"):
        coloured = Image.fromarray(squares(3))
        coloured.putpalette([value for colour in colours for value in colour])
        coloured.convert("L").save(path)
    found = of_kind(findings(folder), "unknown-ids")
    assert "data.mask_values={20: 0, 88: 1, 134: 2}" in found.fix


def test_greys_of_a_palette_listed_as_classes() -> None:
    listed = {"labels": "listed from the masks"}
    survey = survey_of({"train": [inspected()]}, classes=[f"class_{id_}" for id_ in (0, 38, 75)], description=listed)
    object.__setattr__(survey.labels, "ids", (0, 38, 75))
    found = list(grey_palette(survey))
    assert (found[0].severity, found[0].what) == (
        "warning",
        "the ids 0, 38 and 75 are the grey levels of palette colours",
    )
    object.__setattr__(survey.labels, "ids", (0, 38, 77))
    assert not list(grey_palette(survey))


def test_two_classes_of_the_same_grey_cannot_be_recovered() -> None:
    """PASCAL VOC's classes 1 and 16 are both 38, 3 and 18 both 113; its ignored pixels are 220."""
    unknown = UnknownIds(((38, 900), (220, 100)), 0, 1000, 0)
    few = survey_of(
        {"train": [inspected(unknown=replace(unknown, ids=((38, 900), (75, 90), (220, 9))))]}, classes="abcd"
    )
    fix = next(iter(unknown_ids(few))).fix
    assert typed(fix).data.mask_values == {0: 0, 38: 1, 75: 2, 220: 255}
    all_of_voc = [f"class{k}" for k in range(21)]
    many = survey_of({"train": [inspected(unknown=replace(unknown, ids=((38, 9), (75, 9))))]}, classes=all_of_voc)
    assert (
        next(iter(unknown_ids(many))).fix
        == "Export the masks again with their palette: two classes have the same grey."
    )
    listed = {"labels": "listed from the masks"}
    ids = (0, 38, 52, 75)  # 52 is class 20, so two classes have the same grey
    survey = survey_of({"train": [inspected()]}, classes=[f"class_{id_}" for id_ in ids], description=listed)
    object.__setattr__(survey.labels, "ids", ids)
    assert "--set" not in next(iter(grey_palette(survey))).fix


def as_jpeg(mask: np.ndarray, quality: int = 90) -> np.ndarray:
    buffer = BytesIO()
    Image.fromarray(mask).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


def resized(mask: np.ndarray, side: int = 96) -> np.ndarray:
    return np.asarray(Image.fromarray(mask).resize((side, side), Image.Resampling.BILINEAR))


def disc(value: int, radius: int = 22) -> np.ndarray:
    rows, columns = np.ogrid[:64, :64]
    return (((rows - 32) ** 2 + (columns - 30) ** 2 < radius**2) * value).astype(np.uint8)


@pytest.mark.parametrize("spoil", [as_jpeg, resized])
def test_soft_edges_of_two_classes(folder: Path, spoil: object) -> None:
    for k, path in enumerate(sorted(folder.glob("*/masks/*.png"))):
        mask = spoil(disc(255, 16 + k % 8))  # type: ignore[operator]
        save(path, mask)
        save(path.parents[1] / "images" / path.name, image_of(mask, k))
    found = of_kind(findings(folder), "unknown-ids")
    assert "are in lines one pixel wide, as caused by anti-aliasing, resizing or JPEG" in found.why
    assert found.fix.endswith("Two classes can be recovered by --set 'data.mask_values={threshold: 128}'.")
    assert not {"unknown-ids", "blended-ids"} & set(kinds(findings(folder, mask_values={"threshold": 128})))


@pytest.mark.parametrize("spoil", [as_jpeg, resized])
def test_blended_ids_that_the_labels_define(tmp_path: Path, spoil: object) -> None:
    """Between discs of id 6 and background 0, interpolation makes 1 to 5, which are also classes."""
    draw_good(tmp_path)
    (tmp_path / "labels.yaml").write_text("names: [a, b, c, d, e, f, g, h]\n")
    masks = sorted(tmp_path.glob("*/masks/*.png"))
    for k, path in enumerate(masks):
        mask = np.minimum(spoil(disc(6, 14 + k % 10)), 7)  # type: ignore[operator]
        save(path, mask)
        save(path.parents[1] / "images" / path.name, image_of(mask, k))
    found = of_kind(findings(tmp_path), "blended-ids")
    assert found.severity == "warning"
    assert found.count == 22
    named = {name for name in "bcdef" if f"{name} (id" in found.what}
    assert len(named) >= 3
    assert "g (id 6" not in found.what
    for k, path in enumerate(masks):
        mask = disc(6, 14 + k % 10)
        save(path, mask)
        save(path.parents[1] / "images" / path.name, image_of(mask, k))
    assert "blended-ids" not in kinds(findings(tmp_path))


def test_thin_objects_between_two_classes_are_not_blended() -> None:
    """Poles in front of buildings: thin, with the same class on both sides."""
    pole = row(1, 1000, regions=100, specks=30, lines=900, between=60)
    assert not list(blended_ids(survey_of({"train": [inspected(row(0, 9000), pole, row(2, 5000))]}, classes="abc")))
    rim = row(1, 1000, regions=100, specks=30, lines=900, between=600)
    assert (
        len(list(blended_ids(survey_of({"train": [inspected(row(0, 9000), rim, row(2, 5000))]}, classes="abc")))) == 1
    )
    crumbs = row(1, 5000, regions=200, specks=170, lines=900, between=400)
    assert (
        len(list(blended_ids(survey_of({"train": [inspected(row(0, 9000), crumbs, row(2, 5000))]}, classes="abc"))))
        == 1
    )
    few = row(1, 50, regions=6, specks=3, lines=50, between=40)
    assert not list(blended_ids(survey_of({"train": [inspected(row(0, 9000), few, row(2, 5000))]}, classes="abc")))


def test_unknown_ids_are_listed_by_pixels_and_cut_short() -> None:
    ids = tuple((k, 100 - k) for k in range(2, 18))
    unknown = UnknownIds(ids, 30, 2000, 100)
    survey = survey_of({"train": [inspected(unknown=unknown)]})
    found = list(unknown_ids(survey))
    assert found[0].what.endswith(
        "2 in 1 mask (98 pixels), 3 in 1 mask (97 pixels), 4 in 1 mask (96 pixels), 5 in 1 mask (95 pixels) and 12 more"
    )


def test_a_mask_that_is_all_ignored(folder: Path) -> None:
    (folder / "labels.yaml").write_text("names: [ground, road]\nignore_index: 7\n")
    save(folder / "train/masks/train03.png", np.full((64, 64), 7, np.uint8))
    found = of_kind(findings(folder), "ignored-masks")
    assert (found.severity, found.what) == ("warning", "1 mask is ignored in every pixel")
    assert found.where == (str(folder / "train/masks/train03.png"),)
    assert not list(ignored_masks(survey_of({"train": [inspected(row(0), row(2))]})))


def test_a_mask_without_annotation(folder: Path) -> None:
    save(folder / "train/masks/train03.png", halves(right=0))
    found = of_kind(findings(folder), "forgotten-masks")
    assert (found.severity, found.count, found.of) == ("warning", 1, 12)
    assert found.what == "1 mask shows only 'ground'; the other 11 in the same folders show more"
    assert found.examples == (("train", 3),)


def test_a_mask_of_one_other_class_is_not_forgotten(folder: Path) -> None:
    save(folder / "train/masks/train03.png", halves(left=1))
    assert "forgotten-masks" not in kinds(findings(folder))
    (folder / "labels.yaml").write_text("names: {1: ground, 2: road}\n")
    for path in folder.glob("*/masks/*.png"):
        save(path, np.asarray(Image.open(path)) + np.uint8(1))
    save(folder / "train/masks/train03.png", halves(left=1, right=1))
    assert "forgotten-masks" not in kinds(findings(folder))


def test_many_empty_masks_are_intended(folder: Path) -> None:
    for k in range(4):
        save(folder / f"train/masks/train0{k}.png", halves(right=0))
    assert "forgotten-masks" not in kinds(findings(folder))


def test_empty_masks_are_counted_by_folder() -> None:
    """Tiles without defects have their own folder in the magnetic tiles data set."""
    full, bare = inspected(row(0), row(1)), inspected(row(0))
    names = {"train": [f"crack/{k}.png" for k in range(12)] + [f"free/{k}.png" for k in range(8)]}
    survey = survey_of({"train": [bare] + [full] * 11 + [bare] * 8}, names=names)
    found = list(forgotten_masks(survey))
    assert [(one.count, one.of, one.examples) for one in found] == [(1, 12, (("train", 0),))]


def test_specks(folder: Path) -> None:
    for k in (2, 5):
        mask = halves(20 + 2 * k)
        mask[3, 3], mask[40, 2:4] = 1, 1
        save(folder / f"train/masks/train0{k}.png", mask)
    mask = halves(26)
    mask[10:12, 3:6] = 1  # six pixels are not a speck
    save(folder / "train/masks/train03.png", mask)
    found = of_kind(findings(folder), "specks")
    assert (found.severity, found.count, found.of) == ("notice", 2, 22)
    assert found.what == "4 specks of under 5 pixels in 2 of 22 masks: road 4"
    assert found.examples == (("train", 2), ("train", 5))


def test_a_diagonal_line_is_not_specks(folder: Path) -> None:
    mask = np.zeros((64, 64), np.uint8)
    mask[np.arange(50), np.arange(50)] = 1
    save(folder / "train/masks/train02.png", mask)
    assert "specks" not in kinds(findings(folder))


def test_few_specks_are_not_reported() -> None:
    assert not list(specks(survey_of({"train": [inspected(row(0), row(1, regions=200, specks=1))]})))


def test_notices_of_masks_are_reported(folder: Path) -> None:
    for path in folder.glob("*/masks/*.png"):
        save(path, np.asarray(Image.open(path)) * np.uint8(255))
    found = of_kind(findings(folder), "decided-by-masks")
    assert (found.severity, found.count, len(found.where)) == ("notice", 22, 5)
    assert found.what.startswith("values 0 and 255 are read as class ids 0 and 1")


def test_notices_about_shapes_do_not_suggest_mask_values() -> None:
    survey = survey_of({"train": [inspected(notices=("turned with it",))]})
    split = survey.splits.train
    assert split is not None
    assert next(iter(mask_notices(survey))).fix == "Set data.mask_values if this is not intended."
    records = tuple(replace(record, source=object()) for record in split.records)  # type: ignore[arg-type]
    drawn = replace(survey, splits=replace(survey.splits, train=replace(split, records=records)))
    assert next(iter(mask_notices(drawn))).fix == "Inspect some of them; if they fit, there is nothing to do."
