"""Folders of masks as predictors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from pixelwise.config import DataConfig
from pixelwise.datasets.dataset import open_data
from pixelwise.errors import DataError, MaskError, PairingError
from pixelwise.evaluation.mask_folder import open_masks
from pixelwise.grid import Grid

NAMES = ("a", "b/c", "d/c")


def save(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(values, np.uint8)).save(path)


def split(tmp_path, labels="names: [ground, car]\nignore_index: 255\n", ids=(0, 1)):
    """Write a data set of three images, of which two have the same stem in different folders."""
    for name in NAMES:
        save(tmp_path / f"data/train/images/{name}.png", np.zeros((4, 6, 3)))
        save(tmp_path / f"data/train/masks/{name}.png", np.full((4, 6), ids[1]))
    (tmp_path / "data/labels.yaml").write_text(labels)
    return open_data(DataConfig.model_validate({"split": {"val": 0}}), tmp_path / "data").train


def predicted(folder, dataset, k=0):
    return open_masks(folder, dataset)(np.zeros((3, 4, 6)), Grid(), id=dataset.records[k].id).mask


def test_masks_are_found_by_the_full_name(tmp_path):
    dataset = split(tmp_path)
    for value, name in enumerate(NAMES):
        save(tmp_path / f"masks/{name}.png", np.full((4, 6), value % 2))
    for k, record in enumerate(dataset.records):
        assert (predicted(tmp_path / "masks", dataset, k) == NAMES.index(record.id) % 2).all()


def test_output_folder_of_predict(tmp_path):
    dataset = split(tmp_path)
    for name in NAMES:
        save(tmp_path / f"out/masks/{name}.png", np.ones((4, 6)))
        save(tmp_path / f"out/overlays/{name}.png", np.zeros((4, 6, 3)))
    (tmp_path / "out/predictions.json").write_text("{}")
    assert (predicted(tmp_path / "out", dataset) == 1).all()


def test_file_name_is_enough_if_unique(tmp_path):
    dataset = split(tmp_path)
    save(tmp_path / "masks/a.png", np.ones((4, 6)))
    with pytest.raises(PairingError) as error:
        open_masks(tmp_path / "masks", dataset)
    assert str(error.value) == (
        f"{tmp_path}/masks: expected a mask with the name of the image for each of 3 images, found none for b/c, d/c. "
        "Predict these images too, or choose the --split that was predicted."
    )
    save(tmp_path / "masks/c.png", np.ones((4, 6)))
    with pytest.raises(PairingError, match=r"expected one image for every mask, found both b/c and d/c\."):
        open_masks(tmp_path / "masks", dataset)


def test_additional_parent_folders_are_allowed(tmp_path):
    dataset = split(tmp_path)
    for name in NAMES:
        save(tmp_path / f"masks/run 7/final/{name}.png", np.ones((4, 6)))
    assert (predicted(tmp_path / "masks", dataset) == 1).all()


def test_common_suffix_is_not_enough(tmp_path):
    """Frame c of another video is not a mask of this one."""
    dataset = split(tmp_path)
    for name in ("a", "x/c", "y/c"):
        save(tmp_path / f"masks/{name}.png", np.ones((4, 6)))
    with pytest.raises(PairingError, match="found none for b/c, d/c"):
        open_masks(tmp_path / "masks", dataset)


def test_several_masks_of_one_image_are_an_error(tmp_path):
    dataset = split(tmp_path)
    for folder in ("x", "y"):
        for name in NAMES:
            save(tmp_path / f"masks/{folder}/{name}.png", np.ones((4, 6)))
    with pytest.raises(PairingError, match=r"^a: expected one mask, found "):
        open_masks(tmp_path / "masks", dataset)


def test_masks_without_an_image_are_reported(tmp_path):
    dataset = split(tmp_path)
    for name in (*NAMES, "more"):
        save(tmp_path / f"masks/{name}.png", np.ones((4, 6)))
    assert open_masks(tmp_path / "masks", dataset).notices == ("1 mask without an image in this split: not read",)


def test_file_ids_are_translated_and_ignored_ones_unpredicted(tmp_path):
    dataset = split(tmp_path, "names: {7: ground, 9: car}\nignore_index: 255\n", (7, 9))
    for name in NAMES:
        save(tmp_path / f"masks/{name}.png", [[7, 9, 255, 7, 7, 7]] * 4)
    np.testing.assert_array_equal(predicted(tmp_path / "masks", dataset)[0], [0, 1, 255, 0, 0, 0])


def test_255_is_the_second_class_if_no_mask_has_its_id(tmp_path):
    dataset = split(tmp_path)
    for name in NAMES:
        save(tmp_path / f"masks/{name}.png", [[0, 255] * 3] * 4)
    masks = open_masks(tmp_path / "masks", dataset)
    assert masks.notices == ("the masks hold 0 and 255: read as ground and car",)
    np.testing.assert_array_equal(predicted(tmp_path / "masks", dataset)[0], [0, 1] * 3)
    save(tmp_path / "masks/a.png", [[0, 1] * 3] * 4)
    assert 255 in predicted(tmp_path / "masks", dataset, [r.id for r in dataset.records].index("b/c"))


def ruled(tmp_path, rule, labels="names: [ground, car]\nignore_index: 255\n", ids=(0, 1)):
    split(tmp_path, labels, ids)
    config = DataConfig.model_validate({"split": {"val": 0}, "mask_values": rule})
    return open_data(config, tmp_path / "data").train


def test_masks_with_the_values_of_the_data_set(tmp_path):
    dataset = ruled(tmp_path, {10: 0, 1: 1})
    for name in NAMES:
        save(tmp_path / f"masks/{name}.png", [[10, 1] * 3] * 4)
    masks = open_masks(tmp_path / "masks", dataset)
    assert masks.notices == ("the masks are read like the data set's own masks, by data.mask_values",)
    np.testing.assert_array_equal(predicted(tmp_path / "masks", dataset)[0], [0, 1] * 3)


@pytest.mark.parametrize(
    ("rule", "row", "as_ids", "as_data"),
    [({1: 0, 0: 1}, [0, 1, 1, 1, 0, 0], [0, 1, 1, 1, 0, 0], [1, 0, 0, 0, 1, 1]),
     ({255: 0, 0: 1}, [0, 255, 255, 0, 0, 0], [0, 1, 1, 0, 0, 0], [1, 0, 0, 1, 1, 1])],
)  # fmt: skip
def test_ambiguous_values_are_an_error(tmp_path, rule, row, as_ids, as_data):
    dataset = ruled(tmp_path, rule, ids=(0, next(iter(rule))))
    for name in NAMES:
        save(tmp_path / f"masks/{name}.png", [row] * 4)
    with pytest.raises(MaskError) as error:
        open_masks(tmp_path / "masks", dataset)
    assert str(error.value).endswith(
        "masks: expected unambiguous values, found values that are valid as class ids and, differently, by data.mask_values. "
        "Add --set evaluate.masks=ids, or --set evaluate.masks=data."
    )
    for values, expected in (("ids", as_ids), ("data", as_data)):
        mask = open_masks(tmp_path / "masks", dataset, values)(np.zeros((3, 4, 6)), Grid(), id="a").mask
        np.testing.assert_array_equal(mask[0], expected)


def test_output_of_predict_holds_ids(tmp_path):
    dataset = ruled(tmp_path, {1: 0, 0: 1})
    for name in NAMES:
        save(tmp_path / f"out/masks/{name}.png", [[0, 1] * 3] * 4)
    (tmp_path / "out/predictions.json").write_text("{}")
    for folder in ("out", "out/masks"):
        np.testing.assert_array_equal(predicted(tmp_path / folder, dataset)[0], [0, 1] * 3)


def test_threshold_of_the_data_set_is_not_applied_to_ids(tmp_path):
    dataset = ruled(tmp_path, {"threshold": 128})
    for name in NAMES:
        save(tmp_path / f"masks/{name}.png", [[0, 1] * 3] * 4)
    np.testing.assert_array_equal(predicted(tmp_path / "masks", dataset)[0], [0, 1] * 3)


@pytest.mark.parametrize("rule", [None, {1: 0, 2: 1, 3: 2}, {"threshold": 128}, {255: 0, 0: 1}])
def test_ground_truth_scored_against_itself_is_perfect(tmp_path, rule):
    """The masks are read like the data set's own masks."""
    from pixelwise import api

    three = isinstance(rule, dict) and 3 in rule
    values = [1, 2, 3] if three else [0, 255] if rule else [0, 1]
    for name in NAMES:
        save(tmp_path / f"data/images/{name}.png", np.zeros((4, 6, 3)))
        save(tmp_path / f"data/masks/{name}.png", np.resize(values, (4, 6)))
    (tmp_path / "data/labels.yaml").write_text(f"names: {['x', 'y', 'z'][: 3 if three else 2]}\n")
    config = {"split": {"val": 0}, "mask_values": rule}
    (tmp_path / "data/data.yaml").write_text(yaml.safe_dump(config))
    options = {"split": "train", "metrics": (), "overrides": ["evaluate.masks=data"] if rule == {255: 0, 0: 1} else []}
    result = api.evaluate(tmp_path / "data/masks", tmp_path / "data", **options)
    assert result.scores.miou.value == 1.0
    assert len(result.scores.excluded) == 0


def test_mask_of_another_size_is_an_error(tmp_path):
    dataset = split(tmp_path)
    for name in NAMES:
        save(tmp_path / f"masks/{name}.png", np.ones((2, 3)))
    with pytest.raises(MaskError) as error:
        predicted(tmp_path / "masks", dataset)
    assert str(error.value).endswith(
        ".png: expected the image's size, 4×6 (height and width), found 2×3. "
        "Write masks at native size: resize logits, not class ids."
    )


def test_missing_folder_and_missing_masks_are_errors(tmp_path):
    dataset = split(tmp_path)
    with pytest.raises(DataError, match="expected a model, or a folder of masks, found nothing"):
        open_masks(tmp_path / "none", dataset)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="expected a model, or mask files"):
        open_masks(tmp_path / "empty", dataset)


def test_published_scores_of_espnet_on_camvid(real):
    """Pixels predicted as the ignored class are misses, as in cityscapesScripts."""
    from pixelwise import api

    fixture, recipe = real("fixtures/camvid_espnet_test"), Path(__file__).parents[2] / "recipes" / "camvid.yaml"
    expected = json.loads((fixture / "expected.json").read_text())
    overrides = [f"data.root={real('camvid')}"]
    result = api.evaluate(fixture / "pred12", recipe, metrics=(), convention="void-as-error", overrides=overrides)
    assert result.scores.miou.value == pytest.approx(expected["miou_ignore_void"], abs=1e-9)
    found = [entry.iou.value for entry in result.scores.classes]
    assert found == pytest.approx(expected["iou_ignore_void"], abs=1e-9)
    assert result.peer[1][0].score.value == pytest.approx(expected["miou_void_counts_as_fp"], abs=1e-9)
    assert result.unassigned_pixels > 0
    assert result.scores.miou.low < result.scores.miou.value < result.scores.miou.high


def test_decisive_values_may_be_in_the_last_file(tmp_path):
    """Most masks of rare defects are empty: 255 in the last ones is the defect, not an ignored value."""
    for k in range(31):
        save(tmp_path / f"data/images/{k:02}.png", np.zeros((4, 6, 3)))
        save(tmp_path / f"data/masks/{k:02}.png", np.full((4, 6), int(k >= 16)))
        save(tmp_path / f"masks/{k:02}.png", np.full((4, 6), 255 * int(k >= 16)))
    (tmp_path / "data/labels.yaml").write_text("names: [good, defect]\n")
    dataset = open_data(DataConfig.model_validate({"split": {"val": 0}}), tmp_path / "data").train
    masks = open_masks(tmp_path / "masks", dataset)
    assert masks.notices == ("the masks hold 0 and 255: read as good and defect",)
    assert (masks(np.zeros((3, 4, 6)), Grid(), id="30").mask == 1).all()
