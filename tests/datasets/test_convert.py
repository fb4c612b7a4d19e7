"""`convert`: the same masks in another format, with the number of changed pixels."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import tifffile
from PIL import Image

import pixelwise
from pixelwise.datasets import convert as converting
from pixelwise.datasets.dataset import Dataset, DataSplits, Record, open_data
from pixelwise.errors import DataError, MaskError, OutputExistsError, PairingError, UsageError
from pixelwise.formats import FORMATS
from pixelwise.imageio.masks import MaskRule
from pixelwise.labels import Labels


def lay(folder: Path, masks: dict[str, np.ndarray]) -> Path:
    for name, mask in masks.items():
        for kind in ("images", "masks"):
            (folder / kind / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((*mask.shape, 3), len(name), np.uint8)).save(folder / "images" / f"{name}.jpg")
        Image.fromarray(mask).save(folder / "masks" / f"{name}.png")
    (folder / "labels.yaml").write_text("names: [background, ring, core]\nignore_index: 255\n")
    return folder


def ring() -> np.ndarray:
    mask = np.zeros((12, 16), np.uint8)
    mask[2:10, 2:10] = 1
    mask[4:8, 4:8] = 0
    mask[5:7, 5:7] = 2
    mask[0, 0] = 255
    return mask


def opened(folder: Path) -> DataSplits:
    from pixelwise.config import read_request

    config, base = read_request(folder)
    return open_data(config.data, base)


def read_back(folder: Path) -> dict[str, np.ndarray]:
    back = {}
    for split in opened(folder):
        for index, record in enumerate(split.records):
            back[record.image.stem] = split.read(index).mask
    return back


@pytest.mark.parametrize("kind", [name for name, one in FORMATS.items() if one.write is not None and not one.loses])
def test_holes_islands_and_ignored_pixels_survive(kind, tmp_path):
    data = lay(tmp_path / "in", {"a": ring(), "b": ring().T.copy(), "c": np.full((3, 4), 2, np.uint8)})
    done = pixelwise.convert(data, to=kind, out=tmp_path / "out")
    assert (done.images, done.changed_pixels, done.changed_images, done.worst) == (3, 0, 0, ())
    assert done.pixels == 2 * 12 * 16 + 12
    back = read_back(tmp_path / "out")
    np.testing.assert_array_equal(back["a"], ring())
    np.testing.assert_array_equal(back["b"], ring().T)
    np.testing.assert_array_equal(back["c"], np.full((3, 4), 2))


def test_images_are_copied_unchanged_and_splits_are_kept(tmp_path):
    for split in ("train", "val"):
        lay(tmp_path / "in" / split, {f"{split}{k}": ring() for k in range(2)})
    (tmp_path / "in" / "labels.yaml").write_text("names: [background, ring, core]\n")
    pixelwise.convert(tmp_path / "in", to="labelme", out=tmp_path / "out")
    for split in ("train", "val"):
        for k in range(2):
            before = (tmp_path / "in" / split / "images" / f"{split}{k}.jpg").read_bytes()
            assert (tmp_path / "out" / split / f"{split}{k}.jpg").read_bytes() == before


def test_names_that_differ_in_case_or_suffix_do_not_collide(tmp_path):
    data = lay(tmp_path / "in", {"a": ring(), "A": ring().T.copy()})
    done = pixelwise.convert(data, to="masks", out=tmp_path / "out")
    assert done.images == 2
    assert done.changed_pixels == 0


def test_a_generated_name_does_not_collide_with_another_image(tmp_path):
    data = lay(tmp_path / "in", {"a": ring(), "A": ring().T.copy(), "a_2": np.full((3, 4), 2, np.uint8)})
    done = pixelwise.convert(data, to="masks", out=tmp_path / "out", overrides=["data.split.val=0"])
    assert (done.images, done.changed_pixels) == (3, 0)
    assert sorted(mask.shape for mask in read_back(tmp_path / "out").values()) == [(3, 4), (12, 16), (16, 12)]


def test_images_of_one_name_in_two_splits_are_both_counted(tmp_path):
    for split in ("train", "val"):
        lay(tmp_path / "in" / split, {"a": ring()})
    (tmp_path / "in" / "labels.yaml").write_text("names: [background, ring, core]\n")
    done = pixelwise.convert(tmp_path / "in", to="yolo", out=tmp_path / "out")
    assert (done.changed_pixels, done.changed_images) == (2, 2)
    assert [name.partition("/")[0] for name, _ in done.worst] == ["train", "val"]


def test_an_image_missing_after_reading_back_counts_as_changed(tmp_path, monkeypatch):
    def fewer(*arguments):
        back = open_data(*arguments)
        return replace(back, train=back.train.subset([0]))

    data = lay(tmp_path / "in", {"a": ring(), "b": ring()})
    monkeypatch.setattr(converting, "open_data", fewer)
    done = pixelwise.convert(data, to="masks", out=tmp_path / "out", overrides=["data.split.val=0"])
    assert (done.images, done.pixels, done.changed_pixels, done.changed_images) == (2, 2 * 192, 192, 1)


def test_groups_are_kept(tmp_path):
    data = lay(tmp_path / "in", {f"p{k // 2}_{k}": ring() for k in range(6)})
    rule = ["data.group=(p[0-9])_", "data.split.val=0.34"]
    pixelwise.convert(data, to="coco", out=tmp_path / "out", overrides=rule)
    groups = {record.image.stem: record.group for split in opened(tmp_path / "out") for record in split.records}
    assert groups == {f"p{k // 2}_{k}": f"p{k // 2}" for k in range(6)}


def test_data_bands_is_kept(tmp_path):
    data = lay(tmp_path / "in", {"a": ring(), "b": ring()})
    Image.fromarray(np.full((12, 16), 9, np.uint8)).save(data / "images" / "b.jpg")
    bring = ["data.bands=rgb", "data.split.val=0"]
    pixelwise.convert(data, to="masks", out=tmp_path / "out", overrides=bring)
    train = opened(tmp_path / "out").train
    assert [len(train.read(index).image) for index in range(2)] == [3, 3]


@pytest.mark.parametrize("nodata", [float("nan"), -9999.0])
def test_nodata_pixels_of_float_images_are_replaced_in_the_copy(nodata, tmp_path):
    image = np.ones((12, 16), np.float32)
    image[:3] = nodata
    tifffile.imwrite(tmp_path / "a.tif", image)
    Image.fromarray(np.eye(12, 16, dtype=np.uint8)).save(tmp_path / "a.png")
    record = Record("a", tmp_path / "a.tif", tmp_path / "a.png", nodata=nodata)
    labels = Labels(("background", "line"))
    split = Dataset(labels, (record,), MaskRule(), "train")
    (tmp_path / "out").mkdir()
    splits = DataSplits(split, None, None, labels, (), (), {})
    done = converting.convert(splits, FORMATS["masks"], tmp_path / "out")
    assert (done.images, done.changed_pixels) == (1, 0)
    sample = opened(tmp_path / "out").train.read(0)
    assert (sample.image == 1).all()
    assert (sample.mask[:3] == 255).all()


def test_the_loss_of_spacing_of_slices_is_reported(tmp_path):
    for folder in ("imagesTr", "labelsTr"):
        (tmp_path / "in" / folder).mkdir(parents=True)
        for k, name in enumerate("abc"):
            array = np.random.default_rng(k).integers(0, 2, (6, 5, 3)).astype(np.uint8)
            volume = nibabel.Nifti1Image(array, np.diag([2.0, 2.0, 5.0, 1.0]))
            volume.header.set_xyzt_units("mm")
            nibabel.save(volume, tmp_path / "in" / folder / f"{name}.nii.gz")
    done = pixelwise.convert(tmp_path / "in", to="masks", out=tmp_path / "out")
    assert "9 images were written as plain TIFFs, without spacing and georeferencing" in done.notices


def test_folders_common_to_all_images_are_dropped(tmp_path):
    data = lay(tmp_path / "in", {"deep/one/a": ring(), "deep/two/a": ring().T.copy()})
    pixelwise.convert(data, to="masks", out=tmp_path / "out", overrides=["data.split.val=0"])
    assert sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.jpg")) == [
        "train/images/one/a.jpg",
        "train/images/two/a.jpg",
    ]


def test_existing_files_are_not_touched(tmp_path):
    data = lay(tmp_path / "in", {"a": ring(), "b": ring()})
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(OutputExistsError, match=r"out: expected a new or empty folder, found existing files\. Choose"):
        pixelwise.convert(data, to="masks", out=tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_an_unreadable_mask_leaves_no_output(tmp_path):
    data = lay(tmp_path / "in", {"a": ring(), "b": np.full((5, 5), 77, np.uint8)})
    with pytest.raises(MaskError, match="77"):
        pixelwise.convert(data, to="labelme", out=tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_an_image_without_a_mask_is_an_error_unless_skip_bad(tmp_path):
    data = lay(tmp_path / "in", {"a": ring(), "b": ring(), "c": ring()})
    (data / "masks" / "c.png").unlink()
    with pytest.raises(PairingError, match="image without a mask: 1"):
        pixelwise.convert(data, to="masks", out=tmp_path / "out")
    done = pixelwise.convert(data, to="masks", out=tmp_path / "out", overrides=["data.skip_bad=true"])
    assert done.images == 2
    assert "1 file was left out by skip_bad" in done.notices
    assert any("c.jpg" in text for text in done.notices)


def test_undecodable_images_are_left_out_with_skip_bad(tmp_path):
    data = lay(tmp_path / "in", {"a": ring(), "b": np.full((5, 5), 77, np.uint8)})
    skip = ["data.skip_bad=true", "data.split.val=0"]
    done = pixelwise.convert(data, to="labelme", out=tmp_path / "out", overrides=skip)
    assert (done.images, done.changed_pixels) == (1, 0)
    (data / "masks" / "a.png").write_bytes((data / "masks" / "b.png").read_bytes())
    (data / "images" / "a.jpg").write_bytes((data / "images" / "b.jpg").read_bytes())
    with pytest.raises(DataError, match="expected images with masks, found none that can be used"):
        pixelwise.convert(data, to="labelme", out=tmp_path / "none", overrides=skip)


def test_unknown_formats_suggest_the_nearest_name(tmp_path):
    with pytest.raises(
        UsageError, match=r"--to: expected one of .*labelme.*, found 'labellme'\. Did you mean 'labelme'\?"
    ):
        pixelwise.convert(tmp_path, to="labellme", out=tmp_path / "out")


@pytest.mark.parametrize("kind", [name for name, one in FORMATS.items() if one.write is None])
def test_read_only_formats_suggest_no_other(kind, tmp_path):
    with pytest.raises(UsageError, match=rf"found '{kind}', which is read-only\. Choose one of them\."):
        pixelwise.convert(tmp_path, to=kind, out=tmp_path / "out")


def test_the_command_reports_the_result(tmp_path, capsys, monkeypatch):
    import sys

    from pixelwise import cli

    data = lay(tmp_path / "in", {"a": ring(), "b": ring()})
    for options, out in ((["--json"], "one"), ([], "two")):
        arguments = ["pixelwise", "convert", str(data), "--to", "labelme", "--out", str(tmp_path / out), *options]
        monkeypatch.setattr(sys, "argv", arguments)
        with pytest.raises(SystemExit) as end:
            cli.main()
        assert not end.value.code
        said, beside = capsys.readouterr()
        assert "of 2 images were taken from train for val" in beside
        if options:
            plain = json.loads(said)
            assert (plain["format"], plain["pictures"], plain["changed_pixels"]) == ("labelme", 2, 0)
        else:
            assert said.splitlines() == [
                f"2 images with masks written as labelme: {tmp_path / out}",
                "read back: no pixel changed",
            ]
