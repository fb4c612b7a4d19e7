"""Folders of masks that stand in for a predictor."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pixelwise.config import DataConfig
from pixelwise.data.dataset import open_data
from pixelwise.data.predicted import open_masks
from pixelwise.errors import DataError, MaskError, PairingError
from pixelwise.grid import Grid

NAMES = ("a", "b/c", "d/c")


def save(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(values, np.uint8)).save(path)


def part(tmp_path, labels="names: [ground, car]\nignore_index: 255\n", ids=(0, 1)):
    """Write a data set of three pictures, of which two have the same stem in different folders."""
    for name in NAMES:
        save(tmp_path / f"data/train/images/{name}.png", np.zeros((4, 6, 3)))
        save(tmp_path / f"data/train/masks/{name}.png", np.full((4, 6), ids[1]))
    (tmp_path / "data/labels.yaml").write_text(labels)
    return open_data(DataConfig.model_validate({"split": {"val": 0}}), tmp_path / "data").train


def predicted(folder, dataset, k=0):
    return open_masks(folder, dataset)(np.zeros((3, 4, 6)), Grid(), id=dataset.records[k].id).mask


def test_masks_are_found_by_the_whole_name(tmp_path):
    dataset = part(tmp_path)
    for value, name in enumerate(NAMES):
        save(tmp_path / f"masks/{name}.png", np.full((4, 6), value % 2))
    for k, record in enumerate(dataset.records):
        assert (predicted(tmp_path / "masks", dataset, k) == NAMES.index(record.id) % 2).all()


def test_what_predict_wrote_is_found_by_its_own_folder(tmp_path):
    dataset = part(tmp_path)
    for name in NAMES:
        save(tmp_path / f"out/masks/{name}.png", np.ones((4, 6)))
        save(tmp_path / f"out/overlays/{name}.png", np.zeros((4, 6, 3)))
    (tmp_path / "out/predictions.json").write_text("{}")
    assert (predicted(tmp_path / "out", dataset) == 1).all()


def test_a_name_alone_is_enough_where_it_is_the_only_one(tmp_path):
    dataset = part(tmp_path)
    save(tmp_path / "masks/a.png", np.ones((4, 6)))
    with pytest.raises(PairingError) as error:
        open_masks(tmp_path / "masks", dataset)
    assert str(error.value) == (
        f"{tmp_path}/masks: expected a mask for each of 3 pictures, of the picture's name, found none for b/c, d/c. "
        "Predict these too, or choose the --split that was predicted."
    )
    save(tmp_path / "masks/c.png", np.ones((4, 6)))
    with pytest.raises(PairingError, match=r"expected one picture for every mask, found both b/c and d/c\."):
        open_masks(tmp_path / "masks", dataset)


def test_several_masks_of_one_picture_are_refused(tmp_path):
    dataset = part(tmp_path)
    for folder in ("x", "y"):
        for name in NAMES:
            save(tmp_path / f"masks/{folder}/{name}.png", np.ones((4, 6)))
    with pytest.raises(PairingError, match=r"^a: expected one mask, found "):
        open_masks(tmp_path / "masks", dataset)


def test_masks_of_other_pictures_are_told(tmp_path):
    dataset = part(tmp_path)
    for name in (*NAMES, "more"):
        save(tmp_path / f"masks/{name}.png", np.ones((4, 6)))
    assert open_masks(tmp_path / "masks", dataset).notices == (
        f"1 masks in {tmp_path}/masks belong to no picture of this part and were not read",
    )


def test_file_ids_are_translated_and_ignored_ones_left_open(tmp_path):
    dataset = part(tmp_path, "names: {7: ground, 9: car}\nignore_index: 255\n", (7, 9))
    for name in NAMES:
        save(tmp_path / f"masks/{name}.png", [[7, 9, 255, 7, 7, 7]] * 4)
    np.testing.assert_array_equal(predicted(tmp_path / "masks", dataset)[0], [0, 1, 255, 0, 0, 0])


def test_white_is_the_second_class_where_no_mask_holds_its_id(tmp_path):
    dataset = part(tmp_path)
    for name in NAMES:
        save(tmp_path / f"masks/{name}.png", [[0, 255] * 3] * 4)
    masks = open_masks(tmp_path / "masks", dataset)
    assert masks.notices == ("the masks hold 0 and 255: read as ground and car",)
    np.testing.assert_array_equal(predicted(tmp_path / "masks", dataset)[0], [0, 1] * 3)
    save(tmp_path / "masks/a.png", [[0, 1] * 3] * 4)
    assert 255 in predicted(tmp_path / "masks", dataset, [r.id for r in dataset.records].index("b/c"))


def test_masks_in_the_data_sets_own_values_are_read_as_those(tmp_path):
    part(tmp_path)
    config = DataConfig.model_validate({"split": {"val": 0}, "mask_values": {10: 0, 1: 1}})
    dataset = open_data(config, tmp_path / "data").train
    for name in NAMES:
        save(tmp_path / f"masks/{name}.png", [[10, 1] * 3] * 4)
    masks = open_masks(tmp_path / "masks", dataset)
    assert masks.notices == ("the masks are read as the data set's own, by data.mask_values",)
    np.testing.assert_array_equal(predicted(tmp_path / "masks", dataset)[0], [0, 1] * 3)


def test_a_mask_of_another_size_is_refused_by_name(tmp_path):
    dataset = part(tmp_path)
    for name in NAMES:
        save(tmp_path / f"masks/{name}.png", np.ones((2, 3)))
    with pytest.raises(MaskError) as error:
        predicted(tmp_path / "masks", dataset)
    assert str(error.value).endswith(
        ".png: expected the picture's size, 4×6 (height and width), found 2×3. "
        "Write masks at native size: resize logits before deciding, never ids."
    )


def test_nothing_there_is_told(tmp_path):
    dataset = part(tmp_path)
    with pytest.raises(DataError, match="expected a model, or a folder of masks, found nothing"):
        open_masks(tmp_path / "none", dataset)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="expected a model, or mask files"):
        open_masks(tmp_path / "empty", dataset)


def test_the_published_figure_of_espnet_on_camvid(real):
    """The folder holds void where the network answered so: a miss, as cityscapesScripts counts it."""
    from pixelwise import api

    fixture, recipe = real("fixtures/camvid_espnet_test"), Path(__file__).parents[2] / "recipes" / "camvid.yaml"
    expected = json.loads((fixture / "expected.json").read_text())
    overrides = [f"data.root={real('camvid')}", "evaluate.resamples=200"]
    result = api.evaluate(fixture / "pred12", recipe, metrics=(), convention="void-as-error", overrides=overrides)
    assert result.scores.miou.value == pytest.approx(expected["miou_ignore_void"], abs=1e-9)
    found = [entry.iou.value for entry in result.scores.classes]
    assert found == pytest.approx(expected["iou_ignore_void"], abs=1e-9)
    assert result.peer[1][0].score.value == pytest.approx(expected["miou_void_counts_as_fp"], abs=1e-9)
    assert result.unassigned_pixels > 0
    assert result.scores.miou.low < result.scores.miou.value < result.scores.miou.high
