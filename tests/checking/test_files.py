from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.checking.drawn import findings, halves, inspected, kinds, of_kind, only, save, survey_of

from pixelwise.checking import check
from pixelwise.checking.files import left_out, unreadable
from pixelwise.config import DataConfig
from pixelwise.datasets.dataset import open_data
from pixelwise.errors import GridMismatchError, MaskError
from pixelwise.formats.records import Problem


def spoil(path: Path) -> None:
    """Invert a byte in the pixels of a PNG."""
    content = path.read_bytes()
    place = content.index(b"IDAT") + 8
    path.write_bytes(content[:place] + bytes([content[place] ^ 255]) + content[place + 1 :])


def test_unreadable_images_and_masks(folder: Path) -> None:
    for name in ("train/images/train00.png", "val/images/val01.png", "train/masks/train02.png"):
        spoil(folder / name)
    found = findings(folder, skip_bad=False)
    images, masks = of_kind(found, "unreadable-pictures"), of_kind(found, "unreadable-masks")
    assert (images.severity, images.what, images.count) == ("error", "2 images cannot be read", 2)
    assert images.where == (str(folder / "train/images/train00.png"), str(folder / "val/images/val01.png"))
    assert images.why.startswith("In train00.png: expected a complete PNG, found one that cannot be decoded")
    assert (
        images.fix
        == "Copy or export the file again, or remove it; or leave them out: --skip-bad, or data.skip_bad: true."
    )
    assert images.examples == ()  # the images cannot be read
    assert (masks.what, masks.where) == ("1 mask cannot be interpreted", (str(folder / "train/masks/train02.png"),))


def test_files_left_out_by_skip_bad_are_warnings_while_images_are_left(folder: Path) -> None:
    spoil(folder / "train/images/train00.png")
    save(folder / "train/masks/train01.png", halves() * 7)
    found = findings(folder)
    images = of_kind(found, "unreadable-pictures")
    assert (images.severity, images.what) == ("warning", "1 image cannot be read: left out by skip_bad")
    assert images.fix == "Copy or export the file again, or remove it."
    assert of_kind(found, "unknown-ids").severity == "warning"
    for path in (folder / "val/images").iterdir():
        spoil(path)
    assert of_kind(findings(folder), "unreadable-pictures").severity == "error"  # no val image is left


def test_advice_of_a_format_is_the_fix() -> None:
    survey = survey_of({"train": [inspected()]})
    problem = Problem("labels/a.txt", "line 3 has 5 numbers", "Draw polygons, not boxes.", "unreadable")
    splits = replace(survey.splits, problems=(problem,))
    (found,) = left_out(replace(survey, splits=splits, skip_bad=False))
    assert found.fix == "Draw polygons, not boxes; or leave them out: --skip-bad, or data.skip_bad: true."


def test_fixes_that_differ_in_listed_values_are_one_finding() -> None:
    many = [
        inspected(error=MaskError(f"m{k}.png", expected="known colours", found="others", do=f"Add [{k}, 0, 0]."))
        for k in range(3)
    ]
    found = list(unreadable(survey_of({"train": many})))
    assert [(one.kind, one.count) for one in found] == [("unreadable-masks", 3)]
    assert found[0].fix == "Add [0, 0, 0]; or leave them out: --skip-bad, or data.skip_bad: true."


def test_truncated_images_are_found_on_opening_or_decoding(folder: Path) -> None:
    path = folder / "train/images/train02.png"
    path.write_bytes(path.read_bytes()[:-30])
    found = of_kind(findings(folder, skip_bad=False), "unreadable-files")
    assert (found.severity, found.count, found.of) == ("error", 1, 22)
    assert "ends early (truncated)" in found.where[0]
    Image.open(folder / "train/images/train03.png").save(folder / "train/images/train03.jpg")
    (folder / "train/images/train03.png").unlink()
    path = folder / "train/images/train03.jpg"
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 4])
    assert of_kind(findings(folder), "unreadable-pictures").why.startswith("In train03.jpg: expected a complete JPEG")


def test_files_without_a_partner(folder: Path) -> None:
    (folder / "train/masks/train01.png").unlink()
    (folder / "val/images/val03.png").unlink()
    left_out = of_kind(findings(folder), "unpaired-files")
    assert (left_out.severity, left_out.what) == ("warning", "2 files without a partner, left out by skip_bad")
    error = of_kind(findings(folder, skip_bad=False), "unpaired-files")
    assert (error.severity, error.what, error.count) == ("error", "2 files without a partner", 2)
    assert error.where == (
        "train/images/train01.png: image without a mask",
        "val/masks/val03.png: mask without an image",
    )
    assert error.fix == "Add or remove the files; or leave them out: --skip-bad, or data.skip_bad: true."


def test_different_sizes(folder: Path) -> None:
    save(folder / "val/masks/val00.png", halves(size=(64, 80)))
    found = of_kind(findings(folder, skip_bad=False), "unequal-sizes")
    assert (found.severity, found.what) == ("error", "1 file of another size than the image")
    assert found.fix.startswith("Export the masks again at the size of their images")


def test_files_left_out_are_reported_by_the_kind_of_problem() -> None:
    survey = survey_of({"train": [inspected()]})
    grid = GridMismatchError("masks/a.tif", expected="a.tif's crs EPSG:32616", found="EPSG:32617", do="Resample it.")
    problems = (
        Problem.from_error(grid),
        Problem("list.txt: b", "listed, but there is no mask"),
        Problem("c.jpg (annotation 7)", "object with run lengths for another size than its image", kind="size"),
        Problem("d.jpg", "second image of d.txt (also d.png)"),
    )
    survey = replace(survey, splits=replace(survey.splits, problems=problems), skip_bad=False)
    found = {finding.kind: finding for finding in left_out(survey)}
    assert {kind: finding.count for kind, finding in found.items()} == {
        "unpaired-files": 2,
        "unequal-sizes": 1,
        "unequal-grids": 1,
    }
    assert found["unequal-grids"].what == "1 file not on the image's grid"
    assert found["unequal-grids"].fix.startswith("Resample the masks to the grids of their images")


def test_swapped_sizes_suggest_exif(folder: Path) -> None:
    save(folder / "val/images/val00.png", np.zeros((64, 80, 3), np.uint8))
    save(folder / "val/masks/val00.png", halves(size=(80, 64)))
    found = of_kind(findings(folder, skip_bad=False), "unequal-sizes")
    assert "EXIF orientation" in found.fix


def test_sizes_changed_since_opening(folder: Path) -> None:
    splits = open_data(DataConfig(), folder)
    save(folder / "val/masks/val00.png", halves(size=(64, 80)))
    found = of_kind(check(splits, workers=0, skip_bad=False), "unequal-sizes")
    assert (found.what, found.count) == ("1 mask differs in size from its image", 1)


def test_masks_saved_as_jpeg(folder: Path) -> None:
    for k in (2, 3):
        (folder / f"train/masks/train0{k}.png").unlink()
        save(folder / f"train/masks/train0{k}.jpg", halves())
    found = of_kind(findings(folder, skip_bad=False), "lossy-masks")
    assert (found.severity, found.what) == ("error", "2 masks are compressed lossily (JPEG or similar)")
    assert "whose compression creates false ids along the edges" in found.why
    assert "Save the masks as PNG" in found.fix
    assert not {"lossy-masks"} & set(kinds(findings(folder, mask_values={"threshold": 1})))


@pytest.mark.parametrize(("orientation", "reported"), [(1, False), (3, True), (6, True)])
def test_images_rotated_by_exif_without_their_masks(folder: Path, orientation: int, reported: bool) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = folder / "train/images/train03.png"
    Image.open(path).save(path, exif=exif)
    found = findings(folder)
    assert len(found) == reported
    if reported:
        finding = only(found)
        assert (finding.kind, finding.severity, finding.where) == ("turned-by-exif", "warning", (str(path),))
        assert finding.what == "1 image is rotated by EXIF orientation, but the mask is not"
        mask = folder / "train/masks/train03.png"
        Image.open(mask).save(mask, exif=exif)
        assert not findings(folder)


def test_a_rotated_image_whose_size_fits_the_mask_is_not_reported(folder: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    rng = np.random.default_rng(5)
    stored = np.kron(rng.integers(0, 200, (8, 10, 3), np.uint8), np.ones((8, 8, 1), np.uint8))
    save(folder / "train/images/train03.png", stored, exif=exif)
    save(folder / "train/masks/train03.png", halves(size=(80, 64)))
    assert "turned-by-exif" not in kinds(findings(folder))


def test_decisions_on_opening_are_reported(tmp_path: Path, good: Path) -> None:
    for k in range(12):
        for kind in ("image", "mask"):
            target = tmp_path / f"{kind}s" / f"{k:02}.png"
            target.parent.mkdir(exist_ok=True)
            target.write_bytes((good / f"train/{kind}s/train{k:02}.png").read_bytes())
    told = [finding for finding in findings(tmp_path) if finding.kind == "decided-on-opening"]
    assert told[0].what == "2 of 12 images were taken from train for val, by image (split.seed 0)"
    assert told[1].what.startswith("no labels.yaml")
    assert {finding.severity for finding in told} == {"notice"}
