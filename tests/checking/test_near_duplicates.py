import re
import shutil
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.checking.drawn import (
    findings,
    halves,
    image_of,
    inspected,
    kinds,
    of_kind,
    save,
    signature,
    survey_of,
    typed,
)

from pixelwise.checking import take_survey
from pixelwise.checking.near_duplicates import identical_images, near_duplicates
from pixelwise.config import DataConfig
from pixelwise.datasets.dataset import open_data


def copy(folder: Path, one: str, other: str) -> None:
    shutil.copyfile(folder / one, folder / other)


def test_identical_image_in_two_splits(folder: Path) -> None:
    copy(folder, "train/images/train05.png", "val/images/val05.png")
    found = findings(folder)
    assert kinds(found) == ["same-pictures-across-parts"]
    assert (found[0].severity, found[0].count, found[0].of) == ("warning", 1, 22)
    assert found[0].what == "1 image is in more than one split"
    assert found[0].where == (f"{folder / 'train/images/train05.png'} = {folder / 'val/images/val05.png'}",)
    assert (found[0].examples, found[0].paired) == ((("train", 5), ("val", 5)), True)


def test_identical_images_in_one_split(folder: Path) -> None:
    for kind in ("images", "masks"):
        copy(folder, f"train/{kind}/train05.png", f"train/{kind}/train04.png")
    found = findings(folder)
    assert [(one.kind, one.severity) for one in found] == [("same-pictures", "notice")]


def test_identical_images_with_different_masks(folder: Path) -> None:
    copy(folder, "train/images/train05.png", "train/images/train04.png")
    found = of_kind(findings(folder), "same-picture-different-masks")
    assert (found.severity, found.count) == ("warning", 1)
    assert found.what == "1 image occurs again with a different mask"
    copy(folder, "train/masks/train05.png", "train/masks/train04.png")
    assert "same-picture-different-masks" not in kinds(findings(folder))


def test_three_copies_count_as_two() -> None:
    same = inspected(digest=b"a" * 16)
    found = list(
        identical_images(survey_of({"train": [same, inspected(digest=b"b" * 16)], "val": [same], "test": [same]}))
    )
    assert [one.count for one in found] == [2]
    assert not list(identical_images(survey_of({"train": [inspected(), inspected()]})))


def test_the_fix_divides_given_splits_again_and_only_groups_drawn_ones() -> None:
    same = inspected(digest=b"a" * 16, signature=signature(np.arange(143) - 50.0))
    near = inspected(digest=b"b" * 16, signature=same.signature)
    others = [inspected(signature=signature(np.random.default_rng(k).standard_normal(143))) for k in range(5)]
    splits = {"train": [same, *others], "val": [same, near]}
    given = survey_of(splits)
    for found in (*identical_images(given), *(one for one in near_duplicates(given) if one.kind.endswith("parts"))):
        assert found.fix.endswith("and divide all images again: --set data.split.anew=true."), found.fix
        assert typed(found.fix).data.split.anew
    drawn = survey_of(splits, description={"split": {"given": ["test"], "seed": 0}})
    for found in (*identical_images(drawn), *(one for one in near_duplicates(drawn) if one.kind.endswith("parts"))):
        assert "data.group" in found.fix
        assert "anew" not in found.fix
    tested = next(iter(identical_images(survey_of({"train": [same], "test": [same]}))))
    assert typed(tested.fix).data.split.test == 0.2  # by default there is no test split


def test_the_fix_removes_the_finding(folder: Path) -> None:
    copy(folder, "train/images/train05.png", "val/images/val05.png")
    copy(folder, "train/masks/train05.png", "val/masks/val05.png")
    assert "same-pictures-across-parts" in kinds(findings(folder))
    rows = [f"{path.stem},{path.stem[-2:]}" for path in sorted(folder.glob("*/images/*.png"))]
    table = folder.parent / "groups.csv"
    table.write_text("\n".join(["image,group", *rows]))
    mended = findings(folder, group=str(table), split={"anew": True})
    assert not {"same-pictures-across-parts", "groups-across-parts"} & set(kinds(mended))


def mirrored(given: bytes) -> bytes:
    """Return the signature of the mirrored image."""
    coefficients = np.concatenate([[0], np.frombuffer(given, np.int8)]).reshape(12, 12)
    return (coefficients * (-1) ** np.arange(12)).astype(np.int8).tobytes()[1:]


def changed(image: np.ndarray) -> dict[str, np.ndarray]:
    """Modify an image like exports, cameras and editors."""
    full_image = Image.fromarray(image)
    buffer = BytesIO()
    full_image.save(buffer, "JPEG", quality=50)
    return {
        "saved again": np.asarray(Image.open(buffer)),
        "scaled": np.asarray(full_image.resize((48, 48)).resize((64, 64))),
        "brighter": np.clip(image * 1.2 + 10, 0, 255).astype(np.uint8),
    }


def test_near_duplicates_across_splits(folder: Path) -> None:
    image = np.asarray(Image.open(folder / "train/images/train05.png"))
    for k, copied in enumerate(changed(image).values()):
        save(folder / f"val/images/val0{k}.png", copied)
    found = of_kind(findings(folder), "near-duplicates-across-parts")
    assert (found.severity, found.count, found.of, found.paired) == ("warning", 4, 22, True)
    assert found.what == "4 of 22 images look nearly the same as an image of another split (1 in train and 3 in val)"
    assert set(found.examples) == {("train", 5), ("val", 0), ("val", 1), ("val", 2)}
    assert f"{folder / 'train/images/train05.png'} ≈ " in found.where[0]
    inside = of_kind(findings(folder), "near-duplicates")
    assert (inside.severity, inside.count) == ("notice", 3)


def damaged(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Resize, brighten, and save as JPEG, as someone who collects images from several places."""
    width, height = image.size
    scale = rng.uniform(0.6, 1.5)
    image = image.resize((round(width * scale), round(height * scale)))
    array = np.clip(np.asarray(image) * rng.uniform(0.8, 1.2) + rng.uniform(-10, 10), 0, 255).astype(np.uint8)
    buffer = BytesIO()
    Image.fromarray(array).save(buffer, "JPEG", quality=int(rng.integers(40, 95)))
    return Image.open(buffer)


def part_of(image: Image.Image, share: float, rng: np.random.Generator) -> Image.Image:
    """Crop a share of each side, anywhere."""
    width, height = image.size
    left, top = (round(rng.uniform(0, share) * side) for side in image.size)
    return image.crop((left, top, left + round((1 - share) * width), top + round((1 - share) * height)))


TURNS = {
    "": None,
    "mirrored": Image.Transpose.FLIP_LEFT_RIGHT,
    "mirrored upside down": Image.Transpose.FLIP_TOP_BOTTOM,
    "turned by 90°": Image.Transpose.ROTATE_270,  # Pillow turns counter-clockwise
    "turned by 180°": Image.Transpose.ROTATE_180,
    "turned by 270°": Image.Transpose.ROTATE_90,
    "turned by 90° and mirrored": Image.Transpose.TRANSPOSE,
    "turned by 270° and mirrored": Image.Transpose.TRANSVERSE,
}


@pytest.mark.parametrize("crop", [0.0, 0.05])
@pytest.mark.parametrize("size", [(96, 96), (90, 160), (331, 507)], ids=str)
def test_turned_copies_across_splits(
    tmp_path: Path, size: tuple[int, int], crop: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every copy is found under its source with the right name, and no pair of unrelated images is."""
    rng = np.random.default_rng(size)
    expected = set()
    for k in range(12 + len(TURNS)):
        image = Image.fromarray(clouds(rng, size))
        save(tmp_path / f"train/images/{k:02}.png", np.asarray(image))
        save(tmp_path / f"train/masks/{k:02}.png", halves(size=size))
        if k < len(TURNS):
            name, turn = list(TURNS.items())[k]
            other = part_of(image, crop, rng)
            other = damaged(other if turn is None else other.transpose(turn), rng)
            expected.add((k, k, name))
        else:
            other = Image.fromarray(clouds(rng, size))
        save(tmp_path / f"val/images/{k:02}.png", np.asarray(other))
        save(tmp_path / f"val/masks/{k:02}.png", halves(size=other.size[::-1]))
    (tmp_path / "labels.yaml").write_text("names: [ground, road]")
    monkeypatch.setattr("pixelwise.checking.findings.SHOWN", 99)
    near = list(near_duplicates(take_survey(open_data(DataConfig(), tmp_path), workers=0)))
    assert [(one.kind, one.count) for one in near] == [("near-duplicates-across-parts", 2 * len(TURNS))]
    counted = r"16 of 40 images look .* another split \(8 in train and 8 in val; (\d) of 8 pairs turned, mirrored or cropped\)"
    assert (match := re.fullmatch(counted, near[0].what))
    assert int(match[1]) == 7 if not crop else int(match[1]) >= 7
    assert crop == 0 or any("cropped" in pair for pair in near[0].where)
    found = set()
    for text in near[0].where:
        match = re.fullmatch(r".*train/images/(\d+).png ≈ .*val/images/(\d+).png(?: \((.*)\))?", text)
        assert match
        changes = [change for change in (match[3] or "").split(", ") if change != "cropped"]
        found.add((int(match[1]), int(match[2]), changes[0] if changes else ""))
    assert found == expected


def clouds(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Draw soft patches (H, W, 3) with fine texture."""
    patches = Image.fromarray(rng.integers(0, 255, (7, 7, 3), np.uint8))
    soft = np.asarray(patches.resize(size[::-1], Image.Resampling.BICUBIC)) * 0.8
    return (soft + rng.integers(0, 40, (*size, 3))).astype(np.uint8)


def test_symmetric_images_are_not_called_mirrored() -> None:
    """A road scene that is nearly its own mirror image resembles the next frame as it is."""
    rng = np.random.default_rng(0)
    symmetric = rng.standard_normal((12, 12)) * (np.arange(12) % 2 == 0)
    frames = [
        inspected(signature=signature((symmetric + 0.02 * rng.standard_normal((12, 12))).reshape(-1)[1:]))
        for _ in range(2)
    ]
    others = [inspected(signature=signature(rng.standard_normal(143))) for _ in range(12)]
    found = list(near_duplicates(survey_of({"train": [frames[0], *others], "val": [frames[1]]})))
    assert [one.kind for one in found] == ["near-duplicates-across-parts"]
    assert found[0].where[0].endswith("images/0.png")
    assert "turned" not in found[0].what


def test_similar_images_are_not_near_duplicates() -> None:
    """Retina photographs correlate by 0.98 without being copies."""
    rng = np.random.default_rng(0)
    common = rng.standard_normal(143)
    alike = [inspected(signature=signature(common + 0.14 * rng.standard_normal(143))) for _ in range(40)]
    assert not list(near_duplicates(survey_of({"train": alike[:20], "test": alike[20:]})))
    for turned in (alike[3].signature, mirrored(alike[3].signature)):
        splits = {"train": alike[:20], "test": [*alike[20:], inspected(signature=turned)]}
        found = list(near_duplicates(survey_of(splits)))
        assert [(one.kind, one.count) for one in found] == [("near-duplicates-across-parts", 2)]


def test_left_and_right_eyes_are_not_near_duplicates() -> None:
    """Photographs of left eyes look like mirrored ones of right eyes without being copies."""
    rng = np.random.default_rng(0)
    common = rng.standard_normal(143)
    left, right = (
        [inspected(signature=signature(common + 0.14 * rng.standard_normal(143))) for _ in range(20)] for _ in range(2)
    )
    right = [replace(one, signature=mirrored(one.signature)) for one in right]
    assert not list(near_duplicates(survey_of({"train": left, "test": right})))


def test_flat_images_do_not_match_each_other(folder: Path) -> None:
    for k in range(6):
        flat = np.full((64, 64, 3), 100, np.uint8) + np.random.default_rng(k).integers(0, 3, (64, 64, 3), np.uint8)
        save(folder / f"train/images/train0{k}.png", flat)
    assert not {"near-duplicates", "near-duplicates-across-parts"} & set(kinds(findings(folder)))


def test_slices_of_one_file_are_not_near_duplicates() -> None:
    same = signature(np.arange(143) - 50.0)
    others = [inspected(signature=signature(np.random.default_rng(k).standard_normal(143))) for k in range(5)]
    pieces = [inspected(signature=same, digest=b"a" * 16), inspected(signature=same, digest=b"b" * 16), *others]
    names = {"train": ["volume.nii", "volume.nii", *(f"{k}.png" for k in range(5))]}
    assert not list(near_duplicates(survey_of({"train": pieces}, names=names)))
    names = {"train": ["one.nii", "two.nii", *(f"{k}.png" for k in range(5))]}
    assert len(list(near_duplicates(survey_of({"train": pieces}, names=names)))) == 1


def test_different_images_are_not_duplicates(folder: Path) -> None:
    save(folder / "val/images/val03.png", image_of(halves(), 999))
    assert kinds(findings(folder)) == []
