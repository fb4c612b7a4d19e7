"""NIfTI volumes in the layouts of the Decathlon and nnU-Net, in folders, and loose."""

import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from pixelwise.config import DataConfig
from pixelwise.datasets.convert import convert
from pixelwise.datasets.dataset import DataSplits, open_data
from pixelwise.errors import ConfigError, ImageError, LabelsError, MaskError, PairingError
from pixelwise.formats import FORMATS, find_format
from pixelwise.formats.dataset_root import DatasetRoot

SHAPE = (6, 5, 4)
AFFINE = np.diag([1.0, 1, 3, 1])
TABLE = "<CaretExtension><LabelTable>{}</LabelTable></CaretExtension>"


def volume(
    path: Path, array: np.ndarray | None = None, affine: np.ndarray = AFFINE, table: str = "", **header: Any
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.random.default_rng(len(path.name)).integers(0, 900, SHAPE).astype(np.int16) if array is None else array
    image = nibabel.Nifti1Image(array, affine)
    image.header.set_xyzt_units(**{"xyz": "mm", **header})
    if table:
        image.header.extensions.append(nibabel.nifti1.Nifti1Extension(0, TABLE.format(table).encode()))
    nibabel.save(image, path)
    return path


def ids(*values: int, shape: tuple[int, ...] = SHAPE, dtype: Any = np.uint8) -> np.ndarray:
    mask = np.zeros(shape, dtype)
    for k, value in enumerate(values):
        mask[k, k, :] = value
    return mask


def pairs(root: Path, names: str, images: str = "images", labels: str = "labels") -> Path:
    for name in names.split():
        volume(root / images / f"{name}.nii.gz")
        volume(root / labels / f"{name}.nii.gz", ids(1, 2))
    return root


def opened(root: Path, **config: Any) -> DataSplits:
    return open_data(DataConfig.model_validate({"split": {"val": 0, "test": 0}, **config}), root)


def records(splits: DataSplits) -> dict[str, list[str]]:
    return {split.name: [record.id for record in split.records] for split in splits}


# Layouts ---------------------------------------------------------------------------------------------------------------


def test_images_and_labels_are_read_slice_by_slice(tmp_path: Path) -> None:
    splits = opened(pairs(tmp_path, "a b"))
    assert splits.description["format"] == "nifti"
    assert records(splits) == {"train": [f"{name}/{k}" for name in "ab" for k in range(4)]}
    assert splits.labels.ids == (0, 1, 2)
    assert "2 volumes are read as 8 axial slices (3×1×1 mm between slices, rows, columns)" in splits.notices
    assert splits.train is not None
    sample = splits.train.read(1)
    assert (sample.image.shape, sample.image.dtype, sample.group, sample.grid.spacing) == (
        (1, 5, 6),
        np.int16,
        "a",
        (1, 1),
    )
    stored = np.asarray(nibabel.load(tmp_path / "images/a.nii.gz").dataobj)
    np.testing.assert_array_equal(sample.image[0], stored[::-1, ::-1, 1].T)
    np.testing.assert_array_equal(sample.mask, ids(1, 2)[::-1, ::-1, 1].T)


def test_slices_of_a_volume_stay_in_one_split(tmp_path: Path) -> None:
    splits = opened(pairs(tmp_path, "a b c d e"), split={"val": 0.4, "test": 0.2})
    subsets = {split.name: {record.group for record in split.records} for split in splits}
    assert {name: len(groups) for name, groups in subsets.items()} == {"train": 2, "val": 2, "test": 1}
    assert not subsets["train"] & subsets["val"]
    assert splits.description["split"]["by"] == "group"


def test_slices_without_a_label_are_kept(tmp_path: Path) -> None:
    mask = np.zeros(SHAPE, np.uint8)
    mask[2, 2, 1] = 1
    volume(tmp_path / "images/a.nii.gz")
    volume(tmp_path / "labels/a.nii.gz", mask)
    split = opened(pairs(tmp_path, "b")).train
    assert split is not None
    assert [int(split.read(k).mask.any()) for k in range(4)] == [0, 1, 0, 0]


def test_a_data_set_of_the_decathlon_with_its_description(tmp_path: Path) -> None:
    pairs(tmp_path, "la_003 la_004", "imagesTr", "labelsTr")
    volume(tmp_path / "imagesTr" / "._la_003.nii.gz")  # of macOS, in every archive of the Decathlon
    volume(tmp_path / "imagesTs" / "la_001.nii.gz")
    plain = {
        "name": "Heart",
        "modality": {"0": "MRI"},
        "labels": {"0": "nothing", "1": "atrium", "2": "wall", "3": "clot"},
    }
    (tmp_path / "dataset.json").write_text(json.dumps(plain))
    splits = opened(tmp_path)
    assert splits.labels.names == ("nothing", "atrium", "wall", "clot")
    assert splits.description["labels"] == "the annotations"
    assert records(splits) == {"train": [f"la_{k}/{s}" for k in ("003", "004") for s in range(4)]}
    assert any(
        "1 volumes in a folder of images below ./ (ts) have no folder of masks" in told for told in splits.notices
    )


def test_an_nnunet_folder_with_channels_an_ignored_class_and_labelled_tests(tmp_path: Path) -> None:
    for name in ("p1", "p2"):
        for channel in range(2):
            array = np.full(SHAPE, channel + 1, np.float32 if channel else np.int16)
            volume(tmp_path / "imagesTr" / f"{name}_{channel:04}.nii.gz", array)
        volume(tmp_path / "labelsTr" / f"{name}.nii.gz", ids(1, 2))
    volume(tmp_path / "imagesTs" / "p3_0000.nii.gz")
    volume(tmp_path / "imagesTs" / "p3_0001.nii.gz")
    volume(tmp_path / "labelsTs" / "p3.nii.gz", ids(1))
    plain = {
        "channel_names": {"0": "T2", "1": "ADC"},
        "labels": {"background": 0, "zone": 1, "ignore": 2},
        "file_ending": ".nii.gz",
    }
    (tmp_path / "dataset.json").write_text(json.dumps(plain))
    splits = opened(tmp_path)
    assert (splits.labels.names, splits.labels.ignore_ids) == (("background", "zone"), (2,))
    assert {name: len(own) for name, own in records(splits).items()} == {"train": 8, "test": 4}
    sample = splits.train.read(0)
    assert (sample.image.shape, sample.image.dtype) == ((2, 5, 6), np.float32)
    assert [set(band.ravel().tolist()) for band in sample.image] == [{1.0}, {2.0}]
    assert (sample.mask == 255).sum() == 1
    assert any("the volumes hold float32 and int16: all are read as float32" in told for told in splits.notices)


def test_a_missing_channel_is_a_problem(tmp_path: Path) -> None:
    pairs(tmp_path, "p1", "imagesTr", "labelsTr")
    for name in ("p2_0000", "p2_0001", "p3_0001"):
        volume(tmp_path / "imagesTr" / f"{name}.nii.gz")
    for name in ("p2", "p3"):
        volume(tmp_path / "labelsTr" / f"{name}.nii.gz", ids(1))
    with pytest.raises(
        PairingError, match=r"volume without its other channels \(only 1 of 2\): 1 \(imagesTr/p3_0001\.nii\.gz\)"
    ):
        opened(tmp_path)


def test_splits_by_folders_and_by_lists(tmp_path: Path) -> None:
    for split in ("train", "val"):
        pairs(tmp_path / "folders" / split, "a")
    assert records(opened(tmp_path / "folders")) == {
        "train": [f"a/{k}" for k in range(4)],
        "val": [f"a/{k}" for k in range(4)],
    }
    pairs(tmp_path / "lists", "a b c")
    (tmp_path / "lists/splits").mkdir()
    (tmp_path / "lists/splits/train.txt").write_text("a\nc.nii.gz\n")
    (tmp_path / "lists/splits/val.txt").write_text("b\n")
    found = opened(tmp_path / "lists")
    assert {split.name: {record.group for record in split.records} for split in found} == {
        "train": {"a", "c"},
        "val": {"b"},
    }


@pytest.mark.parametrize(
    ("train", "val"), [("imagesTr labelsTr", "imagesVa labelsVa"), ("train_images train_masks", "val_images val_masks")]
)
def test_splits_by_the_endings_of_folder_names(tmp_path: Path, train: str, val: str) -> None:
    for name, folders in (("a", train), ("b", val)):
        pairs(tmp_path, name, *folders.split())
    assert records(opened(tmp_path)) == {"train": [f"a/{k}" for k in range(4)], "val": [f"b/{k}" for k in range(4)]}


def test_volumes_with_one_name_in_folders_of_several_patients_are_distinguished(tmp_path: Path) -> None:
    for patient in ("p1", "p2"):
        pairs(tmp_path / patient, "ct")
    splits = opened(tmp_path, split={"val": 0.5, "test": 0})
    subsets = records(splits)
    assert sorted(subsets["train"] + subsets["val"]) == [f"{p}/images/ct/{k}" for p in ("p1", "p2") for k in range(4)]
    assert all(len({record.group for record in split.records}) == 1 for split in splits)


def test_files_without_a_partner_are_reported(tmp_path: Path) -> None:
    pairs(tmp_path, "a")
    volume(tmp_path / "images/b.nii.gz")
    volume(tmp_path / "labels/c.nii.gz", ids(1))
    found = r"mask without an image: 1 \(labels/c\.nii\.gz\); volume without a mask: 1 \(images/b\.nii\.gz\)"
    with pytest.raises(PairingError, match=found):
        opened(tmp_path)
    assert len(opened(tmp_path, skip_bad=True).skipped) == 2


@pytest.mark.parametrize("suffix", [".mha", ".MHD", ".mgz"])
def test_volumes_of_other_formats_are_named_with_their_conversion(tmp_path: Path, suffix: str) -> None:
    pairs(tmp_path, "a b")
    (tmp_path / "labels" / f"a{suffix}").write_bytes(b"x")
    expected = f"1 volume of a format that cannot be read ({suffix.lower()}): left out (labels/a{suffix}). Convert"
    assert any(notice.startswith(expected) for notice in opened(tmp_path).notices)
    (tmp_path / "labels/a.nii.gz").unlink()
    with pytest.raises(PairingError, match=r"volume without a mask|image without a mask") as caught:
        opened(tmp_path)
    stem = f"a{suffix}"[: -len(Path(f"a{suffix}").suffix)]
    assert f"'{stem}.nii.gz') in Python" in str(caught.value)


def test_negative_ids_beside_a_label_table_are_reported_when_they_are_used(tmp_path: Path) -> None:
    pairs(tmp_path, "a")
    mask = ids(0, 1, dtype=np.int16)
    mask.flat[0] = -1
    volume(tmp_path / "labels/a.nii.gz", mask)
    with pytest.raises(
        MaskError, match=r"a\.nii\.gz: expected class ids 0, 1, found -1 in 1 pixel, .* --set 'data\.mask"
    ):
        opened(tmp_path)


def test_loose_volumes_belong_together_by_the_voxels_they_share(tmp_path: Path) -> None:
    for k, name in enumerate(("x", "y")):
        affine = AFFINE.copy()
        affine[0, 3] = 100 * k
        volume(tmp_path / f"scan_{name}.nii.gz", affine=affine)
        volume(tmp_path / f"result_{name}_seg.nii.gz", ids(1), affine)
    found = opened(tmp_path)
    assert {(one.image.name, one.mask.name) for one in found.train.records} == {
        ("scan_x.nii.gz", "result_x_seg.nii.gz"),
        ("scan_y.nii.gz", "result_y_seg.nii.gz"),
    }


def test_loose_volumes_on_the_same_voxels_belong_together_by_folders_and_words(tmp_path: Path) -> None:
    for name in ("p1", "p2"):
        volume(tmp_path / name / "ct.nii.gz")
        volume(tmp_path / name / "seg.nii.gz", ids(1))
    found = opened(tmp_path)
    assert all(one.image.parent == one.mask.parent for one in found.train.records)
    for name in ("p3", "p4"):
        volume(tmp_path / "flat" / f"{name}_ct.nii.gz")
        volume(tmp_path / "flat" / f"{name}_label.nii.gz", ids(1))
    found = opened(tmp_path / "flat")
    assert all(one.image.name[:2] == one.mask.name[:2] for one in found.train.records)


def test_where_several_masks_fit_every_pair_is_named_with_the_options_that_choose_it(tmp_path: Path) -> None:
    volume(tmp_path / "ct a.nii.gz")
    for name in ("seg_one", "seg_two"):
        volume(tmp_path / f"{name}.nii.gz", ids(1, 2))
    with pytest.raises(PairingError, match="found several with the same voxels") as error:
        opened(tmp_path)
    assert "--set 'data.images=ct a.nii.gz' --set data.masks=seg_one.nii.gz" in error.value.do
    found = opened(tmp_path, images="ct a.nii.gz", masks="seg_two.nii.gz")
    assert {one.mask.name for one in found.train.records} == {"seg_two.nii.gz"}


def test_masks_whose_tables_contradict_each_other_are_of_different_sets(tmp_path: Path) -> None:
    for k, organ in enumerate(("liver", "knee")):
        affine = AFFINE.copy()
        affine[0, 3] = 100 * k
        volume(tmp_path / f"{organ}.nii.gz", affine=affine)
        volume(tmp_path / f"{organ}_seg.nii.gz", ids(1), affine, f'<Label Key="1">{organ}</Label>')
    with pytest.raises(
        PairingError, match=r"masks whose label tables contradict each other: knee.* with knee_seg"
    ) as error:
        opened(tmp_path)
    assert "--set data.images=liver.nii.gz --set data.masks=liver_seg.nii.gz" in error.value.do


# Named by the configuration --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "config",
    [
        {"images": "ct/*.nii.gz", "masks": "truth/*.nii.gz"},
        {"images": "ct", "masks": "truth"},
        {"images": ["ct/a.nii.gz", "ct/b.nii.gz"], "masks": "truth/{stem}.nii.gz"},
        {"train": {"images": "ct/*", "masks": "truth/{name}"}},
    ],
    ids=["globs", "folders", "template", "part"],
)
def test_volumes_named_by_the_configuration(tmp_path: Path, config: dict[str, Any]) -> None:
    splits = opened(pairs(tmp_path, "a b", "ct", "truth"), **config)
    assert {(one.image.name, one.mask.name) for one in splits.train.records} == {
        (f"{k}.nii.gz", f"{k}.nii.gz") for k in "ab"
    }


def test_a_single_pair_belongs_together_whatever_it_is_called(tmp_path: Path) -> None:
    volume(tmp_path / "example_ct_sm.nii.gz")
    volume(tmp_path / "example_seg.nii.gz", ids(1))
    volume(tmp_path / "other.nii.gz")
    (tmp_path / "data.yaml").write_text("images: example_ct_sm.nii.gz\nmasks: example_seg.nii.gz\n")
    splits = opened(tmp_path, images="example_ct_sm.nii.gz", masks="example_seg.nii.gz")
    assert len(splits.train) == 4


def test_a_single_volume_is_divided_into_blocks_of_neighbours_with_a_notice(tmp_path: Path) -> None:
    shape = (4, 4, 10)
    volume(tmp_path / "images/a.nii.gz", np.zeros(shape, np.int16))
    volume(tmp_path / "labels/a.nii.gz", ids(1, shape=shape))
    splits = opened(tmp_path, split={"val": 0.2})
    assert [split.name for split in splits] == ["train", "val"]
    numbers = sorted(record.plane.index for record in splits.val.records)
    assert numbers == [numbers[0], numbers[0] + 1]
    assert any("the only volume is divided" in told for told in splits.notices)


def test_named_images_need_named_masks_and_patterns_must_match(tmp_path: Path) -> None:
    pairs(tmp_path, "a")
    with pytest.raises(ConfigError, match=r"data\.masks: expected where the masks are, found nothing. Add masks"):
        opened(tmp_path, images="images/*.nii.gz")
    with pytest.raises(ConfigError, match=r"data\.masks: expected files that match 'none/\*'"):
        opened(tmp_path, images="images/*.nii.gz", masks="none/*")
    with pytest.raises(ConfigError, match=r"expected a template with \{stem\}"):
        opened(tmp_path, images="images/*.nii.gz", masks="labels/{nam}.nii.gz")
    with pytest.raises(PairingError, match="volume without a mask"):
        opened(tmp_path, images="images/*.nii.gz", masks="labels/{stem}_gt.nii.gz")
    with pytest.raises(ConfigError, match=r"data\.valid: expected none for volumes"):
        opened(tmp_path, valid="fov/*")


# Classes ---------------------------------------------------------------------------------------------------------------


def test_label_tables_name_the_ids_that_occur(tmp_path: Path) -> None:
    table = '<Label Key="1"><![CDATA[spleen]]></Label><Label Key="2">liver</Label><Label Key="9">rib</Label>'
    volume(tmp_path / "images/a.nii.gz")
    volume(tmp_path / "labels/a.nii.gz", ids(2, 5, 9), table=table)
    splits = opened(tmp_path)
    assert (splits.labels.names, splits.labels.ids) == (("background", "liver", "class_5", "rib"), (0, 2, 5, 9))
    assert any("1 of 4 do not occur and are left out; 5 are in no table" in told for told in splits.notices)
    named = opened(tmp_path, labels={"names": {0: "rest", 2: "l", 5: "x", 9: "r"}})
    assert named.labels.names == ("rest", "l", "x", "r")


def test_mask_values_are_followed(tmp_path: Path) -> None:
    pairs(tmp_path, "a")
    splits = opened(tmp_path, mask_values={0: 0, 1: 1, 2: 1})
    assert splits.labels.names == ("background", "foreground")
    assert splits.train.read(0).mask.max() == 1


def test_masks_of_0_and_255_are_two_classes(tmp_path: Path) -> None:
    volume(tmp_path / "images/a.nii.gz")
    volume(tmp_path / "labels/a.nii.gz", ids(255, 255))
    splits = opened(tmp_path)
    assert splits.labels.names == ("background", "foreground")
    assert splits.train.read(0).mask.sum() == 2


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        ({"whole": [1, 2], "background": 0}, "found regions of several ids. Name the ids in a labels.yaml"),
        (["a"], "found list"),
        ({"a": "b"}, "expected whole numbers as ids"),
    ],
)
def test_descriptions_that_name_no_classes_are_errors(tmp_path: Path, labels: Any, found: str) -> None:
    pairs(tmp_path, "a", "imagesTr", "labelsTr")
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": labels}))
    with pytest.raises(LabelsError, match=rf"dataset\.json: .*{found}"):
        opened(tmp_path)
    assert opened(tmp_path, labels=["a", "b", "c"]).labels.names == ("a", "b", "c")


def test_a_description_of_other_files_or_of_nothing_is_an_error(tmp_path: Path) -> None:
    pairs(tmp_path, "a", "imagesTr", "labelsTr")
    for text, found in (
        ('{"file_ending": ".mha"}', r"expected file_ending \.nii or \.nii\.gz .*, found '\.mha'"),
        ("[1]", "expected a JSON object, found list"),
        ("{", "expected a JSON file"),
    ):
        (tmp_path / "dataset.json").write_text(text)
        with pytest.raises(MaskError, match=found):
            opened(tmp_path)


# What is refused -------------------------------------------------------------------------------------------------------


def test_a_mask_elsewhere_stops_or_is_left_out_once(tmp_path: Path) -> None:
    pairs(tmp_path, "a b c")
    volume(tmp_path / "labels/b.nii.gz", ids(1), AFFINE @ np.diag([-1, 1, 1, 1]))
    with pytest.raises(
        PairingError, match=r"labels/b\.nii\.gz: expected voxels at the positions of those of b\.nii\.gz"
    ):
        opened(tmp_path)
    splits = opened(tmp_path, skip_bad=True)
    assert len(splits.skipped) == 1
    assert {record.group for record in splits.train.records} == {"a", "c"}


def test_a_mask_in_another_order_of_axes_is_laid_over_its_image(tmp_path: Path) -> None:
    pairs(tmp_path, "a b")
    image = nibabel.load(tmp_path / "labels/a.nii.gz").as_reoriented([[2, -1], [0, 1], [1, -1]])
    usual = opened(tmp_path)
    nibabel.save(image, tmp_path / "labels/a.nii.gz")
    turned = opened(tmp_path)
    for index in range(len(usual.train)):
        np.testing.assert_array_equal(usual.train.read(index).mask, turned.train.read(index).mask)


def test_points_in_time_are_refused_unless_they_are_named_as_channels(tmp_path: Path) -> None:
    array = np.zeros((*SHAPE, 3), np.int16)
    for name in "ab":
        volume(tmp_path / f"imagesTr/{name}.nii.gz", array, t="sec")
        volume(tmp_path / f"labelsTr/{name}.nii.gz", ids(1))
    with pytest.raises(
        ImageError, match=r"a\.nii\.gz: expected one volume, or one band per channel, found 3 points in time"
    ):
        opened(tmp_path)
    (tmp_path / "dataset.json").write_text(json.dumps({"modality": {"0": "FLAIR", "1": "T1w", "2": "T2w"}}))
    assert opened(tmp_path).train.read(0).image.shape == (3, 5, 6)


def test_a_broken_volume_stops_or_is_left_out(tmp_path: Path) -> None:
    pairs(tmp_path, "a b")
    (tmp_path / "images/b.nii.gz").write_bytes(b"broken")
    with pytest.raises(ImageError, match=r"images/b\.nii\.gz: expected a NIfTI file"):
        opened(tmp_path)
    assert len(opened(tmp_path, skip_bad=True).skipped) == 1


# Around ----------------------------------------------------------------------------------------------------------------


def test_slices_can_be_written_in_another_format(tmp_path: Path) -> None:
    splits = opened(pairs(tmp_path / "in", "a b"))
    (tmp_path / "out").mkdir()
    done = convert(splits, FORMATS["masks"], tmp_path / "out")
    assert (done.images, done.changed_pixels) == (8, 0)
    back = open_data(
        DataConfig.model_validate({"split": {"val": 0}, "labels": splits.labels.to_dict()}), tmp_path / "out"
    )
    own = {sample.id: sample.image for sample in map(splits.train.read, range(8))}
    for index in range(8):
        sample = back.train.read(index)
        np.testing.assert_array_equal(sample.image, own[sample.id])


def test_the_hash_follows_what_is_read(tmp_path: Path) -> None:
    pairs(tmp_path, "a b")
    before = opened(tmp_path).train.hash()
    assert before == opened(tmp_path).train.hash()
    volume(tmp_path / "labels/b.nii.gz", ids(2, 1))
    assert before != opened(tmp_path).train.hash()


def test_volumes_are_recognised_and_other_folders_are_not(tmp_path: Path) -> None:
    place = DatasetRoot(pairs(tmp_path / "a", "x"), tmp_path / "a", DataConfig())
    assert find_format(place)[0].name == "nifti"
    (tmp_path / "b").mkdir()
    (tmp_path / "b/a.png").touch()
    assert FORMATS["nifti"].detect(DatasetRoot(tmp_path / "b", tmp_path / "b", DataConfig())) is None


def test_real_hippocampus_needs_no_configuration(real: Any) -> None:
    root = real("hippocampus")
    splits = open_data(DataConfig(), root)
    assert sum(len(split) for split in splits) == 1720
    assert (splits.labels.ids, len({record.group for record in splits.train.records})) == ((0, 1, 2), 40)
    rng = np.random.default_rng(0)
    for index in rng.integers(0, len(splits.train), 20).tolist():
        sample, record = splits.train.read(index), splits.train.records[index]
        assert sample.image.dtype == np.float32
        for array, path in ((sample.image[0], record.image), (sample.mask, record.mask)):
            stored = nibabel.load(path)  # all are RAS, 1 mm
            plane = np.asarray(stored.dataobj)[::-1, ::-1, record.plane.index].T
            np.testing.assert_array_equal(array, plane.astype(array.dtype))
