import shutil
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
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

from pixelwise.checking import near_duplicates as module
from pixelwise.checking.image_signature import typical_distance
from pixelwise.checking.near_duplicates import identical_images, near_duplicates, nearest


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def by_hand(vectors: np.ndarray, splits: list[str], limit: float, same: bool) -> tuple[np.ndarray, np.ndarray]:
    """Compare every pair."""
    distances = 1 - vectors.astype(np.float64) @ vectors.astype(np.float64).T
    own = np.array(splits)[:, None] == np.array(splits)
    distances[own != same] = 9
    np.fill_diagonal(distances, 9)
    return distances.min(1), distances.min(1) <= limit


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.floats(0.001, 0.5))
def test_no_neighbour_within_the_limit_is_missed(seed: int, count: int, limit: float) -> None:
    rng = np.random.default_rng(seed)
    splits = sorted(rng.choice(["test", "train", "val"], count).tolist())
    centres = rng.standard_normal((5, 60))
    vectors = unit(centres[rng.integers(0, 5, count)] + rng.uniform(0, 0.6) * rng.standard_normal((count, 60)))
    results = nearest(vectors, splits, limit)
    for ours, same in zip(results, (True, False), strict=True):
        distance, near = by_hand(vectors, splits, limit, same)
        clear = np.abs(distance - limit) > 1e-5  # no rounding at the limit itself
        assert np.array_equal((ours.neighbour >= 0)[clear], near[clear])
        found = (ours.neighbour >= 0) & clear
        assert ours.distance[found] == pytest.approx(distance[found], abs=1e-5)
        for one in np.flatnonzero(found).tolist():
            other = int(ours.neighbour[one])
            assert other != one
            assert (splits[one] == splits[other]) is same
            assert 1 - float(vectors[one] @ vectors[other]) == pytest.approx(distance[one], abs=1e-5)


def test_the_block_size_does_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    vectors = unit(np.repeat(rng.standard_normal((30, 143)), 3, axis=0) + 0.05 * rng.standard_normal((90, 143)))
    splits = ["train"] * 50 + ["val"] * 15 + ["test"] * 25
    whole = nearest(vectors, splits, 0.02)
    monkeypatch.setattr(module, "_BLOCK", 7)
    for one, two in zip(whole, nearest(vectors, splits, 0.02), strict=True):
        assert np.array_equal(one.neighbour, two.neighbour)
        assert two.distance == pytest.approx(one.distance, abs=1e-5)
    assert (whole[0].neighbour >= 0).sum() > 50


def test_thousands_that_are_all_alike_take_no_memory_for_their_pairs() -> None:
    vectors = unit(np.ones((3000, 20)) + 1e-4 * np.random.default_rng(0).standard_normal((3000, 20)))
    inside, across = nearest(vectors, ["train"] * 3000, 0.02)
    assert (inside.neighbour >= 0).all()
    assert (across.neighbour == -1).all()


def test_the_usual_distance_leaves_copies_out() -> None:
    vectors = unit(np.eye(4)[[0, 0, 0, 0, 0, 0, 1, 2]])
    assert typical_distance(vectors, np.array([0, 0, 0, 0, 0, 0, 1, 2])) == pytest.approx(1)
    assert typical_distance(vectors[:6], np.zeros(6, np.int64)) == 1
    assert typical_distance(vectors[:1], np.zeros(1, np.int64)) == 1


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


def test_similar_images_are_not_near_duplicates() -> None:
    """Retina photographs correlate by 0.98 without being copies."""
    rng = np.random.default_rng(0)
    common = rng.standard_normal(143)
    alike = [inspected(signature=signature(common + 0.14 * rng.standard_normal(143))) for _ in range(40)]
    assert not list(near_duplicates(survey_of({"train": alike[:20], "test": alike[20:]})))
    twin = inspected(signature=alike[3].signature)
    found = list(near_duplicates(survey_of({"train": alike[:20], "test": [*alike[20:], twin]})))
    assert [(one.kind, one.count) for one in found] == [("near-duplicates-across-parts", 2)]


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
