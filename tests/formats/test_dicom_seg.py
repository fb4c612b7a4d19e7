"""Data sets of DICOM series with segmentation objects: pairing by identifiers, classes by names."""

import pickle
import shutil
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
from pydicom.uid import generate_uid
from tests.imageio.dicom_objects import AXIAL, positions, write_seg, write_series

from pixelwise import check
from pixelwise.config import DataConfig
from pixelwise.datasets.convert import convert
from pixelwise.datasets.dataset import DataSplits, open_data
from pixelwise.errors import DataError, GridMismatchError, LabelsError, MaskError, PairingError
from pixelwise.formats import FORMATS
from pixelwise.formats.reading import read_truth
from pixelwise.imageio.dicom_seg_writing import write_dicom_seg
from pixelwise.labels import Labels

SHAPE = (4, 5, 6)
LABELS = Labels(("background", "liver", "tumour"), colours=((0, 0, 0), (200, 30, 60), (10, 220, 90)))


def opened(root: Path, **config: Any) -> DataSplits:
    return open_data(DataConfig.model_validate({"split": {"val": 0, "test": 0}, **config}), root)


def patient(
    folder: Path, seg: Path, labels: Labels = LABELS, seed: int = 0, **options: Any
) -> tuple[list[Path], np.ndarray]:
    """Write a series and its segmentation; return its files and the mask (D, H, W)."""
    files = write_series(folder, SHAPE)
    mask = np.random.default_rng(seed).integers(0, labels.num_classes, SHAPE).astype(np.uint8)
    write_dicom_seg(seg, mask, labels, files, **options)
    return files, mask


def masks_by_file(splits: DataSplits) -> dict[Path, np.ndarray]:
    """Return the class ids of the mask of every slice, as an array of class names."""
    names = np.array([*splits.labels.names, *[""] * 255], object)
    return {record.image: names[splits.train.read(k).mask] for k, record in enumerate(splits.train.records)}


def require_masks(splits: DataSplits, files: list[Path], mask: np.ndarray, labels: Labels = LABELS) -> None:
    found = masks_by_file(splits)
    names = np.array([*labels.names, *[""] * 255], object)
    for file, plane in zip(files, mask, strict=True):
        np.testing.assert_array_equal(found[file], names[plane])


@pytest.mark.parametrize("kind", ["binary", "labelmap"])
def test_whole_volumes_have_the_masks_of_their_slices(tmp_path: Path, kind: Any) -> None:
    patient(tmp_path / "a/ct", tmp_path / "a/seg.dcm", segmentation_type=kind)
    patient(tmp_path / "b/ct", tmp_path / "b/seg.dcm", seed=1, segmentation_type=kind)
    slices, whole = opened(tmp_path).train, opened(tmp_path, volumes="whole").train
    assert [record.id for record in whole.records] == ["a/ct", "b/ct"]
    for i, record in enumerate(whole.records):
        sample = whole.read(i)
        own = [slices.read(k) for k, each in enumerate(slices.records) if each.group == record.id]
        np.testing.assert_array_equal(sample.mask, np.stack([each.mask for each in own]))
        np.testing.assert_array_equal(sample.image, np.stack([each.image for each in own], 1))
    assert whole.hash() != whole.subset([1, 0]).subset([0]).hash()


@pytest.mark.parametrize("kind", ["binary", "labelmap"])
@pytest.mark.parametrize("place", ["seg.dcm", "ct/seg.dcm", "seg/1.2.3", "a/b/c"])
def test_a_segmentation_anywhere_belongs_to_the_series_that_it_refers_to(tmp_path: Path, kind: Any, place: str) -> None:
    files, mask = patient(tmp_path / "ct", tmp_path / place, segmentation_type=kind)
    splits = opened(tmp_path)
    assert splits.description["format"] == "dicom"
    assert splits.labels.names == LABELS.names
    assert splits.labels.colours[1:] == LABELS.colours[1:]
    require_masks(splits, files, mask)
    assert any("those of 1 DICOM segmentation, paired with its series by identifiers" in n for n in splits.notices)
    assert not any("not used" in notice or "left out" in notice for notice in splits.notices)


def test_identifiers_decide_and_not_names_or_folders(tmp_path: Path) -> None:
    """Each segmentation is in the folder of the other series, under its name."""
    one = patient(tmp_path / "p1/ct", tmp_path / "p2/ct_seg.dcm", seed=1)
    two = patient(tmp_path / "p2/ct", tmp_path / "p1/ct_seg.dcm", seed=2)
    splits = opened(tmp_path)
    require_masks(splits, *one)
    require_masks(splits, *two)
    assert {record.group for record in splits.train.records} == {"p1/ct", "p2/ct"}


def test_numbers_may_differ_since_names_decide(tmp_path: Path) -> None:
    other = Labels(("tumour", "vessel", "liver"))
    one = patient(tmp_path / "p1/ct", tmp_path / "p1/s.dcm", seed=1)
    two = patient(tmp_path / "p2/ct", tmp_path / "p2/s.dcm", other, seed=2)
    splits = opened(tmp_path)
    assert splits.labels.names == ("background", "liver", "tumour", "vessel")
    require_masks(splits, *one)
    require_masks(splits, *two, other)


def test_named_files_are_paired_by_identifiers_too(tmp_path: Path) -> None:
    one = patient(tmp_path / "p1/ct", tmp_path / "p1/s.dcm", seed=1)
    patient(tmp_path / "p2/ct", tmp_path / "p2/s.dcm", seed=2)
    files, _ = one
    for images, masks in (
        ("p1/ct", "p1/s.dcm"),
        ("p1/ct/*", "p1"),
        ("p1", "p1/*.dcm"),
        ("p1/ct", "{parent}/s.dcm"),
    ):
        splits = opened(tmp_path, images=images, masks=masks)
        assert len(splits.train) == len(files)
        require_masks(splits, *one)
    splits = opened(
        tmp_path, train={"images": "p1/ct", "masks": "p1/s.dcm"}, test={"images": "p2/ct", "masks": "p2/s.dcm"}
    )
    assert (len(splits.train), len(splits.test)) == (4, 4)


def test_splits_with_ground_truth_of_two_kinds_are_refused(tmp_path: Path) -> None:
    patient(tmp_path / "p1/ct", tmp_path / "p1/s.dcm")
    patient(tmp_path / "p2/ct", tmp_path / "p2/s.dcm")
    (tmp_path / "p2/labels.nii.gz").write_bytes(b"")
    with pytest.raises(DataError, match="expected ground truth of one kind, found none for test"):
        opened(
            tmp_path, train={"images": "p1/ct", "masks": "p1/s.dcm"}, test={"images": "p2/ct", "masks": "p2/*.nii.gz"}
        )


def test_folders_named_after_splits_divide_the_series(tmp_path: Path) -> None:
    patient(tmp_path / "train/ct", tmp_path / "train/s.dcm", seed=1)
    patient(tmp_path / "test/ct", tmp_path / "test/s.dcm", seed=2)
    splits = opened(tmp_path)
    assert (len(splits.train), len(splits.test)) == (4, 4)


def test_ignored_classes_and_unlabelled_pixels(tmp_path: Path) -> None:
    files, mask = patient(tmp_path / "ct", tmp_path / "s.dcm")
    splits = opened(tmp_path, ignored=["tumour"])
    assert splits.labels.names == ("background", "liver")
    require_masks(splits, files, np.where(mask == 2, 255, mask))
    splits = opened(tmp_path, unlabelled="ignore")
    assert splits.labels.names == ("liver", "tumour")
    found = masks_by_file(splits)
    assert {name for plane in found.values() for name in np.unique(plane.astype(str))} == {"", "liver", "tumour"}
    with pytest.raises(LabelsError, match="'tumour' in 4 images"):
        opened(tmp_path, labels=["background", "liver"])
    splits = opened(tmp_path, labels=["background", "tumour", "liver"])
    require_masks(splits, files, mask)


def test_series_without_identifier_are_paired_by_their_images(tmp_path: Path) -> None:
    files = write_series(tmp_path / "ct", SHAPE, SeriesInstanceUID=None, StudyInstanceUID="", SOPInstanceUID="")
    mask = np.random.default_rng(0).integers(0, 3, SHAPE).astype(np.uint8)
    write_dicom_seg(tmp_path / "s.dcm", mask, LABELS, files, generate_uids=True)
    require_masks(opened(tmp_path), files, mask)


def test_several_segmentations_of_a_series_complement_each_other(tmp_path: Path) -> None:
    files = write_series(tmp_path / "ct", SHAPE)
    mask = np.random.default_rng(0).integers(0, 3, SHAPE).astype(np.uint8)
    for index, name in enumerate(("liver", "tumour"), 1):
        write_dicom_seg(tmp_path / f"{name}.dcm", (mask == index).astype(np.uint8), Labels(("background", name)), files)
    require_masks(opened(tmp_path), files, mask)


def test_two_segmentations_with_the_same_segments_need_a_choice(tmp_path: Path) -> None:
    files, mask = patient(tmp_path / "ct", tmp_path / "reader_1.dcm", seed=1)
    write_dicom_seg(tmp_path / "reader_2.dcm", mask[::-1], LABELS, files)
    with pytest.raises(PairingError, match=r"several segmentations of one series with the same segments") as error:
        opened(tmp_path)
    assert "--set data.images=ct --set data.masks=reader_2.dcm" in error.value.do
    require_masks(opened(tmp_path, images="ct", masks="reader_2.dcm"), files, mask[::-1])


def test_segmentations_and_label_volumes_in_nifti_need_a_choice(tmp_path: Path) -> None:
    files, mask = patient(tmp_path / "ct", tmp_path / "seg.dcm")
    volume = np.zeros(SHAPE[::-1], np.uint8)
    affine = np.diag([-0.6, -0.8, 2.5, 1])
    affine[:3, 3] = 30, 20, 100
    nibabel.save(nibabel.Nifti1Image(volume, affine), tmp_path / "labels.nii.gz")
    with pytest.raises(PairingError, match=r"DICOM segmentations and label volumes: ct with seg\.dcm") as error:
        opened(tmp_path)
    assert "--set data.images=ct --set data.masks=labels.nii.gz" in error.value.do
    require_masks(opened(tmp_path, images="ct", masks="seg.dcm"), files, mask)
    splits = opened(tmp_path, images="ct", masks="labels.nii.gz")
    assert all(not splits.train.read(k).mask.any() for k in range(4))


def test_other_series_of_a_study_are_left_out_and_those_of_other_studies_reported(tmp_path: Path) -> None:
    files, mask = patient(tmp_path / "study/ct", tmp_path / "study/seg.dcm")
    write_series(tmp_path / "study/scout", (1, 4, 4), study=pydicom.dcmread(files[0]).StudyInstanceUID)
    splits = opened(tmp_path)
    require_masks(splits, files, mask)
    assert any("1 series that no segmentation refers to is left out" in notice for notice in splits.notices)
    write_series(tmp_path / "other/ct", SHAPE)
    with pytest.raises(PairingError, match=r"volume without a mask: 1 \(other/ct\)"):
        opened(tmp_path)
    require_masks(opened(tmp_path, skip_bad=True), files, mask)


def test_a_segmentation_of_a_series_that_is_missing_is_reported(tmp_path: Path) -> None:
    patient(tmp_path / "p1/ct", tmp_path / "p1/s.dcm")
    patient(tmp_path / "p2/ct", tmp_path / "p2/s.dcm")
    shutil.rmtree(tmp_path / "p2/ct")
    with pytest.raises(PairingError, match=r"no series with an identifier that it refers to: 1 \(p2/s\.dcm\)"):
        opened(tmp_path)


def test_copies_of_a_series_are_refused(tmp_path: Path) -> None:
    patient(tmp_path / "ct", tmp_path / "s.dcm")
    shutil.copytree(tmp_path / "ct", tmp_path / "copy")
    with pytest.raises(
        PairingError, match=r"several series with the same identifiers: copy with s\.dcm; ct with s\.dcm"
    ):
        opened(tmp_path)


@pytest.mark.parametrize("fault", ["overlap", "elsewhere", "broken"])
def test_faults_name_the_segmentation(tmp_path: Path, fault: str) -> None:
    files = write_series(tmp_path / "ct", SHAPE)
    series, path = pydicom.dcmread(files[0]).SeriesInstanceUID, tmp_path / "s.dcm"
    plane, place = np.ones(SHAPE[1:], bool), positions(1)[0]
    frames = [(number, place, plane) for number in (1, 2)]
    if fault == "elsewhere":
        frames = [(1, [place[0] + 0.2, *place[1:]], plane)]
    write_seg(path, frames, {1: "liver", 2: "tumour"}, series=series, directions=AXIAL)
    if fault == "broken":
        path.write_bytes(path.read_bytes()[:-8])
    splits = opened(tmp_path)
    expected, match = {
        "overlap": (MaskError, "30 pixels in both 'liver' and 'tumour'"),
        "elsewhere": (GridMismatchError, "expected frames on the 4×5×6 voxels of ct"),
        "broken": (MaskError, "expected a complete DICOM segmentation"),
    }[fault]
    with pytest.raises(expected, match=match) as error:
        splits.train.read(0)
    assert str(path) in str(error.value)


def test_a_mask_is_small_to_send_to_workers_and_its_hash_depends_on_file_and_slice(tmp_path: Path) -> None:
    patient(tmp_path / "ct", tmp_path / "s.dcm")
    records = opened(tmp_path).train.records
    sent = pickle.dumps(records[0])
    assert len(sent) < 4000
    np.testing.assert_array_equal(read_truth(pickle.loads(sent), LABELS)[0], read_truth(records[0], LABELS)[0])
    digests = {record.source.digest() for record in records if record.source}
    files = sorted((tmp_path / "ct").iterdir())
    write_dicom_seg(tmp_path / "s.dcm", np.zeros(SHAPE, np.uint8), LABELS, files)
    digests |= {record.source.digest() for record in opened(tmp_path).train.records if record.source}
    assert len(digests) == 8


def test_a_fractional_segmentation_is_reported(tmp_path: Path) -> None:
    files = write_series(tmp_path / "ct", SHAPE)
    values = np.random.default_rng(0).integers(0, 256, SHAPE[1:])
    series = pydicom.dcmread(files[0]).SeriesInstanceUID
    frames = [(1, positions(1)[0], values)]
    write_seg(tmp_path / "s", frames, {1: "a"}, series=series, kind="FRACTIONAL", MaximumFractionalValue=255)
    splits = opened(tmp_path)
    assert any("1 segmentation is fractional: pixels with more than half" in notice for notice in splits.notices)
    mask = masks_by_file(splits)[files[0]]
    np.testing.assert_array_equal(mask == "a", values > 127)


def test_a_broken_segmentation_can_be_left_out(tmp_path: Path) -> None:
    patient(tmp_path / "p1/ct", tmp_path / "p1/s.dcm")
    files, _ = patient(tmp_path / "p2/ct", tmp_path / "p2/s.dcm")
    series = pydicom.dcmread(files[0]).SeriesInstanceUID
    frames = [(1, positions(1)[0], np.ones(SHAPE[1:], bool))]
    write_seg(tmp_path / "p2/s.dcm", frames, {}, series=series)
    with pytest.raises(MaskError, match=r"s\.dcm: expected segments, each with its own number, found none"):
        opened(tmp_path)
    assert len(opened(tmp_path, skip_bad=True).train) == 4


def test_slices_can_be_written_in_another_format(tmp_path: Path) -> None:
    patient(tmp_path / "in/ct", tmp_path / "in/s.dcm")
    (tmp_path / "out").mkdir()
    assert convert(opened(tmp_path / "in"), FORMATS["masks"], tmp_path / "out").changed_pixels == 0


def test_a_segmentation_alone_has_no_images(tmp_path: Path) -> None:
    write_seg(tmp_path / "s", [(1, positions(1)[0], np.ones(SHAPE[1:], bool))], {1: "a"}, series=generate_uid())
    with pytest.raises(PairingError, match="no series with an identifier that it refers to"):
        opened(tmp_path)


def test_check_names_what_is_wrong_with_a_segmentation(tmp_path: Path) -> None:
    for patient_, shift in (("p1", 0.0), ("p2", 0.2)):
        files = write_series(tmp_path / patient_ / "ct", SHAPE)
        series, place = pydicom.dcmread(files[0]).SeriesInstanceUID, positions(1)[0]
        frames = [(1, [place[0] + shift, *place[1:]], np.ones(SHAPE[1:], bool))]
        write_seg(tmp_path / patient_ / "s", frames, {1: "liver"}, series=series)
    found = {finding.kind: finding for finding in check(tmp_path).findings}
    assert found["unequal-grids"].what == "4 masks are not on the grids of their images"
    assert "expected frames on the 4×5×6 voxels of ct" in found["unequal-grids"].why
