from pathlib import Path

import numpy as np
from tests.checking.drawn import findings, halves, inspected, kinds, of_kind, row, save, survey_of, typed

from pixelwise.checking.classes import (
    absent_classes,
    few_images,
    ignored_share,
    one_class,
    rare_classes,
    uncounted_val,
)

THREE = ("ground", "road", "car")


def test_only_one_class(folder: Path) -> None:
    for path in folder.glob("*/masks/*.png"):
        save(path, halves(right=0))
    found = of_kind(findings(folder), "one-class")
    assert (found.severity, found.what) == ("error", "only 'ground' occurs in train")
    assert list(one_class(survey_of({"train": [inspected()]}))) == []


def test_a_class_that_never_occurs(folder: Path) -> None:
    (folder / "labels.yaml").write_text("names: [ground, road, car, tram]\n")
    found = of_kind(findings(folder), "absent-classes")
    assert (found.severity, found.count, found.of) == ("warning", 2, 4)
    assert found.what == "2 classes never occur: car and tram"
    assert found.where == ("car", "tram")


def test_classes_absent_from_a_split() -> None:
    full, less = inspected(row(0), row(1), row(2)), inspected(row(0), row(1))
    lost_in_train = list(absent_classes(survey_of({"train": [less], "val": [full]}, classes=THREE)))
    assert kinds(lost_in_train) == ["absent-in-train"]
    assert lost_in_train[0].severity == "warning"
    assert lost_in_train[0].what == "1 class occurs elsewhere, but never in train: car"
    assert "never learned" in lost_in_train[0].why
    assert lost_in_train[0].examples == (("val", 0),)
    lost_in_val = list(absent_classes(survey_of({"train": [full], "val": [less]}, classes=THREE)))
    assert [(one.kind, one.severity) for one in lost_in_val] == [("absent-in-val", "notice")]
    assert not list(absent_classes(survey_of({"train": [full], "val": [full]}, classes=THREE)))


def test_the_fix_for_another_division_depends_on_how_splits_were_made() -> None:
    full, less = inspected(row(0), row(1), row(2)), inspected(row(0), row(1))
    splits = {"train": [full], "val": [less]}
    given = next(iter(absent_classes(survey_of(splits, classes=THREE))))
    assert typed(given.fix.partition("; ")[0]).data.split.anew
    split = {"given": [], "seed": 3, "by": "image"}
    drawn = next(iter(absent_classes(survey_of(splits, classes=THREE, description={"split": split}))))
    assert typed(drawn.fix.partition("; ")[0]).data.split.seed == 4


def test_a_val_split_of_ignored_pixels_is_an_error() -> None:
    found = list(uncounted_val(survey_of({"train": [inspected()], "val": [inspected(row(2))]})))
    assert [(one.kind, one.severity, one.count) for one in found] == [("uncounted-val", "error", 1)]
    assert not list(uncounted_val(survey_of({"train": [inspected(row(2))], "val": [inspected(row(2)), inspected()]})))
    assert not list(uncounted_val(survey_of({"train": [inspected()]})))


def test_classes_in_few_images_of_train() -> None:
    full, less = inspected(row(0), row(1), row(2)), inspected(row(0), row(1))
    found = list(few_images(survey_of({"train": [full] * 9 + [less] * 5, "val": [full] * 20}, classes=THREE)))
    assert [(one.severity, one.count, one.of) for one in found] == [("warning", 1, 3)]
    assert found[0].what == "1 class is in under 10 images of train: car 9"
    assert found[0].examples == tuple(("train", k) for k in range(9))
    assert not list(few_images(survey_of({"train": [full] * 10 + [less] * 5}, classes=THREE)))


def test_no_finding_about_few_images_in_a_small_data_set() -> None:
    assert not list(few_images(survey_of({"train": [inspected()] * 9})))


def test_rare_classes_are_reported_with_the_score_of_a_constant_prediction(folder: Path) -> None:
    for path in folder.glob("*/masks/*.png"):
        mask = np.zeros((64, 64), np.uint8)
        mask[30:34, 30:35] = 1
        save(path, mask)
    found = of_kind(findings(folder), "rare-classes")
    assert found.severity == "notice"
    assert found.what == "1 class has under 1% of the pixels: road 0.49 %"
    # Constant prediction of 'ground': IoU 4076/4096, and 0 for road.
    assert "'ground' everywhere has a pixel accuracy of 99.5 % and an mIoU of 49.8 %" in found.why


def test_frequent_classes_are_not_rare() -> None:
    assert not list(rare_classes(survey_of({"train": [inspected(row(0, 800), row(1, 200))]})))
    found = list(rare_classes(survey_of({"train": [inspected(row(0, 950), row(1, 50))]})))
    assert found[0].what == "one class has most of the pixels: ground 95 %"


def test_ignored_pixels_are_a_notice_and_many_are_a_warning(folder: Path) -> None:
    (folder / "labels.yaml").write_text("names: [ground, road]\nignore_index: 7\n")
    mask = halves(20)
    mask[:32] = 7
    save(folder / "train/masks/train00.png", mask)
    found = of_kind(findings(folder), "ignored-pixels")
    assert (found.severity, found.what) == ("notice", "2.3 % of the pixels are ignored, in 1 of 22 masks")
    assert found.where == (str(folder / "train/masks/train00.png"),)
    much = list(ignored_share(survey_of({"train": [inspected(row(0, 10), row(1, 10), row(2, 30))]})))
    assert (much[0].severity, much[0].what) == ("warning", "60 % of the pixels are ignored, in 1 of 1 mask")
    scribbles = list(ignored_share(survey_of({"train": [inspected(row(0, 10), row(1, 10), row(2, 9980))]})))
    assert scribbles[0].what == "99.8 % of the pixels are ignored, in 1 of 1 mask"
    assert not list(ignored_share(survey_of({"train": [inspected()]})))
