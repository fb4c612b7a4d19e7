from pathlib import Path

import numpy as np
from tests.checking.drawn import draw_good, findings, image_of, inspected, kinds, of_kind, row, save, survey_of, typed

from pixelwise.checking.sizes import (
    extreme_shapes,
    large_images,
    missing_splits,
    mixed_sizes,
    small_splits,
    smaller_than_crop,
    thin_objects,
)


def test_a_split_too_small_to_score(tmp_path: Path) -> None:
    draw_good(tmp_path, (("train", 12), ("val", 9), ("test", 10)))
    found = of_kind(findings(tmp_path), "small-part")
    assert (found.severity, found.what, found.where) == ("warning", "val has 9 images", ("val",))
    assert (found.count, found.of, len(found.examples)) == (1, 3, 9)
    assert not list(small_splits(survey_of({"train": [inspected()] * 3, "val": [inspected()] * 10})))


def test_the_fix_for_a_small_split_depends_on_how_splits_were_made() -> None:
    few = next(iter(small_splits(survey_of({"train": [inspected()] * 3, "val": [inspected()]}))))
    assert few.fix == "Add annotated images."
    splits = {"train": [inspected()] * 60, "val": [inspected()]}
    given = next(iter(small_splits(survey_of(splits))))
    assert typed(given.fix).data.split.anew
    drawn = next(iter(small_splits(survey_of(splits, description={"split": {"given": [], "seed": 0}}))))
    assert drawn.fix == "Enlarge it: a larger share (data.split.val), or more annotated images."


def test_training_needs_a_train_and_a_val_split(tmp_path: Path) -> None:
    draw_good(tmp_path, (("train", 12), ("test", 10)))
    found = of_kind(findings(tmp_path, split={"val": 0}), "missing-part")
    assert (found.severity, found.what, found.where) == ("error", "there is no val split", ("val",))
    assert typed(found.fix).data.split.val == 0.2
    assert "missing-part" not in kinds(findings(tmp_path, split={"val": 0.2}))
    only = list(missing_splits(survey_of({"val": [inspected()], "test": [inspected()]})))
    assert [one.what for one in only] == ["there is no train split"]
    assert typed(only[0].fix).data.split.anew


def test_tiny_and_long_images() -> None:
    usual = [inspected()] * 5
    found = list(extreme_shapes(survey_of({"train": [*usual, inspected(size=(31, 64)), inspected(size=(64, 320))]})))
    assert [(one.kind, one.severity, one.count, one.examples) for one in found] == [
        ("tiny-pictures", "warning", 1, (("train", 5),)),
        ("long-pictures", "notice", 1, (("train", 6),)),
    ]
    assert found[1].what == "1 image is at least 5 times as long as wide (at most 64×320)"
    assert found[1].fix.startswith("Choose a crop of their shape: --set 'train.crop=[64, 320]'; ")
    assert typed(found[1].fix).train.crop == (64, 320)
    assert not list(extreme_shapes(survey_of({"train": [*usual, inspected(size=(32, 64)), inspected(size=(64, 319))]})))


def test_very_different_sizes() -> None:
    found = list(
        mixed_sizes(survey_of({"train": [inspected(), inspected(size=(256, 256)), inspected(size=(100, 90))]}))
    )
    assert found[0].what == "images come in 3 sizes from 64×64 to 256×256 (height × width)"
    assert found[0].examples == (("train", 0), ("train", 1))
    assert (found[0].count, found[0].of) == (3, 3)
    assert not list(mixed_sizes(survey_of({"train": [inspected(), inspected(size=(200, 200))]})))


def test_images_smaller_than_the_crop() -> None:
    large, small = inspected(size=(300, 300)), inspected(size=(300, 128))
    found = list(smaller_than_crop(survey_of({"train": [large] * 9 + [small]})))
    assert found[0].what == ("1 of 10 training images are smaller than the training crop of about 256×256")
    assert found[0].fix == "Use a smaller crop: --set 'train.crop=[288, 192]'."
    assert typed(found[0].fix).train.crop == (288, 192)
    assert not list(smaller_than_crop(survey_of({"train": [large] * 29 + [small]})))
    assert not list(smaller_than_crop(survey_of({"train": [inspected()] * 9})))


def test_images_far_larger_than_the_crop() -> None:
    found = list(large_images(survey_of({"train": [inspected(size=(3000, 4000))] * 3})))
    assert found[0].what == "3 of 3 images have sides of 2048 pixels or more (median 3000×4000)"
    assert "0.55 %" in found[0].why
    assert typed(found[0].fix).train.crop == (768, 768)
    assert not list(large_images(survey_of({"train": [inspected(size=(2000, 4000))] * 3})))


def test_classes_too_thin_for_coarse_networks() -> None:
    wire = row(1, 1000, regions=30, specks=5, thin=20)
    wire[5], wire[6], wire[7] = 25, 30, 30
    wire[8] = 600
    found = list(thin_objects(survey_of({"train": [inspected(row(0, 9000), wire)] * 2}, classes=("ground", "wire"))))
    assert found[0].what == "1 class is mostly in thin regions: wire (under 4 pixels)"
    assert typed(found[0].fix).model.stem == 1
    # Without specks there are 25 regions per image: 15, 20, 25 and 25 of them are thinner.
    assert "wire: 60 % under 4, 80 % under 8, 100 % under 16, 100 % under 32" in found[0].why
    assert (found[0].severity, found[0].where, found[0].examples) == (
        "notice",
        ("wire",),
        (("train", 0), ("train", 1)),
    )
    wire[8], wire[9] = 400, 900
    found = list(thin_objects(survey_of({"train": [inspected(row(0, 9000), wire)] * 2}, classes=("ground", "wire"))))
    assert found[0].what == "1 class is mostly in thin regions: wire (under 8 pixels)"
    wire[9], wire[10], wire[11] = 400, 400, 900
    assert not list(thin_objects(survey_of({"train": [inspected(row(0, 9000), wire)] * 2}, classes=("ground", "wire"))))


def test_a_wire_of_three_pixels_is_thin(folder: Path) -> None:
    for k, path in enumerate(sorted(folder.glob("*/masks/*.png"))):
        mask = np.zeros((64, 64), np.uint8)
        mask[:, 20 + k : 23 + k] = 1
        save(path, mask)
        save(path.parents[1] / "images" / path.name, image_of(mask, k))
    found = of_kind(findings(folder), "thin-objects")
    assert found.where == ("road",)
