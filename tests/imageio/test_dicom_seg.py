"""DICOM segmentation objects: what is written is read back, by pixelwise, highdicom and pydicom; and what others write is read."""

import os
import struct
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.uid import ComputedRadiographyImageStorage, generate_uid
from tests.imageio.dicom_objects import (
    AXIAL,
    ORIGIN,
    SPACING,
    STEP,
    normal,
    positions,
    write_enhanced,
    write_seg,
    write_series,
)

from pixelwise.errors import GridMismatchError, ImageError, LabelsError, MaskError, OutOfMemoryError, SizeMismatchError
from pixelwise.imageio import dicom_seg_header, dicom_seg_writing
from pixelwise.imageio.dicom_seg import read_dicom_seg
from pixelwise.imageio.dicom_seg_header import is_dicom_seg, read_segmentation_header, rgb_from_cielab
from pixelwise.imageio.dicom_seg_writing import require_identifiers, segment_numbers, write_dicom_seg
from pixelwise.imageio.images import Limits
from pixelwise.imageio.volumes import VolumeHeader
from pixelwise.labels import Labels

TILT = 0.3
DIRECTIONS = {
    "axial": AXIAL,
    "sagittal": (0.0, 1, 0, 0, 0, -1),
    "coronal": (1.0, 0, 0, 0, 0, -1),
    "feet first": (-1.0, 0, 0, 0, 1, 0),
    "tilted": (1.0, 0, 0, 0, round(float(np.cos(TILT)), 8), round(float(np.sin(TILT)), 8)),
}
LABELS = Labels(("background", "liver", "tumour"), colours=((0, 0, 0), (200, 30, 60), (10, 220, 90)))


def header_of(shape: tuple[int, int, int], directions: Any = AXIAL, step: float = STEP) -> VolumeHeader:
    """Return, by hand from the standard, the voxels of a series (D, H, W)."""
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = np.array(directions[:3]) * SPACING[1], np.array(directions[3:]) * SPACING[0]
    affine[:3, 2], affine[:3, 3] = normal(directions) * step, ORIGIN
    affine = np.diag([-1.0, -1, 1, 1]) @ affine
    return VolumeHeader(Path("ct"), (shape[2], shape[1], shape[0]), 1, np.dtype(np.uint8), affine, "PixelSpacing")


def drawn(shape: tuple[int, int, int], labels: Labels, seed: int = 0, ignored: bool = True) -> np.ndarray:
    rng = np.random.default_rng(seed)
    mask = rng.integers(0, labels.num_classes, shape).astype(labels.dtype)
    mask[rng.random(shape) < 0.2 * ignored] = labels.ignore_index
    return mask


def expected_numbers(mask: np.ndarray, labels: Labels) -> np.ndarray:
    """Return the segment number of every pixel, by class: 0 for the background and for ignored pixels."""
    numbers = np.zeros(mask.shape, int)
    for number, name in enumerate((name for name in labels.names if name.lower() != "background"), 1):
        numbers[mask == labels.names.index(name)] = number
    return numbers


def by_pydicom(path: Path, count: int) -> np.ndarray:
    """Return the segment numbers of a binary file or label map, slice by slice along the frames' positions, by pydicom."""
    plain = pydicom.dcmread(path)
    frames = plain.pixel_array.reshape(int(plain.NumberOfFrames), plain.Rows, plain.Columns)
    items = plain.PerFrameFunctionalGroupsSequence
    shared = plain.SharedFunctionalGroupsSequence[0]
    axis = normal([float(v) for v in shared.PlaneOrientationSequence[0].ImageOrientationPatient])
    places = [float(axis @ (np.array(i.PlanePositionSequence[0].ImagePositionPatient, float) - ORIGIN)) for i in items]
    numbers = np.zeros((count, plain.Rows, plain.Columns), int)
    for item, place, frame in zip(items, places, frames, strict=True):
        group = (item.get("SegmentIdentificationSequence") or shared.get("SegmentIdentificationSequence") or [None])[0]
        number = 1 if group is None else int(group.ReferencedSegmentNumber)
        numbers[round(place / STEP)] += frame.astype(int) * number
    return numbers


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    classes=st.integers(1, 5),
    shape=st.tuples(st.integers(1, 4), st.integers(3, 9), st.integers(3, 9)),
    place=st.integers(-1, 5),
    kind=st.sampled_from(["binary", "labelmap"]),
    directions=st.sampled_from(sorted(DIRECTIONS)),
    empty=st.sampled_from(["none", "one class", "all"]),
    seed=st.integers(0, 99),
)
def test_what_is_written_is_read_back_by_every_reader(
    tmp_path_factory: Any, classes: int, shape: Any, place: int, kind: Any, directions: str, empty: str, seed: int
) -> None:
    folder = tmp_path_factory.mktemp("seg")
    names = [f"class {k}" for k in range(classes)]
    if place >= 0:
        names.insert(place % (classes + 1), "Background")
    labels = Labels(tuple(names))
    mask = drawn(shape, labels, seed)
    mask[(mask == labels.num_classes - 1) if empty == "one class" else (mask >= 0) & (empty == "all")] = 255
    files = write_series(folder / "ct", shape, DIRECTIONS[directions])
    path = folder / "seg.dcm"
    assert write_dicom_seg(path, mask, labels, files, segmentation_type=kind) == {}
    numbers = expected_numbers(mask, labels)
    found = read_dicom_seg(path, header_of(shape, DIRECTIONS[directions]))
    np.testing.assert_array_equal(found.numbers.transpose(2, 1, 0), numbers)
    assert found.names == tuple(name for name in names if name != "Background")
    own = read_dicom_seg(path)
    np.testing.assert_array_equal(own.numbers, found.numbers)
    columns = slice(None) if shape[0] > 1 else [0, 1, 3]  # there is no distance between slices
    np.testing.assert_allclose(own.header.affine[:, columns], found.header.affine[:, columns], atol=1e-6)
    np.testing.assert_array_equal(by_pydicom(path, shape[0]), numbers)
    seg = highdicom.seg.segread(path)
    sources = [pydicom.dcmread(file).SOPInstanceUID for file in files]
    theirs = seg.get_pixels_by_source_instance(sources, combine_segments=True, ignore_spatial_locations=True)
    np.testing.assert_array_equal(theirs, numbers)


@pytest.mark.parametrize("kind", ["binary", "labelmap"])
def test_a_file_describes_source_and_segments(tmp_path: Path, kind: Any) -> None:
    files = write_series(tmp_path / "ct", (2, 4, 5), PatientName="Weiß^Jörg", SpecificCharacterSet="ISO_IR 100")
    write_dicom_seg(tmp_path / "a.dcm", drawn((2, 4, 5), LABELS), LABELS, files, segmentation_type=kind, model="unet")
    source, seg = pydicom.dcmread(files[0]), pydicom.dcmread(tmp_path / "a.dcm")
    for name in ("StudyInstanceUID", "FrameOfReferenceUID", "PatientID", "StudyDate", "StudyTime"):
        assert seg[name].value == source[name].value
    assert str(seg.PatientName) == "Weiß^Jörg"
    assert seg.ReferencedSeriesSequence[0].SeriesInstanceUID == source.SeriesInstanceUID
    referenced = [item.ReferencedSOPInstanceUID for item in seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence]
    assert referenced == [pydicom.dcmread(file).SOPInstanceUID for file in files]
    assert seg.SegmentationType == kind.upper()
    assert seg.file_meta.TransferSyntaxUID.name == (
        "RLE Lossless" if kind == "labelmap" else "Explicit VR Little Endian"
    )
    assert int(seg.NumberOfFrames) == (2 if kind == "labelmap" else 2 * 2), "frames without pixels are stored, too"
    segments = [
        segment for segment in seg.SegmentSequence if segment.SegmentNumber
    ]  # highdicom describes the background
    assert [segment.SegmentLabel for segment in segments] == ["liver", "tumour"]
    assert {segment.SegmentAlgorithmType for segment in segments} == {"AUTOMATIC"}
    assert {segment.SegmentAlgorithmName for segment in segments} == {"unet"}
    assert (seg.Manufacturer, seg.ContentDate, seg.SeriesNumber) == ("pixelwise", "20240131", 1003)
    header = read_segmentation_header(tmp_path / "a.dcm")
    assert [segment.colour for segment in header.segments] == [(200, 30, 60), (10, 220, 90)]
    assert header.study == source.StudyInstanceUID
    assert is_dicom_seg(tmp_path / "a.dcm")
    assert not any(map(is_dicom_seg, [*files, tmp_path, tmp_path / "none"]))


def test_the_same_call_gives_the_same_bytes_and_another_mask_other_identifiers(tmp_path: Path) -> None:
    files = write_series(tmp_path / "ct", (2, 4, 5))
    mask = drawn((2, 4, 5), LABELS)
    for kind in ("binary", "labelmap"):
        for name in ("a", "b"):
            write_dicom_seg(tmp_path / name, mask, LABELS, files, segmentation_type=kind)  # type: ignore[arg-type]
        assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    write_dicom_seg(
        tmp_path / "b", np.asfortranarray(mask.astype(np.int64)), LABELS, files, segmentation_type="labelmap"
    )
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes(), "however the mask is stored in memory"
    write_dicom_seg(tmp_path / "c", mask[:, ::-1], LABELS, files)
    write_dicom_seg(tmp_path / "d", mask, LABELS, files, model="another")
    uids = [pydicom.dcmread(tmp_path / name).SOPInstanceUID for name in "acd"]
    assert len(set(uids)) == 3
    assert all(uid.is_valid and uid.startswith("2.25.") for uid in uids)


@pytest.mark.parametrize("shares", [True, False])
def test_frames_of_one_file_are_referred_to_in_its_own_order(tmp_path: Path, shares: bool) -> None:
    order = [2, 0, 3, 1]  # slice of each frame
    source = write_enhanced(tmp_path / "ct.dcm", (4, 5, 6), order, shares)
    mask = drawn((4, 5, 6), LABELS)
    frames = [order.index(k) for k in range(4)]
    write_dicom_seg(tmp_path / "seg.dcm", mask[order], LABELS, [source] * 4)
    numbers = expected_numbers(mask, LABELS)
    found = read_dicom_seg(tmp_path / "seg.dcm", header_of((4, 5, 6)))
    np.testing.assert_array_equal(found.numbers.transpose(2, 1, 0), numbers)
    seg, uid = highdicom.seg.segread(tmp_path / "seg.dcm"), pydicom.dcmread(source).SOPInstanceUID
    theirs = seg.get_pixels_by_source_frame(uid, [frame + 1 for frame in frames], combine_segments=True)
    np.testing.assert_array_equal(theirs, numbers)


def test_several_files_of_several_frames_are_refused(tmp_path: Path) -> None:
    sources = [write_enhanced(tmp_path / name, (2, 5, 6), range(2)) for name in ("a", "b")]
    with pytest.raises(ImageError, match="expected files of one slice each, or one file of all frames, found 2 files"):
        write_dicom_seg(tmp_path / "seg.dcm", drawn((4, 5, 6), LABELS), LABELS, sources)


def test_frames_without_positions_cannot_be_referred_to(tmp_path: Path) -> None:
    source = write_enhanced(tmp_path / "us.dcm", (4, 5, 6), range(4), PerFrameFunctionalGroupsSequence=None)
    with pytest.raises(ImageError, match=r"us\.dcm: expected frames with their position, found frames without\. Write"):
        write_dicom_seg(tmp_path / "seg.dcm", drawn((4, 5, 6), LABELS), LABELS, [source])


@pytest.mark.parametrize("kind", ["binary", "labelmap"])
def test_more_classes_than_a_byte_holds(tmp_path: Path, kind: Any) -> None:
    labels = Labels(("background", *(f"c{k}" for k in range(300))))
    files = write_series(tmp_path / "ct", (2, 20, 21))
    mask = drawn((2, 20, 21), labels)
    write_dicom_seg(tmp_path / "seg.dcm", mask, labels, files, segmentation_type=kind)
    found = read_dicom_seg(tmp_path / "seg.dcm", header_of((2, 20, 21)))
    np.testing.assert_array_equal(found.numbers.transpose(2, 1, 0), expected_numbers(mask, labels))


@pytest.mark.parametrize(
    "missing", [("StudyInstanceUID",), ("SeriesInstanceUID",), ("FrameOfReferenceUID", "StudyInstanceUID")]
)
@pytest.mark.parametrize("value", [None, ""])
def test_missing_identifiers_are_generated_only_on_request(tmp_path: Path, missing: Any, value: Any) -> None:
    files = write_series(tmp_path / "ct", (2, 4, 5), **dict.fromkeys(missing, value))
    mask, path = drawn((2, 4, 5), LABELS), tmp_path / "seg.dcm"
    with pytest.raises(ImageError, match=rf"found no .*{missing[-1]}.*--set predict\.generate_uids=true"):
        write_dicom_seg(path, mask, LABELS, files)
    with pytest.raises(ImageError, match="generate_uids"):
        require_identifiers(files)
    assert not path.exists()
    require_identifiers(files, generate_uids=True)
    generated = write_dicom_seg(path, mask, LABELS, files, generate_uids=True)
    assert set(generated) == set(missing)
    seg = pydicom.dcmread(path)
    assert all(name in seg.ContentDescription for name in missing)
    series = seg.ReferencedSeriesSequence[0].SeriesInstanceUID
    assert generated == {name: series if name == "SeriesInstanceUID" else seg[name].value for name in missing}
    assert write_dicom_seg(tmp_path / "again.dcm", mask, LABELS, files, generate_uids=True) == generated


def test_identifiers_of_images_are_repaired_from_the_meta_group(tmp_path: Path) -> None:
    files = write_series(tmp_path / "ct", (2, 4, 5), SOPInstanceUID="", SOPClassUID="")
    meta = [pydicom.dcmread(file).file_meta.MediaStorageSOPInstanceUID for file in files]
    write_dicom_seg(tmp_path / "seg.dcm", drawn((2, 4, 5), LABELS), LABELS, files)
    assert read_segmentation_header(tmp_path / "seg.dcm").images == set(meta)


@pytest.mark.parametrize("spacing", [None, [0.2, 0.2]])
def test_projections_without_a_position_are_referred_to(tmp_path: Path, spacing: Any) -> None:
    missing = ("ImagePositionPatient", "ImageOrientationPatient", "FrameOfReferenceUID", "SliceThickness")
    tags = dict.fromkeys(missing) | {
        "PixelSpacing": spacing,
        "Modality": "CR",
        "SOPClassUID": ComputedRadiographyImageStorage,
    }
    files = write_series(tmp_path / "cr", (1, 4, 5), **tags)
    mask = drawn((1, 4, 5), LABELS)
    for kind in ("binary", "labelmap"):
        path = tmp_path / f"{kind}.dcm"
        write_dicom_seg(path, mask, LABELS, files, segmentation_type=kind)  # type: ignore[arg-type]
        seg = highdicom.seg.segread(path)
        uid = pydicom.dcmread(files[0]).SOPInstanceUID
        theirs = seg.get_pixels_by_source_instance([uid], combine_segments=True, ignore_spatial_locations=True)
        np.testing.assert_array_equal(theirs, expected_numbers(mask, LABELS))
        with pytest.raises(MaskError, match="expected frames with position, orientation and spacing"):
            read_dicom_seg(path)


@pytest.mark.parametrize(
    "tags",
    [
        {"PatientBirthDate": "1970-01-01", "StudyDate": "31.01.2024", "StudyTime": "10:15"},
        {"PatientSex": "female", "PatientAge": "45", "PatientWeight": None},
        {"PatientID": None, "StudyDate": None, "StudyTime": None, "SeriesNumber": None},
        {"PatientID": "x" * 80, "AccessionNumber": "y" * 30, "StudyID": "z" * 30},
        {"SliceThickness": None},
        {"ImageOrientationPatient": ["1", "0", "0", "0", "1", "1e-9"]},
        {"PatientName": "山田^太郎", "SpecificCharacterSet": "ISO_IR 192"},
    ],
    ids=["dates", "values", "missing", "long", "no thickness", "rounding", "UTF-8"],
)
@pytest.mark.filterwarnings("ignore:.*:UserWarning")
def test_headers_with_unusual_values_are_no_obstacle(tmp_path: Path, tags: dict[str, Any]) -> None:
    with pydicom.config.disable_value_validation():
        files = write_series(tmp_path / "ct", (3, 4, 5), **tags)
        if "ImageOrientationPatient" in tags:
            first = pydicom.dcmread(files[0])
            first.ImageOrientationPatient = list(AXIAL)
            first.save_as(files[0])
    mask = drawn((3, 4, 5), LABELS)
    write_dicom_seg(tmp_path / "seg.dcm", mask, LABELS, files)
    found = read_dicom_seg(tmp_path / "seg.dcm", header_of((3, 4, 5)))
    np.testing.assert_array_equal(found.numbers.transpose(2, 1, 0), expected_numbers(mask, LABELS))


def test_class_names_are_adapted_to_what_dicom_can_hold(tmp_path: Path) -> None:
    long = "x" * 70
    labels = Labels(("background", "a\\b", f"{long}1", f"{long}2", "Größe", "  "))
    files = write_series(tmp_path / "ct", (1, 4, 5))
    write_dicom_seg(tmp_path / "seg.dcm", drawn((1, 4, 5), labels), labels, files)
    names = [segment.name for segment in read_segmentation_header(tmp_path / "seg.dcm").segments]
    assert names == ["a/b", f"{'x' * 58} 2", f"{'x' * 58} 3", "Größe", "unnamed"]


def test_what_cannot_be_written_is_refused_and_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files, path = write_series(tmp_path / "ct", (2, 4, 5)), tmp_path / "seg.dcm"
    with pytest.raises(SizeMismatchError, match="expected 2×4×5 pixels, as the source has, found 2×5×4"):
        write_dicom_seg(path, np.zeros((2, 5, 4), np.uint8), LABELS, files)
    with pytest.raises(MaskError, match="expected class indices"):
        write_dicom_seg(path, np.full((2, 4, 5), 7, np.uint8), LABELS, files)
    with pytest.raises(LabelsError, match="besides the background, found 0"):
        write_dicom_seg(path, np.zeros((2, 4, 5), np.uint8), Labels(("background",)), files)
    with pytest.raises(ImageError, match="expected a DICOM file, found nothing"):
        write_dicom_seg(path, np.zeros((2, 4, 5), np.uint8), LABELS, [tmp_path / "none", files[1]])
    monkeypatch.setattr(dicom_seg_writing, "free_memory", lambda: 20)
    with pytest.raises(OutOfMemoryError, match="Write a label map"):
        write_dicom_seg(path, np.zeros((2, 4, 5), np.uint8), LABELS, files)
    write_dicom_seg(path, np.zeros((2, 4, 5), np.uint8), LABELS, files, segmentation_type="labelmap")
    before = path.read_bytes()
    monkeypatch.setattr(os, "fsync", lambda descriptor: exec("raise OSError(28, 'No space left')"))
    with pytest.raises(Exception, match="No space left"):
        write_dicom_seg(path, np.ones((2, 4, 5), np.uint8), LABELS, files, segmentation_type="labelmap")
    assert path.read_bytes() == before
    assert sorted(each.name for each in tmp_path.iterdir()) == ["ct", "seg.dcm"]


def test_the_background_is_no_segment() -> None:
    assert segment_numbers(Labels(("a", "Unlabelled", "b"))) == {"a": 1, "b": 2}
    assert segment_numbers(Labels(("a", "b"))) == {"a": 1, "b": 2}


def test_memory_for_a_label_map_does_not_grow_with_the_classes(tmp_path: Path) -> None:
    files = write_series(tmp_path / "ct", (4, 128, 128))
    labels = Labels(("background", *(f"c{k}" for k in range(100))))
    mask = np.zeros((4, 128, 128), np.uint8)
    write_dicom_seg(tmp_path / "warm.dcm", mask, labels, files, segmentation_type="labelmap")
    tracemalloc.start()
    write_dicom_seg(tmp_path / "seg.dcm", mask, labels, files, segmentation_type="labelmap")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40 * mask.nbytes


# Files of other programs ---------------------------------------------------------------------------------------------

SHAPE = (4, 5, 6)


def frames_of(numbers: np.ndarray, directions: Any = AXIAL, keep: float = 1.0, seed: int = 0) -> list[Any]:
    """Return the frames of segments (D, H, W) in a random order, without those that are empty."""
    rng = np.random.default_rng(seed)
    places = positions(len(numbers), directions)
    frames = [
        (number, place, plane == number)
        for place, plane in zip(places, numbers, strict=True)
        for number in np.unique(numbers[numbers > 0]).tolist()
        if (plane == number).any()
    ]
    return [frames[k] for k in rng.permutation(len(frames))]


@pytest.mark.parametrize("directions", sorted(DIRECTIONS))
@pytest.mark.parametrize("seed", range(3))
def test_frames_in_any_order_are_placed_and_those_left_out_are_background(
    tmp_path: Path, directions: str, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    numbers = rng.integers(0, 4, SHAPE)
    numbers[rng.integers(1, 3)] = 0
    frames = frames_of(numbers, DIRECTIONS[directions], seed=seed)
    path = write_seg(tmp_path / "s", frames, {3: "c", 1: "a", 2: "b"}, series="1.2", directions=DIRECTIONS[directions])
    found = read_dicom_seg(path, header_of(SHAPE, DIRECTIONS[directions]))
    assert found.names == ("c", "a", "b")
    table = np.array([0, 2, 3, 1])  # position in the names
    np.testing.assert_array_equal(found.numbers.transpose(2, 1, 0), table[numbers])
    own = read_dicom_seg(path)
    np.testing.assert_array_equal(own.numbers, found.numbers)


@pytest.mark.parametrize("mirrored", [(1, -1, 1), (-1, 1, 1), (-1, -1, -1), (1, 1, -1)])
@pytest.mark.parametrize("turned", [False, True])
def test_axes_in_other_directions_than_those_of_the_series_are_restored(
    tmp_path: Path, mirrored: tuple[int, int, int], turned: bool
) -> None:
    """Some programs store the rows or columns in another direction, or exchange them."""
    numbers = np.random.default_rng(1).integers(0, 3, SHAPE)
    header = header_of(SHAPE)
    across, down, along = mirrored
    turn = numbers[::across, ::down, ::along]
    directions = np.array([along, 0, 0, 0, down, 0], float)
    corner = np.array([(SHAPE[2] - 1) * SPACING[1] * (along < 0), (SHAPE[1] - 1) * SPACING[0] * (down < 0), 0])
    spacing = SPACING
    if turned:
        turn, directions, spacing = turn.swapaxes(1, 2), np.roll(directions, 3), SPACING[::-1]
    slices = range(SHAPE[0])[::across]
    frames = [
        (number, (ORIGIN + corner + [0, 0, STEP * place]).round(6).tolist(), plane == number)
        for place, plane in zip(slices, turn, strict=True)
        for number in (1, 2)
    ]
    path = write_seg(
        tmp_path / "s", frames, {1: "a", 2: "b"}, series="1", directions=directions.tolist(), spacing=spacing
    )
    np.testing.assert_array_equal(read_dicom_seg(path, header).numbers.transpose(2, 1, 0), numbers)


def test_frames_of_a_part_of_the_image_are_placed(tmp_path: Path) -> None:
    numbers = np.zeros(SHAPE, int)
    numbers[1, 2:4, 3:5] = 1
    place = (ORIGIN + np.array([3 * SPACING[1], 2 * SPACING[0], STEP])).tolist()
    path = write_seg(tmp_path / "s", [(1, place, np.ones((2, 2), bool))], {1: "a"}, series="1")
    np.testing.assert_array_equal(read_dicom_seg(path, header_of(SHAPE)).numbers.transpose(2, 1, 0), numbers)
    larger = np.zeros((7, 9), bool)
    larger[2:4, 3:5] = True
    path = write_seg(tmp_path / "t", [(1, positions(2)[1], larger)], {1: "a"}, series="1")
    np.testing.assert_array_equal(read_dicom_seg(path, header_of(SHAPE)).numbers.transpose(2, 1, 0), numbers)


@pytest.mark.parametrize(
    ("place", "options", "found"),
    [
        ([0.3, 0, 0], {}, "frame 1 on others"),
        ([0, 0, 1.0], {}, "frame 1 on others"),
        ([0, 0, 0], {"spacing": (1.6, 1.2)}, "frame 1 on others"),
        ([0, 0, 0], {"directions": DIRECTIONS["tilted"]}, "frame 1 on others"),
        ([0, 0, -STEP], {}, "30 pixels of frame 1 outside"),
        ([SPACING[1], 0, 0], {}, "5 pixels of frame 1 outside"),
    ],
)
def test_segmentations_on_other_voxels_are_refused(tmp_path: Path, place: Any, options: Any, found: str) -> None:
    frame = (1, (ORIGIN + place).tolist(), np.ones(SHAPE[1:], bool))
    path = write_seg(tmp_path / "s", [frame], {1: "a"}, series="1", **options)
    with pytest.raises(
        GridMismatchError, match=rf"expected frames on the 4×5×6 voxels of ct .* found {found}. Resample"
    ):
        read_dicom_seg(path, header_of(SHAPE))


def test_overlapping_segments_are_refused_with_their_names_and_pixels(tmp_path: Path) -> None:
    one, other = np.zeros((2, *SHAPE[1:]), bool)
    one[1:3], other[2:4] = True, True
    places = positions(2)
    frames = [
        (1, places[0], one),
        (2, places[0], other),
        (2, places[1], one),
        (1, places[1], other),
        (3, places[1], one),
    ]
    path = write_seg(tmp_path / "s", frames, {1: "liver", 2: "tumour", 3: "vessel"}, series="1")
    for _ in range(2):  # the second time from memory
        with pytest.raises(
            MaskError, match=r"found 12 pixels in both 'liver' and 'tumour', and 2 more pairs\. Remove the overlap"
        ):
            read_dicom_seg(path, header_of(SHAPE))


def test_segments_of_one_name_are_one_class_and_may_overlap(tmp_path: Path) -> None:
    frames = [(k, positions(1)[0], np.ones(SHAPE[1:], bool)) for k in (1, 2)]
    path = write_seg(tmp_path / "s", frames, {1: "lesion", 2: "lesion"}, series="1")
    found = read_dicom_seg(path, header_of(SHAPE))
    assert found.names == ("lesion",)
    assert found.numbers[:, :, 0].all()
    assert not found.numbers[:, :, 1:].any()


@pytest.mark.parametrize("most", [255, 100, 1])
def test_a_fractional_segment_is_where_it_exceeds_half(tmp_path: Path, most: int) -> None:
    values = np.random.default_rng(0).integers(0, most + 1, SHAPE[1:])
    path = write_seg(
        tmp_path / "s",
        [(1, positions(1)[0], values)],
        {1: "a"},
        series="1",
        kind="FRACTIONAL",
        MaximumFractionalValue=most,
    )
    found = read_dicom_seg(path, header_of(SHAPE))
    np.testing.assert_array_equal(found.numbers[:, :, 0].T, values / most > 0.5)
    assert read_segmentation_header(path).kind == "FRACTIONAL"


def test_label_maps_may_describe_their_background_and_skip_numbers(tmp_path: Path) -> None:
    values = np.random.default_rng(0).choice([0, 3, 9, 200], SHAPE[1:])
    names = {0: "Background", 9: "b", 3: "a"}
    path = write_seg(
        tmp_path / "s", [(0, positions(1)[0], values)], names, series="1", kind="LABELMAP", PixelPaddingValue=200
    )
    found = read_dicom_seg(path, header_of(SHAPE))
    assert found.names == ("b", "a")
    np.testing.assert_array_equal(found.numbers[:, :, 0].T, (values == 9) + 2 * (values == 3))
    path = write_seg(tmp_path / "t", [(0, positions(1)[0], values)], names, series="1", kind="LABELMAP")
    with pytest.raises(MaskError, match="expected a description of every segment, found none of 200"):
        read_dicom_seg(path, header_of(SHAPE))


def test_frames_may_be_all_that_refers_to_images(tmp_path: Path) -> None:
    derivation, image = pydicom.Dataset(), pydicom.Dataset()
    image.ReferencedSOPInstanceUID, derivation.SourceImageSequence = "1.2.3", [image]
    path = write_seg(tmp_path / "s", [(1, positions(1)[0], np.ones(SHAPE[1:], bool))], {1: "a"}, series="1")
    one = pydicom.dcmread(path)
    del one.ReferencedSeriesSequence
    one.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence = [derivation]
    one.save_as(path)
    assert read_segmentation_header(path).images == {"1.2.3"}


def test_several_files_complement_each_other(tmp_path: Path) -> None:
    plane = np.zeros(SHAPE[1:], bool)
    plane[0] = True
    paths = [
        write_seg(tmp_path / "a", [(1, positions(1)[0], plane)], {1: "liver"}, series="1"),
        write_seg(tmp_path / "b", [(1, positions(1)[0], plane[::-1])], {1: "spleen"}, series="1"),
    ]
    found = read_dicom_seg(paths, header_of(SHAPE))
    np.testing.assert_array_equal(found.numbers[:, :, 0].T, plane * 1 + plane[::-1] * 2)
    paths[1] = write_seg(tmp_path / "b", [(1, positions(1)[0], plane)], {1: "spleen"}, series="1")
    with pytest.raises(MaskError, match="6 pixels in both 'liver' and 'spleen'"):
        read_dicom_seg(paths, header_of(SHAPE))


def deflate(path: Path, extra: int = 0) -> Path:
    one = pydicom.dcmread(path)
    one.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    one.save_as(path, enforce_file_format=True)
    if extra:
        plain = path.read_bytes()
        start = 144 + struct.unpack("<I", plain[140:144])[0]
        packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        path.write_bytes(plain[:start] + packer.compress(bytes(extra)) + packer.flush())
    return path


def test_deflated_files_are_read_within_the_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plane = np.random.default_rng(0).random(SHAPE[1:]) < 0.5
    path = deflate(write_seg(tmp_path / "s", [(1, positions(1)[0], plane)], {1: "a"}, series="1"))
    np.testing.assert_array_equal(read_dicom_seg(path, header_of(SHAPE)).numbers[:, :, 0].T, plane)
    monkeypatch.setattr(dicom_seg_header, "Limits", lambda: Limits(bytes=10**6))
    path = deflate(write_seg(tmp_path / "t", [(1, positions(1)[0], plane)], {1: "a"}, series="1"), extra=10**7)
    assert path.stat().st_size < 20_000
    with pytest.raises(MaskError, match="expected at most 1,000,000 bytes once unpacked, found more"):
        read_dicom_seg(path, header_of(SHAPE))


def test_broken_files_are_refused_with_the_reason(tmp_path: Path) -> None:
    frames = [(1, positions(1)[0], np.ones(SHAPE[1:], bool))]
    cases: dict[str, tuple[dict[str, Any], str]] = {
        "type": ({"SegmentationType": "SURFACE"}, "expected the type BINARY, FRACTIONAL or LABELMAP, found 'SURFACE'"),
        "count": ({"NumberOfFrames": 3}, "expected 3 frames with their position, found 1"),
        "segments": ({"SegmentSequence": []}, "expected segments, each with its own number, found none"),
        "pixels": ({"PixelData": b"\0\0"}, "expected a complete DICOM segmentation"),
        "groups": ({"PerFrameFunctionalGroupsSequence": [pydicom.Dataset()]}, "expected frames with position"),
    }
    for name, (tags, match) in cases.items():
        path = write_seg(tmp_path / name, frames, {1: "a"}, series="1", **tags)
        with pytest.raises(MaskError, match=match):
            read_dicom_seg(path, header_of(SHAPE))
    path = write_seg(tmp_path / "unknown", [(2, *frames[0][1:])], {1: "a"}, series="1")
    with pytest.raises(MaskError, match="expected a description of every segment, found none of 2"):
        read_dicom_seg(path, header_of(SHAPE))
    whole = write_seg(tmp_path / "whole", frames, {1: "a"}, series="1").read_bytes()
    for size in range(400, len(whole), 97):
        (tmp_path / "cut").write_bytes(whole[:size])
        with pytest.raises(MaskError):
            read_dicom_seg(tmp_path / "cut", header_of(SHAPE))
    ct = write_series(tmp_path / "ct", (1, 4, 5))[0]
    with pytest.raises(MaskError, match="expected a DICOM segmentation, found something else"):
        read_dicom_seg(ct)


def test_a_volume_far_larger_than_its_frames_is_refused(tmp_path: Path) -> None:
    far = [[0.0, 0, 0], [0, 0, 0.001], [0, 0, 1e6]]
    frames = [(1, place, np.ones(SHAPE[1:], bool)) for place in far]
    path = write_seg(tmp_path / "s", frames, {1: "a"}, series="1")
    with pytest.raises(MaskError, match=r"expected at most .* bytes once unpacked"):
        read_dicom_seg(path)


def test_colours_are_those_that_highdicom_reads() -> None:
    for seed in range(50):
        rgb = np.random.default_rng(seed).integers(0, 256, 3).tolist()
        stored = highdicom.color.CIELabColor.from_rgb(*rgb).value
        assert rgb_from_cielab(stored) == tuple(rgb)


def test_files_that_highdicom_makes_of_fractions_are_read(tmp_path: Path) -> None:
    files = write_series(
        tmp_path / "ct", SHAPE, PatientName="", PatientBirthDate="", PatientSex="", AccessionNumber="", StudyID=""
    )
    sources = [pydicom.dcmread(file) for file in files]
    values = np.random.default_rng(0).random((*SHAPE, 2)) * 0.5
    values[..., 0] += (values[..., 0] > 0.2) * 0.3
    code = highdicom.sr.CodedConcept("85756007", "SCT", "Tissue")
    segments = [
        highdicom.seg.SegmentDescription(k, name, code, code, "MANUAL") for k, name in enumerate(("one", "two"), 1)
    ]
    seg = highdicom.seg.Segmentation(
        sources, values, "FRACTIONAL", segments, generate_uid(), 1, generate_uid(), 1, "m", "m", "1", "1"
    )
    seg.save_as(tmp_path / "seg.dcm")
    found = read_dicom_seg(tmp_path / "seg.dcm", header_of(SHAPE))
    np.testing.assert_array_equal(found.numbers.transpose(2, 1, 0), np.rint(values[..., 0] * 255) > 127.5)
