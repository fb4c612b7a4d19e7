"""DICOM series with label volumes: order of slices, units, and alignment with the labels."""

from pathlib import Path
from typing import Any

import nibabel
import nrrd
import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLosslessSV1,
    RLELossless,
    generate_uid,
)

from pixelwise.config import DataConfig
from pixelwise.datasets.convert import convert
from pixelwise.datasets.dataset import DataSplits, open_data
from pixelwise.errors import ConfigError, DataError, ImageError, PairingError
from pixelwise.formats import FORMATS, find_format
from pixelwise.formats.dataset_root import DatasetRoot
from pixelwise.formats.reading import read_record_image
from pixelwise.imageio import dicom, dicom_series
from pixelwise.imageio.images import Limits

ROWS, COLUMNS, SLICES = 5, 7, 4
AXIAL = (1.0, 0, 0, 0, 1, 0)
ORIGIN = np.array([-30.0, -20, 100])
STEP = np.array([0.0, 0, 2.5])
SPACING = (0.8, 0.6)  # between rows, between columns
SERIES = generate_uid()


def slice_file(path: Path, pixels: np.ndarray, position: np.ndarray, directions: Any = AXIAL, **tags: Any) -> Path:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    one = FileDataset(str(path), {}, file_meta=meta, preamble=bytes(128))
    one.SOPClassUID, one.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    one.SeriesInstanceUID, one.Modality = SERIES, "CT"
    one.Rows, one.Columns = pixels.shape
    one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
    one.BitsAllocated, one.BitsStored, one.HighBit, one.PixelRepresentation = 16, 12, 11, 0
    one.PixelSpacing, one.SliceThickness = list(SPACING), 2.5
    one.ImagePositionPatient = [round(float(v), 6) for v in position]
    one.ImageOrientationPatient = list(directions)
    one.RescaleSlope, one.RescaleIntercept = 1, -1024
    for name, value in tags.items():
        if value is None:
            delattr(one, name)
        else:
            setattr(one, name, value)
    one.PixelData = pixels.astype(np.uint16).tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    one.save_as(path, enforce_file_format=True)
    return path


def stored(k: int) -> np.ndarray:
    return np.random.default_rng(k).integers(0, 4096, (ROWS, COLUMNS))


def series(folder: Path, directions: Any = AXIAL, step: np.ndarray = STEP, **tags: Any) -> list[Path]:
    """Write a series whose file names do not follow the order of slices."""
    names = ["IM3", "IM1", "IM4", "IM2"]
    return [
        slice_file(
            folder / names[k], stored(k), ORIGIN + k * step, directions, InstanceNumber=names.index("IM1"), **tags
        )
        for k in range(SLICES)
    ]


def affine_of(directions: Any = AXIAL, step: np.ndarray = STEP) -> np.ndarray:
    """Return, by hand from the standard, the matrix from (column, row, slice) to right, front, head."""
    along, down = np.array(directions[:3]), np.array(directions[3:])
    matrix = np.eye(4)
    matrix[:3, 0], matrix[:3, 1], matrix[:3, 2], matrix[:3, 3] = along * SPACING[1], down * SPACING[0], step, ORIGIN
    return np.diag([-1.0, -1, 1, 1]) @ matrix


def label_volume(path: Path, codes: str = "LAS", affine: np.ndarray | None = None) -> np.ndarray:
    """Write labels (column, row, slice) on the voxels of the series, stored with its axes in the given directions."""
    mask = np.random.default_rng(9).integers(0, 3, (COLUMNS, ROWS, SLICES)).astype(np.uint8)
    image = nibabel.Nifti1Image(mask, affine_of() if affine is None else affine)
    turn = nibabel.orientations.ornt_transform(
        nibabel.io_orientation(image.affine), nibabel.orientations.axcodes2ornt(codes)
    )
    nibabel.save(image.as_reoriented(turn), path)
    return mask


def opened(root: Path, **config: Any) -> DataSplits:
    return open_data(DataConfig.model_validate({"split": {"val": 0, "test": 0}, **config}), root)


@pytest.mark.parametrize("codes", ["LPS", "LAS", "RAS", "SRP"])
def test_a_series_and_its_labels_lie_over_each_other_however_the_labels_are_stored(tmp_path: Path, codes: str) -> None:
    series(tmp_path / "ct")
    mask = label_volume(tmp_path / "seg.nii.gz", codes)
    splits = opened(tmp_path)
    assert splits.description["format"] == "dicom"
    split = splits.train
    assert [record.id for record in split.records] == [f"ct/{k}" for k in range(SLICES)]
    for k in range(SLICES):
        sample = split.read(k)
        assert (sample.image.dtype, sample.grid.spacing, sample.grid.unit) == (np.int16, SPACING, "mm")
        assert sample.grid.calibration == "PixelSpacing"
        np.testing.assert_array_equal(sample.image[0], stored(k) - 1024)
        np.testing.assert_array_equal(sample.mask, mask[:, :, k].T)


@pytest.mark.parametrize(
    ("directions", "step", "turned"),
    [
        ((0.0, 1, 0, 0, 0, -1), (4.0, 0, 0), (1, 1)),  # sagittal, as scanners write it
        ((1.0, 0, 0, 0, 0, -1), (0, 3.0, 0), (1, 1)),  # coronal
        ((-1.0, 0, 0, 0, 1, 0), (0, 0, 2.5), (1, -1)),  # axial, from the left to the right
        ((1.0, 0, 0, 0, -1, 0), (0, 0, -2.5), (-1, 1)),  # axial, from the back to the front, feet first
        ((1.0, 0, 0, 0, np.cos(0.3), np.sin(0.3)), (0, -2.5 * np.sin(0.3), 2.5 * np.cos(0.3)), (1, 1)),
    ],
    ids=["sagittal", "coronal", "from the left", "from the back", "tilted"],
)
def test_series_in_other_directions_are_laid_out_upright(
    tmp_path: Path, directions: Any, step: Any, turned: tuple[int, int]
) -> None:
    series(tmp_path / "mr", directions, np.array(step))
    mask = label_volume(tmp_path / "seg.nii.gz", "RAS", affine_of(directions, np.array(step)))
    split = opened(tmp_path).train
    planes = {record.image.name: split.read(k) for k, record in enumerate(split.records)}
    for k, name in enumerate(["IM3", "IM1", "IM4", "IM2"]):
        np.testing.assert_array_equal(planes[name].image[0], (stored(k) - 1024)[:: turned[0], :: turned[1]])
        np.testing.assert_array_equal(planes[name].mask, mask[:, :, k].T[:: turned[0], :: turned[1]])


def test_slices_are_read_with_their_neighbours_in_other_files(tmp_path: Path) -> None:
    series(tmp_path / "ct")
    label_volume(tmp_path / "labels.nii.gz")
    plain, stacked = (opened(tmp_path, neighbours=count).train for count in (0, 1))
    assert plain is not None
    assert stacked is not None
    slices = [plain.read(k).image for k in range(SLICES)]
    for k in range(SLICES):
        around = [max(k - 1, 0), k, min(k + 1, SLICES - 1)]
        assert np.array_equal(stacked.read(k).image, np.concatenate([slices[i] for i in around]))


def test_slices_run_to_the_head_whatever_the_order_of_the_files(tmp_path: Path) -> None:
    series(tmp_path / "ct")
    found, _ = dicom_series.read_series(list((tmp_path / "ct").iterdir()))
    header = found.header
    assert [path.name for path in found.files] == ["IM3", "IM1", "IM4", "IM2"]
    assert header.shape == (COLUMNS, ROWS, SLICES)
    np.testing.assert_allclose(header.affine, affine_of())


def test_the_number_of_values_follows_the_scaling_of_each_slice(tmp_path: Path) -> None:
    for k in range(2):
        slice_file(tmp_path / f"pet/{k}", stored(k), ORIGIN + k * STEP, RescaleSlope=0.5 + k, RescaleIntercept=0)
    label = nibabel.Nifti1Image(np.zeros((COLUMNS, ROWS, 2), np.uint8), affine_of())
    nibabel.save(label, tmp_path / "seg.nii.gz")
    split = opened(tmp_path).train
    for k in range(2):
        image = split.read(k).image
        assert image.dtype == np.float32
        np.testing.assert_allclose(image[0], stored(k) * (0.5 + k))


def test_slices_that_are_scaled_otherwise_are_read_as_one_type(tmp_path: Path) -> None:
    for k in range(2):  # an empty slice of PET may have a slope of 1
        slice_file(tmp_path / f"pet/{k}", stored(k), ORIGIN + k * STEP, RescaleSlope=1 + k / 2, RescaleIntercept=0)
    label = nibabel.Nifti1Image(np.zeros((COLUMNS, ROWS, 2), np.uint8), affine_of())
    nibabel.save(label, tmp_path / "seg.nii.gz")
    split = opened(tmp_path).train
    assert [split.read(k).image.dtype for k in range(2)] == [np.float32, np.float32]


@pytest.mark.parametrize("scaling", [None, ""], ids=["missing", "empty"])
def test_without_a_scaling_values_are_as_stored(tmp_path: Path, scaling: str | None) -> None:
    path = slice_file(tmp_path / "one", stored(0), ORIGIN, RescaleSlope=scaling, RescaleIntercept=scaling)
    np.testing.assert_array_equal(dicom.read_pixels(path)[1][..., 0].T, stored(0))


def test_white_that_is_stored_as_nothing_is_turned_round_before_scaling(tmp_path: Path) -> None:
    path = slice_file(tmp_path / "one", stored(0), ORIGIN, PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_array_equal(dicom.read_pixels(path)[1][..., 0].T, 4095 - stored(0) - 1024)


def test_signed_values(tmp_path: Path) -> None:
    signed = stored(0) - 2048
    path = slice_file(
        tmp_path / "one", signed.astype(np.int16).view(np.uint16), ORIGIN, PixelRepresentation=1, RescaleIntercept=0
    )
    np.testing.assert_array_equal(dicom.read_pixels(path)[1][..., 0].T, signed)


@pytest.mark.parametrize(
    ("tags", "found"),
    [
        ({"NumberOfFrames": 12}, "expected slices with their positions in space, found 12 frames without positions"),
        ({"PhotometricInterpretation": "RGB"}, "found photometric interpretation RGB"),
        (
            {"ImagePositionPatient": None},
            "expected a slice with its position in space, found none of ImagePositionPatient",
        ),
        ({"PixelSpacing": None}, "found none of PixelSpacing"),
        ({"PixelSpacing": [0, 0]}, "expected an affine with an inverse"),
        ({"BitsStored": 60}, "expected 1 to 32 bits per pixel, found 60"),
        (
            {"Modality": "SEG", "NumberOfFrames": 12},
            r"expected a slice of a scan, found a segmentation \(SEG\)\. Name the series instead",
        ),
        (
            {"Modality": "RTSTRUCT", "ImagePositionPatient": None},
            r"found a segmentation \(RTSTRUCT\)\. Name the series instead",
        ),
    ],
)
def test_files_that_are_not_slices_are_refused(tmp_path: Path, tags: dict[str, Any], found: str) -> None:
    with pytest.raises(ImageError, match=rf"odd: {found}|odd: .*{found}"):
        dicom.read_slice(slice_file(tmp_path / "odd", stored(0), ORIGIN, **tags))


def test_several_series_in_a_folder_are_refused_with_what_they_are(tmp_path: Path) -> None:
    series(tmp_path / "ct")
    slice_file(tmp_path / "ct/scout", np.zeros((9, 3)), ORIGIN, SeriesInstanceUID=generate_uid())
    with pytest.raises(ImageError, match=r"ct: expected one series, found 1 CT of 3×9 \(scout\); 4 CT of 7×5") as error:
        dicom_series.read_series(sorted((tmp_path / "ct").iterdir()))
    assert error.value.do == "Move each series to a separate folder."


def test_a_gap_and_two_slices_at_one_place_are_refused(tmp_path: Path) -> None:
    files = series(tmp_path / "ct")
    with pytest.raises(
        ImageError, match=r"expected slices at equal distances, found 2\.5 to 5 mm, the widest after IM1"
    ):
        dicom_series.read_series([files[0], files[1], files[3]])
    twin = slice_file(tmp_path / "ct/twin", stored(0), ORIGIN)
    with pytest.raises(ImageError, match="expected one slice at each position, found 1 at the position of another"):
        dicom_series.read_series([*files, twin])


def test_bits_beyond_those_stored_are_not_part_of_a_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = slice_file(tmp_path / "high", stored(0) + 4096, ORIGIN)
    np.testing.assert_array_equal(dicom.read_pixels(path)[1][..., 0].T, stored(0) - 1024)
    monkeypatch.setattr(pydicom.pixels, "pixel_array", lambda *a, **k: stored(0) + 4096)  # keeps them
    with pytest.raises(ImageError, match="expected values 0 to 4095, by the bits in the header"):
        dicom.read_pixels(path)


def test_pixels_that_are_missing_are_refused(tmp_path: Path) -> None:
    whole = slice_file(tmp_path / "cut", stored(0), ORIGIN).read_bytes()
    (tmp_path / "cut").write_bytes(whole[:-20])
    with pytest.raises(ImageError, match="cut: expected a complete DICOM file"):
        dicom.read_pixels(tmp_path / "cut")
    (tmp_path / "noise").write_bytes(bytes(128) + b"DICM" + np.random.default_rng(0).bytes(200))
    with pytest.raises(ImageError, match="noise: "):
        dicom.read_pixels(tmp_path / "noise")


def test_a_deflated_file_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    one = pydicom.dcmread(slice_file(tmp_path / "plain", stored(0), ORIGIN))
    one.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    one.save_as(tmp_path / "deflated", enforce_file_format=True)
    with pytest.raises(ImageError, match="deflated: expected an uncompressed header"):
        dicom.read_slice(tmp_path / "deflated")


def test_a_compression_that_needs_a_package_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = slice_file(tmp_path / "packed", stored(0), ORIGIN)
    one = pydicom.dcmread(path)
    one.compress(RLELossless)
    one.file_meta.TransferSyntaxUID = JPEGLosslessSV1
    one.save_as(path)
    decoder = pydicom.pixels.get_decoder(JPEGLosslessSV1)
    monkeypatch.setattr(type(decoder), "available_plugins", property(lambda self: ("pylibjpeg",)))
    with pytest.raises(
        ImageError,
        match=r"found JPEG Lossless.*for which a package is missing\. Run: pip install 'pixelwise\[volumes\]'",
    ):
        dicom.read_pixels(path)


def test_limits_hold_before_pixels_are_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = slice_file(tmp_path / "big", stored(0), ORIGIN)
    monkeypatch.setattr(pydicom.pixels, "pixel_array", lambda *a, **k: pytest.fail("decoded"))
    with pytest.raises(ImageError, match="expected at most 10 pixels per slice, found 35"):
        dicom.read_pixels(path, Limits(pixels=10))


def test_labels_that_lie_elsewhere_belong_to_no_series(tmp_path: Path) -> None:
    series(tmp_path / "ct")
    label_volume(tmp_path / "seg.nii.gz", affine=affine_of() + np.diag([0, 0, 0.5, 0]))
    with pytest.raises(PairingError, match=r"volume without a mask on its voxels: 1 \(ct\); mask without an image: 1"):
        opened(tmp_path)
    with pytest.raises(
        PairingError, match=r"seg\.nii\.gz: expected voxels at the positions of those of ct, found some 1\.5 mm away"
    ):
        opened(tmp_path, images="ct", masks="seg.nii.gz")


def test_labels_of_another_number_of_slices_are_refused(tmp_path: Path) -> None:
    series(tmp_path / "ct")
    nibabel.save(nibabel.Nifti1Image(np.zeros((COLUMNS, ROWS, 9), np.uint8), affine_of()), tmp_path / "seg.nii.gz")
    with pytest.raises(PairingError, match=r"expected 4×5×7 voxels .* as ct has, found 9×5×7"):
        opened(tmp_path, images="ct", masks="seg.nii.gz")


def test_series_of_several_patients_find_their_own_labels(tmp_path: Path) -> None:
    for patient in ("p1", "p2"):
        series(tmp_path / patient / "ct")
        label_volume(tmp_path / patient / "seg.nii.gz")
    (tmp_path / "p1/README").write_text("no DICOM at all")
    split = opened(tmp_path).train
    assert {(record.group, record.mask.parent.name) for record in split.records} == {("p1/ct", "p1"), ("p2/ct", "p2")}
    named = opened(tmp_path, images="*/ct", masks="{parent}/seg.nii.gz").train
    assert {record.mask.parent.name for record in named.records} == {"p1", "p2"}


def test_a_folder_and_its_files_name_the_same_series(tmp_path: Path) -> None:
    series(tmp_path / "ct")
    label_volume(tmp_path / "seg.nii.gz")
    label_volume(tmp_path / "seg_two.nii.gz")
    with pytest.raises(PairingError, match=r"--set data\.images=ct --set data\.masks=seg_two\.nii\.gz"):
        opened(tmp_path)
    for images in ("ct", "ct/*"):
        found = opened(tmp_path, images=images, masks="seg.nii.gz")
        assert [record.image.name for record in found.train.records] == ["IM3", "IM1", "IM4", "IM2"]


def test_dicom_without_labels_says_what_to_do(tmp_path: Path) -> None:
    series(tmp_path / "ct")
    with pytest.raises(
        DataError,
        match=r"expected a segmentation in DICOM \(SEG, RTSTRUCT\), or a label volume in NIfTI .* found only DICOM files",
    ):
        opened(tmp_path)
    with pytest.raises(ConfigError, match=r"data\.masks"):
        opened(tmp_path, images="ct")


def test_a_series_that_cannot_be_read_stops_or_is_left_out(tmp_path: Path) -> None:
    for patient in ("p1", "p2"):
        series(tmp_path / patient / "ct")
        label_volume(tmp_path / patient / "seg.nii.gz")
    slice_file(tmp_path / "p2/ct/twin", stored(0), ORIGIN)
    with pytest.raises(ImageError, match="expected one slice at each position"):
        opened(tmp_path)
    splits = opened(tmp_path, skip_bad=True)
    assert {record.mask.parent.name for record in splits.train.records} == {"p1"}
    assert len(splits.skipped) == 2


def without_preamble(path: Path, *, meta: bool, implicit: bool) -> None:
    one = pydicom.dcmread(path)
    if not meta:
        one.file_meta = FileMetaDataset()
    elif implicit:
        one.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    one.preamble = None
    one.save_as(path, enforce_file_format=False, implicit_vr=implicit, little_endian=True)
    assert path.read_bytes()[128:132] != b"DICM"


@pytest.mark.parametrize("name", ["Z{}", "{}.DCM", "{}.ima", "1.2.840.{}"])
@pytest.mark.parametrize(("meta", "implicit"), [(True, True), (True, False), (False, True), (False, False)])
def test_files_without_preamble_are_read(tmp_path: Path, name: str, meta: bool, implicit: bool) -> None:
    for k, path in enumerate(series(tmp_path / "ct")):
        without_preamble(path, meta=meta, implicit=implicit)
        path.rename(path.with_name(name.format(k)))
    mask = label_volume(tmp_path / "seg.nii.gz")
    split = opened(tmp_path).train
    assert len(split) == SLICES
    for k in range(SLICES):
        sample = split.read(k)
        np.testing.assert_array_equal(sample.image[0], stored(k) - 1024)
        np.testing.assert_array_equal(sample.mask, mask[:, :, k].T)


def test_a_deflated_file_without_preamble_is_refused(tmp_path: Path) -> None:
    one = pydicom.dcmread(slice_file(tmp_path / "a", stored(0), ORIGIN))
    one.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    one.save_as(tmp_path / "a", enforce_file_format=True)
    (tmp_path / "a").write_bytes((tmp_path / "a").read_bytes()[132:])
    assert dicom.is_dicom(tmp_path / "a")
    with pytest.raises(ImageError, match="a: expected an uncompressed header"):
        dicom.read_slice(tmp_path / "a")


def test_other_files_are_not_dicom(tmp_path: Path) -> None:
    path = tmp_path / "a"
    rng = np.random.default_rng(0)
    contents = [
        b"",
        b"a text file\n" * 30,
        bytes(3000),
        b"\x08\0",
        b"\x08\0\x05\0CS",
        *(b"\x08\0" + rng.bytes(200) for _ in range(300)),
    ]
    for content in contents:
        path.write_bytes(content)
        assert not dicom.is_dicom(path)
    with pytest.raises(ImageError, match="expected a DICOM file, found something else"):
        dicom.read_slice(path)


def test_labels_in_nrrd_belong_to_their_series(tmp_path: Path) -> None:
    series(tmp_path / "ct")
    mask = np.random.default_rng(3).integers(0, 3, (COLUMNS, ROWS, SLICES)).astype(np.uint8)
    header = {
        "space": "left-posterior-superior",
        "space directions": [[SPACING[1], 0, 0], [0, SPACING[0], 0], STEP.tolist()],
        "space origin": ORIGIN.tolist(),
    }
    nrrd.write(str(tmp_path / "Segmentation.seg.nrrd"), mask, header)
    split = opened(tmp_path).train
    for k in range(SLICES):
        np.testing.assert_array_equal(split.read(k).mask, mask[:, :, k].T)


def test_a_segmentation_in_another_format_is_named(tmp_path: Path) -> None:
    series(tmp_path / "ct")
    (tmp_path / "Segmentation.mha").write_bytes(b"ObjectType = Image\n")
    with pytest.raises(
        DataError, match=r"found DICOM files, and Segmentation\.mha. Convert the volumes to NIfTI: SimpleITK"
    ):
        opened(tmp_path)
    label_volume(tmp_path / "seg.nii.gz")
    assert any("(.mha): left out" in notice for notice in opened(tmp_path).notices)


def test_dicom_is_recognised_by_its_content(tmp_path: Path) -> None:
    series(tmp_path / "ct")
    label_volume(tmp_path / "seg.nii.gz")
    kind, why = find_format(DatasetRoot(tmp_path, tmp_path, DataConfig()))
    assert (kind.name, why) == ("dicom", "ct/ holds DICOM")
    assert dicom.is_dicom(tmp_path / "ct/IM1")
    assert not dicom.is_dicom(tmp_path / "seg.nii.gz")
    assert not dicom.is_dicom(tmp_path / "none")


def test_another_file_before_the_slices_hides_no_series(tmp_path: Path) -> None:
    series(tmp_path / "ct")
    (tmp_path / "ct/AUTORUN").write_text("of a disc")
    label_volume(tmp_path / "seg.nii.gz")
    assert opened(tmp_path).description["format"] == "dicom"


def test_slices_can_be_written_in_another_format(tmp_path: Path) -> None:
    series(tmp_path / "in/ct")
    label_volume(tmp_path / "in/seg.nii.gz")
    (tmp_path / "out").mkdir()
    assert convert(opened(tmp_path / "in"), FORMATS["masks"], tmp_path / "out").changed_pixels == 0


def test_the_real_series_lies_under_its_labels(real: Any) -> None:
    root = real("ct_dicom")
    with pytest.raises(PairingError) as error:
        opened(root)
    command = "--set data.images=example_ct_dicom --set data.masks=example_seg_dicom.nii.gz"
    assert command in error.value.do
    splits = opened(root, images="example_ct_dicom", masks="example_seg_dicom.nii.gz")
    labels = nibabel.load(root / "example_seg_dicom.nii.gz")
    ids, to_voxel = np.asarray(labels.dataobj), np.linalg.inv(labels.affine)
    rows, columns = np.mgrid[:512, :512]
    liver = splits.labels.names.index("liver")
    hounsfield, places = [], []
    for index, record in enumerate(splits.train.records):
        sample, one = splits.train.read(index), pydicom.dcmread(record.image)
        np.testing.assert_array_equal(sample.image[0], one.pixel_array.astype(int) + int(one.RescaleIntercept))
        # Every pixel by the standard's formula, into the world of NIfTI, and into the voxels of the labels.
        down, along = (float(v) for v in one.PixelSpacing)
        first, second = (
            np.array(one.ImageOrientationPatient[:3], float),
            np.array(one.ImageOrientationPatient[3:], float),
        )
        world = (
            np.array(one.ImagePositionPatient, float)
            + columns[..., None] * first * along
            + rows[..., None] * second * down
        )
        i, j, k = np.rint((world * [-1, -1, 1]) @ to_voxel[:3, :3].T + to_voxel[:3, 3]).astype(int).transpose(2, 0, 1)
        np.testing.assert_array_equal(splits.labels.decode(sample.mask), ids[i, j, k])
        hounsfield += sample.image[0][sample.mask == liver].tolist()
        places += np.nonzero(sample.mask == liver)[1].tolist()
    assert 60 < np.mean(hounsfield) < 120, "contrast-enhanced liver"
    assert np.mean(places) < 256, "the liver lies on the patient's right, on the left of the image"


def test_bands_and_types_are_those_of_the_header(tmp_path: Path) -> None:
    series(tmp_path / "ct")
    label_volume(tmp_path / "seg.nii.gz")
    record = opened(tmp_path).train.records[0]
    assert read_record_image(record)[0].shape == (1, ROWS, COLUMNS)
