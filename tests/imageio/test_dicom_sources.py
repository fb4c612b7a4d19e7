"""DICOM series, multi-frame files and images without a position in space, as sources to predict."""

import shutil
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence as Items
from pydicom.uid import MPEG4HP41, BasicTextSRStorage, generate_uid
from tests.imageio.dicom_files import (
    AXIAL,
    COLUMNS,
    ORIGIN,
    ROWS,
    SPACING,
    STEP,
    affine_of,
    dataset,
    enhanced_file,
    item,
    save,
    series,
    slice_file,
    values_of,
)

from pixelwise.errors import ImageError
from pixelwise.grid import Grid
from pixelwise.imageio import dicom, dicom_pixels, dicom_series
from pixelwise.imageio.dicom_series import series_in
from pixelwise.imageio.images import Limits
from pixelwise.imageio.sources import DicomImage, VolumeSource, open_source
from pixelwise.imageio.volume_sources import dicom_sources
from pixelwise.imageio.writing import write_prediction
from pixelwise.labels import Labels
from pixelwise.tiles import Window
from pixelwise.types import Prediction

LABELS = Labels(("background", "liver", "spleen"), (0, 5, 7))
ORIENTATIONS: dict[str, tuple[Any, Any]] = {
    "axial": (AXIAL, STEP),
    "axial, feet first": (AXIAL, -STEP),
    "axial, prone": ((-1.0, 0, 0, 0, -1, 0), STEP),
    "sagittal": ((0.0, 1, 0, 0, 0, -1), (4.0, 0, 0)),
    "coronal": ((1.0, 0, 0, 0, 0, -1), (0, 3.0, 0)),
    "tilted": ((1.0, 0, 0, 0, np.cos(0.3), np.sin(0.3)), (0, -2.5 * np.sin(0.3), 2.5 * np.cos(0.3))),
    "sheared, as with a tilted gantry": ((1.0, 0, 0, 0, np.cos(0.3), np.sin(0.3)), (0, 0, 2.5)),
}


def opened(path: Path, **options: Any) -> VolumeSource:
    source = open_source(path, **options)
    assert isinstance(source, VolumeSource)
    return source


def hounsfield(count: int) -> np.ndarray:
    """Return the volume of `series`, (column, row, slice)."""
    return np.stack([values_of(k).T.astype(int) - 1024 for k in range(count)], axis=-1)


# Volumes --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ORIENTATIONS)
def test_a_series_is_a_volume_with_every_voxel_at_its_position(tmp_path: Path, kind: str) -> None:
    directions, step = ORIENTATIONS[kind]
    files = series(tmp_path, 4, directions, step)
    source = opened(tmp_path)
    image, valid = source.read()
    assert (source.format, valid, source.channels, image.dtype) == ("DICOM", None, 1, np.int16)
    assert image.shape == (1, *source.shape)
    # Each value lies where the standard's formula places it.
    places = np.argwhere(np.ones(source.shape))
    voxels = np.linalg.inv(affine_of(directions, step)) @ np.c_[source.grid.to_world(places), np.ones(len(places))].T
    i, j, k = np.rint(voxels[:3]).astype(int)
    np.testing.assert_allclose(voxels[:3], [i, j, k], atol=1e-4)
    np.testing.assert_array_equal(image[0][tuple(places.T)], hounsfield(4)[i, j, k])
    assert set(source.files) == set(files)
    # Any file of the series stands for the whole.
    again = opened(files[2])
    np.testing.assert_array_equal(again.read()[0], image)
    assert (again.grid, again.files) == (source.grid, source.files)


def test_spacing_is_that_of_positions_and_not_the_thickness(tmp_path: Path) -> None:
    series(tmp_path)
    grid = opened(tmp_path).grid
    assert (grid.spacing, grid.unit, grid.calibration) == ((2.5, *SPACING), "mm", "PixelSpacing")


@pytest.mark.parametrize("kind", ORIENTATIONS)
def test_masks_in_the_order_of_frames_belong_to_the_files(tmp_path: Path, kind: str) -> None:
    series(tmp_path, 4, *ORIENTATIONS[kind])
    for across in (None, "axial", "sagittal"):
        source = opened(tmp_path, across=across)
        frames = source.in_frame_order(source.read()[0][0])
        assert len(frames) == len(source.files) == 4
        for frame, path in zip(frames, source.files, strict=True):
            np.testing.assert_array_equal(frame, pydicom.dcmread(path).pixel_array.astype(int) - 1024)


@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_a_window_is_the_slice_of_the_whole_and_reads_only_its_files(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    kind = data.draw(st.sampled_from(sorted(ORIENTATIONS)))
    across = data.draw(st.sampled_from([None, "axial", "coronal", "sagittal"]))
    folder = tmp_path_factory.mktemp("ct")
    series(folder, 4, *ORIENTATIONS[kind])
    source = opened(folder, across=across)
    whole = source.read()[0]
    starts = [data.draw(st.integers(0, size - 1)) for size in source.shape]
    stops = [data.draw(st.integers(start + 1, size)) for start, size in zip(starts, source.shape, strict=True)]
    window = Window(tuple(starts), tuple(stops))
    decoded = []
    usual = dicom_pixels._with_pydicom
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dicom_pixels, "_with_pydicom", lambda *args: decoded.append(args[1][0].path) or usual(*args))
        piece = source.read(window)[0]
    np.testing.assert_array_equal(piece, whole[:, *window.slices])
    assert piece.flags.c_contiguous
    if across is None:
        assert len(decoded) == stops[0] - starts[0]


def test_nodata_and_limits_hold_as_for_other_volumes(tmp_path: Path) -> None:
    series(tmp_path)
    value = int(hounsfield(4)[0, 0, 0])
    valid = opened(tmp_path, nodata=value).read()[1]
    assert valid is not None
    assert not valid[opened(tmp_path).read()[0][0] == value].any()
    with pytest.raises(ImageError, match="expected at most 10 pixels per slice, found 35"):
        opened(tmp_path, limits=Limits(pixels=10)).read()
    with pytest.raises(ValueError, match="expected a window inside"):
        opened(tmp_path).read(Window((0, 0, 0), (5, 1, 1)))


def test_a_mask_is_written_as_nifti_on_the_voxels_of_the_series(tmp_path: Path) -> None:
    series(tmp_path / "ct")
    source = opened(tmp_path / "ct")
    mask = np.random.default_rng(0).integers(0, 3, source.shape).astype(np.uint8)
    written = write_prediction(Prediction(mask, LABELS, source.grid), tmp_path / "out/ct", like=source)
    assert written.name == "ct.nii.gz"
    after = nibabel.load(written)
    np.testing.assert_allclose(after.affine, affine_of(), atol=1e-6)
    assert after.header.get_xyzt_units()[0] == "mm"
    back = opened(written)
    np.testing.assert_array_equal(back.read()[0][0], LABELS.decode(mask))
    np.testing.assert_allclose(back.grid.affine, source.grid.affine, atol=1e-5)


@pytest.mark.parametrize("heights", [(0, 1, 2, 3), (3, 2, 1, 0), (2, 0, 3, 1)])
def test_frames_of_an_enhanced_file_are_ordered_by_position(tmp_path: Path, heights: tuple[int, ...]) -> None:
    path = enhanced_file(tmp_path / "ct/one.dcm", heights)
    for name in (path, path.parent):
        source = opened(name)
        image = source.read()[0]
        assert (image.dtype, source.files) == (np.int16, (path,))
        for frame, height in enumerate(heights):
            np.testing.assert_array_equal(image[0, height], values_of(frame).astype(int) - 1024)
            window = Window((height, 1, 2), (height + 1, 4, 5))
            np.testing.assert_array_equal(source.read(window)[0][0], image[0, height : height + 1, 1:4, 2:5])
        np.testing.assert_allclose(source.header.affine, affine_of(), atol=1e-9)
        np.testing.assert_array_equal(
            source.in_frame_order(image[0]), pydicom.dcmread(path).pixel_array.astype(int) - 1024
        )


def test_each_frame_has_its_own_scaling(tmp_path: Path) -> None:
    scaling = [(1, 0), (0.25, -3.5), (2, 7)]
    image = opened(enhanced_file(tmp_path / "pet", (0, 1, 2), scaling)).read()[0][0]
    assert image.dtype == np.float32
    for k, (slope, intercept) in enumerate(scaling):
        np.testing.assert_allclose(image[k], values_of(k) * slope + intercept)


def test_an_enhanced_file_with_a_gap_or_two_phases_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"found 2\.5 to 5 mm, the widest after frame 2"):
        open_source(enhanced_file(tmp_path / "gap", (0, 2, 1, 4)))
    with pytest.raises(ImageError, match="expected one slice at each position, found 2 at the position of another"):
        open_source(enhanced_file(tmp_path / "phases", (0, 0, 1, 1)))


def test_a_header_that_claims_many_frames_is_refused_at_once(tmp_path: Path) -> None:
    path = save(tmp_path / "many", dataset(values_of(0), NumberOfFrames=2_000_000_000, Modality="US"))
    with pytest.raises(ImageError, match="many: expected a complete DICOM file, found one that ends early"):
        open_source(path)


def test_broken_headers_are_refused_by_name(tmp_path: Path) -> None:
    """Any byte may be damaged: either the file is read, or an ImageError names it."""
    rng = np.random.default_rng(0)
    whole = enhanced_file(tmp_path / "whole", (0, 1, 2)).read_bytes()
    (tmp_path / "whole").unlink()
    path = tmp_path / "damaged"
    names = set()
    for _ in range(150):
        content = bytearray(whole)
        for place in rng.integers(128, len(whole), 3):
            content[place] = rng.integers(0, 256)
        path.write_bytes(content)
        try:
            open_source(path).read()
        except ImageError as error:
            names.add(Path(error.where).name)
    assert names == {"damaged"}


def test_a_slice_whose_pixels_are_broken_is_named(tmp_path: Path) -> None:
    paths = series(tmp_path)
    paths[2].write_bytes(paths[2].read_bytes()[:-20])
    with pytest.raises(
        ImageError, match=rf"{paths[2].name}: expected a complete DICOM file, found one that ends early"
    ):
        opened(tmp_path).read()


# Folders --------------------------------------------------------------------------------------------------------------


def scout(path: Path, directions: Any, **tags: Any) -> Path:
    own = {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"], "SeriesInstanceUID": "1.2.9", "SeriesNumber": 1}
    return slice_file(path, values_of(9), ORIGIN, directions, **own | tags)


def test_localizers_reports_and_screenshots_beside_a_series_are_left_out(tmp_path: Path) -> None:
    series(tmp_path, SeriesNumber=3, SeriesDescription="CT Body")
    for k, kind in enumerate(("axial", "coronal", "sagittal")):
        scout(tmp_path / f"scout{k}", ORIENTATIONS[kind][0])
    save(tmp_path / "shot", dataset(values_of(0), SeriesInstanceUID="1.2.8", Modality="OT"))
    report = dataset(
        values_of(0),
        Modality="SR",
        SOPClassUID=BasicTextSRStorage,
        Rows=None,
        Columns=None,
        BitsStored=None,
        PixelData=None,
    )
    save(tmp_path / "report", report)
    save(tmp_path / "seg", dataset(values_of(0), Modality="SEG"))
    (tmp_path / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    (tmp_path / "readme.txt").write_text("about")
    (tmp_path / "deeper").mkdir()
    found, left_out = dicom_sources(tmp_path)
    assert {name: source.shape for name, source in found.items()} == {"3-CT-Body": (4, ROWS, COLUMNS)}
    assert sorted(map(str, left_out)) == [
        "report (no pixels (SR))",
        "scout0 and 2 more (a localizer)",
        "seg (a segmentation (SEG))",
        "shot (an image without a position in space (OT))",
    ]
    assert all(each.expected for each in left_out)
    assert opened(tmp_path).shape == opened(tmp_path / "IM0").shape == (4, ROWS, COLUMNS)


def add(path: Path, step: float = 5, directions: Any = AXIAL, shape: tuple[int, int] = (ROWS, COLUMNS)) -> None:
    slice_file(path, np.zeros(shape, np.uint16), ORIGIN + step * STEP, directions)


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (lambda paths: paths[2].unlink(), r"2\.5 to 5 mm, the widest after IM\d"),
        (lambda paths: add(paths[0].with_name("extra"), 1), "1 at the position of another"),
        (lambda paths: add(paths[0].with_name("extra"), 5.3), r"2\.5 to 3\.25 mm"),
        (
            lambda paths: add(paths[0].with_name("extra"), 0, ORIENTATIONS["coronal"][0]),
            r"expected slices of one orientation, found 1 CT of 7×5 \(extra\); 5 CT of 7×5 \(IM\d, …\)",
        ),
        (
            lambda paths: add(paths[0].with_name("extra"), shape=(9, 8)),
            r"expected slices of one size and spacing, found 1 CT of 8×9 \(extra\); 5 CT of 7×5",
        ),
    ],
    ids=["missing slice", "doubled position", "uneven", "several orientations", "several sizes"],
)
def test_a_series_that_is_not_complete_is_left_out_with_the_reason(tmp_path: Path, spoil: Any, found: str) -> None:
    for path in series(tmp_path, 3, SeriesInstanceUID="1.2.4"):
        path.rename(path.with_name(f"good{path.name}"))
    paths = series(tmp_path, 5)
    spoil(paths)
    contents = series_in(tmp_path)
    assert [each.header.shape[2] for each in contents.series] == [3]
    (left,) = contents.left_out
    assert not left.expected
    with pytest.raises(ImageError, match=found):
        raise left.error
    with pytest.raises(ImageError, match=found):
        open_source(paths[0])


def test_directions_that_are_rounded_otherwise_are_one_orientation(tmp_path: Path) -> None:
    angles = 0.3 + np.array([0, 4e-5, -4e-5])
    for k, angle in enumerate(angles):
        directions = [1, 0, 0, 0, round(np.cos(angle), 4), round(np.sin(angle), 4)]
        slice_file(tmp_path / str(k), values_of(k), ORIGIN + k * np.array([0, -0.74, 2.39]), directions)
    assert opened(tmp_path).shape[0] == 3


def test_a_copy_of_a_file_is_left_out(tmp_path: Path) -> None:
    paths = series(tmp_path)
    shutil.copy(paths[1], tmp_path / f"{paths[1].name} (1)")
    contents = series_in(tmp_path)
    assert [each.header.shape[2] for each in contents.series] == [4]
    assert [str(each) for each in contents.left_out] == [f"{paths[1].name} (1) (a copy of {paths[1].name})"]
    assert opened(paths[1]).shape[0] == 4


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    paths = series(tmp_path)
    whole = paths[0].read_bytes()
    for end in (200, 300, 420, 500):
        paths[0].write_bytes(whole[:end])
        contents = series_in(tmp_path)
        assert any(each.files == (paths[0],) and not each.expected for each in contents.left_out), end
    with pytest.raises(ImageError, match=paths[0].name):
        open_source(paths[1])


def test_several_series_are_all_found_under_safe_and_unique_names(tmp_path: Path) -> None:
    descriptions = ["../../etc/passwd", "T1 axial", "t1 AXIAL", "CON", "a/b\\c:d*e\0f", "Schädel (nativ)", "", "x" * 64]
    for k, description in enumerate(descriptions):
        uid = generate_uid()
        for path in series(tmp_path / "tmp", 2, SeriesInstanceUID=uid, SeriesNumber=7, SeriesDescription=description):
            path.rename(tmp_path / f"{k}{path.name}")
    (tmp_path / "tmp").rmdir()
    names = list(dicom_sources(tmp_path)[0])
    assert len(set(map(str.lower, names))) == len(descriptions)
    assert {"7-T1-axial", "7-t1-AXIAL-2", "7-Schädel-nativ", "7", "7-CON"} <= set(names)
    for name in names:
        assert name == Path(name).name
        assert len(name) < 100
        assert not set(name) & set("/\\:*\0 ")
        assert not name.startswith(".")
    with pytest.raises(ImageError, match=r"expected one DICOM series, found 8 \(7-.*Move each series to a separate"):
        open_source(tmp_path)


def test_folders_without_a_series_say_so(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="expected one DICOM series, found no DICOM files"):
        open_source(tmp_path)
    save(tmp_path / "seg", dataset(values_of(0), Modality="SEG"))
    with pytest.raises(ImageError, match=r"found a segmentation \(SEG\)"):
        open_source(tmp_path)


PHASES: dict[str, list[dict[str, Any]]] = {
    "echoes": [{"EchoNumbers": 1}, {"EchoNumbers": 2}],
    "points in time": [{"TemporalPositionIdentifier": k} for k in (1, 2, 3)],
    "b-values": [{"DiffusionBValue": 0.0}, {"DiffusionBValue": 1000.0}],
    "Dixon": [{"ImageType": ["DERIVED", "PRIMARY", kind]} for kind in ("WATER", "FAT")],
    "echoes at points in time": [
        {"EchoNumbers": echo, "TemporalPositionIdentifier": time} for echo in (1, 2) for time in (1, 2)
    ],
}


def phase_files(folder: Path, phases: list[dict[str, Any]]) -> None:
    """Write three slices of each phase; the k-th of phase n holds `values_of(10 n + k)`."""
    place = {"PixelSpacing": list(SPACING), "ImageOrientationPatient": list(AXIAL), "SeriesNumber": 5}
    for number, phase in enumerate(phases):
        for k in range(3):
            position = (ORIGIN + k * STEP).tolist()
            one = dataset(values_of(10 * number + k), **place, ImagePositionPatient=position, **phase)
            save(folder / f"{k}-{number}", one)


def phase_frames(path: Path, phases: list[dict[str, Any]]) -> None:
    """Write the same as one enhanced file."""
    groups = {
        "EchoNumbers": ("MREchoSequence", "EffectiveEchoTime"),
        "TemporalPositionIdentifier": ("FrameContentSequence", "TemporalPositionIndex"),
        "DiffusionBValue": ("MRDiffusionSequence", "DiffusionBValue"),
        "ImageType": ("MRImageFrameTypeSequence", "FrameType"),
    }
    frames = [(number, k) for k in range(3) for number in range(len(phases))]
    scaling = [(1, 0)] * len(frames)
    one = pydicom.dcmread(enhanced_file(path, [k for _, k in frames], scaling, SeriesNumber=5))
    one.PixelData = np.stack([values_of(10 * number + k) for number, k in frames]).tobytes()
    for frame, (number, _) in zip(one.PerFrameFunctionalGroupsSequence, frames, strict=True):
        for name, value in phases[number].items():
            group, attribute = groups[name]
            setattr(frame, group, item(**{attribute: value}))
    one.save_as(path)


@pytest.mark.parametrize("kind", PHASES)
@pytest.mark.parametrize("enhanced", [False, True])
def test_volumes_that_share_positions_are_divided_by_what_distinguishes_them(
    tmp_path: Path, kind: str, enhanced: bool
) -> None:
    phases = PHASES[kind]
    phase_frames(tmp_path / "one", phases) if enhanced else phase_files(tmp_path, phases)
    found, left_out = dicom_sources(tmp_path)
    assert not left_out
    expected = [np.stack([values_of(10 * number + k) for k in range(3)]) for number in range(len(phases))]
    volumes = sorted(source.read()[0][0].tolist() for source in found.values())
    assert volumes == sorted(volume.tolist() for volume in expected)
    if kind == "b-values":
        assert list(found) == ["5-b-0.0", "5-b-1000.0"]
    if enhanced:
        with pytest.raises(ImageError, match=r"expected one volume, found \d \(5-.*Name its folder to predict each"):
            open_source(tmp_path / "one")
    else:
        np.testing.assert_array_equal(opened(tmp_path / "1-1").read()[0][0], expected[1])


def test_files_without_series_identifiers_form_one_series(tmp_path: Path) -> None:
    series(tmp_path, SeriesInstanceUID="")
    slice_file(tmp_path / "scout", np.zeros((9, 9), np.uint16), ORIGIN, SeriesInstanceUID="")
    assert [each.header.shape for each in series_in(tmp_path).series] == [(7, 5, 4), (9, 9, 1)]


def test_identifiers_are_repaired_from_the_file_meta_group(tmp_path: Path) -> None:
    one = dataset(values_of(0), SOPInstanceUID="", SOPClassUID="")
    class_uid, instance_uid = one.file_meta.MediaStorageSOPClassUID, one.file_meta.MediaStorageSOPInstanceUID
    one.save_as(tmp_path / "a", enforce_file_format=False, implicit_vr=False, little_endian=True)
    repaired = dicom.read_attributes(tmp_path / "a")
    assert (repaired.SOPClassUID, repaired.SOPInstanceUID) == (class_uid, instance_uid)
    kept = dicom.read_attributes(save(tmp_path / "b", dataset(values_of(0), SOPInstanceUID="1.2.7")))
    assert kept.SOPInstanceUID == "1.2.7"
    assert "PixelData" not in kept


# Images ---------------------------------------------------------------------------------------------------------------

SPACINGS: dict[str, tuple[dict[str, Any], Grid]] = {
    "calibrated": (
        {"PixelSpacing": [0.2, 0.1], "ImagerPixelSpacing": [0.3, 0.3], "PixelSpacingCalibrationType": "FIDUCIAL"},
        Grid((0.2, 0.1), "mm", calibration="PixelSpacing"),
    ),
    "not named, but another than at the detector": (
        {"PixelSpacing": [0.2, 0.1], "ImagerPixelSpacing": [0.3, 0.3]},
        Grid((0.2, 0.1), "mm", calibration="PixelSpacing"),
    ),
    "equal to that at the detector": (
        {"PixelSpacing": [0.3, 0.3], "ImagerPixelSpacing": [0.3, 0.3]},
        Grid((0.3, 0.3), "mm", calibration="ImagerPixelSpacing"),
    ),
    "at the detector": ({"ImagerPixelSpacing": [0.3, 0.4]}, Grid((0.3, 0.4), "mm", calibration="ImagerPixelSpacing")),
    "magnified": (
        {"ImagerPixelSpacing": [0.3, 0.6], "EstimatedRadiographicMagnificationFactor": 1.5},
        Grid((0.3 / 1.5, 0.6 / 1.5), "mm", calibration="EstimatedRadiographicMagnificationFactor"),
    ),
    "scanned film": (
        {"NominalScannedPixelSpacing": [0.1, 0.1]},
        Grid((0.1, 0.1), "mm", calibration="NominalScannedPixelSpacing"),
    ),
    "unknown": ({}, Grid()),
    "zero": ({"PixelSpacing": [0, 0]}, Grid()),
}


@pytest.mark.parametrize("modality", ["CR", "DX", "MG", "XA"])
@pytest.mark.parametrize("kind", SPACINGS)
def test_projections_are_images_whose_spacing_says_where_it_was_measured(
    tmp_path: Path, kind: str, modality: str
) -> None:
    tags, grid = SPACINGS[kind]
    path = save(tmp_path / "x.dcm", dataset(values_of(0), Modality=modality, **tags))
    source = open_source(path)
    assert isinstance(source, DicomImage)
    assert (source.shape, source.channels, source.dtype) == ((ROWS, COLUMNS), 1, np.uint16)
    assert source.grid == grid
    image, valid = source.read()
    assert valid is None
    np.testing.assert_array_equal(image[0], values_of(0))
    np.testing.assert_array_equal(source.read(Window((1, 2), (4, 5)))[0][0], values_of(0)[1:4, 2:5])
    mask = np.zeros(source.shape, np.uint8)
    assert write_prediction(Prediction(mask, LABELS, grid), tmp_path / "out/x", like=source).name == "x.png"


def test_a_projection_with_a_position_is_an_image_and_its_folder_holds_each(tmp_path: Path) -> None:
    for k in range(3):
        slice_file(tmp_path / f"view{k}.dcm", values_of(k), ORIGIN, Modality="DX", RescaleIntercept=0)
    found, left_out = dicom_sources(tmp_path)
    assert not left_out
    assert list(found) == ["view0", "view1", "view2"]
    for k in range(3):
        np.testing.assert_array_equal(found[f"view{k}"].read()[0][0], values_of(k))


def test_frames_without_positions_are_single_images(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 255, (12, ROWS, COLUMNS)).astype(np.uint8)
    path = save(tmp_path / "cine.dcm", dataset(frames, Modality="US"))
    found, left_out = dicom_sources(tmp_path)
    assert not left_out
    assert list(found)[:2] == ["cine-01", "cine-02"]
    for k, source in enumerate(found.values()):
        np.testing.assert_array_equal(source.read()[0][0], frames[k])
    with pytest.raises(ImageError, match="expected one image, found 12 frames without positions"):
        open_source(path)


def test_ultrasound_is_calibrated_by_its_regions(tmp_path: Path) -> None:
    def region(delta: float, unit: int = 3) -> Dataset:
        return item(
            RegionSpatialFormat=1, PhysicalUnitsXDirection=unit, PhysicalUnitsYDirection=unit,
            PhysicalDeltaX=delta, PhysicalDeltaY=-delta / 2,
        )[0]  # fmt: skip

    for regions, expected in (
        ([region(0.02), region(0.02)], Grid((0.1, 0.2), "mm", calibration="SequenceOfUltrasoundRegions")),
        ([region(0.02), region(0.03)], Grid()),
        ([region(0.02, 4)], Grid()),
    ):
        one = dataset(values_of(0), Modality="US", SequenceOfUltrasoundRegions=Items(regions))
        assert open_source(save(tmp_path / "us", one)).grid == expected


def test_colours_are_rgb(tmp_path: Path) -> None:
    colours = np.random.default_rng(0).integers(0, 255, (ROWS, COLUMNS, 3)).astype(np.uint8)
    source = open_source(save(tmp_path / "rgb", dataset(colours, Modality="OT", BitsStored=8, HighBit=7)))
    assert (source.channels, source.dtype) == (3, np.uint8)
    np.testing.assert_array_equal(source.read()[0], colours.transpose(2, 0, 1))
    planes = dataset(colours, Modality="OT", BitsStored=8, HighBit=7, PlanarConfiguration=1)
    planes.PixelData = colours.transpose(2, 0, 1).tobytes() + b"\0"
    np.testing.assert_array_equal(open_source(save(tmp_path / "planes", planes)).read()[0], colours.transpose(2, 0, 1))


def test_a_palette_becomes_its_colours(tmp_path: Path) -> None:
    indices = np.random.default_rng(1).integers(0, 4, (ROWS, COLUMNS)).astype(np.uint8)
    palette = np.array([[0, 10, 20], [255, 0, 7], [1, 2, 3], [90, 91, 92]], np.uint16)
    one = dataset(indices, Modality="US", PhotometricInterpretation="PALETTE COLOR", BitsStored=8, HighBit=7)
    for band, name in enumerate(("Red", "Green", "Blue")):
        setattr(one, f"{name}PaletteColorLookupTableDescriptor", [4, 0, 16])
        setattr(one, f"{name}PaletteColorLookupTableData", (palette[:, band] * 257).astype(np.uint16).tobytes())
    image = open_source(save(tmp_path / "us", one)).read()[0]
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, palette[indices].transpose(2, 0, 1))


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_a_table_replaces_slope_and_intercept(tmp_path: Path, bits: int) -> None:
    indices = np.random.default_rng(1).integers(0, 9, (ROWS, COLUMNS)).astype(np.uint16)
    table = np.random.default_rng(2).integers(0, 2**bits, 6).astype(np.uint16)
    lookup = item(LUTDescriptor=[6, 2, bits], LUTData=table.astype("<u2").tobytes(), ModalityLUTType="US")
    source = open_source(save(tmp_path / "cr", dataset(indices, Modality="CR", ModalityLUTSequence=lookup)))
    image = source.read()[0][0]
    assert (image.dtype, source.dtype) == (np.dtype(np.uint8 if bits == 8 else np.uint16),) * 2
    np.testing.assert_array_equal(image, table[np.clip(indices, 2, 7) - 2])  # the first entry is for the value 2


def test_a_video_is_refused_with_what_it_is(tmp_path: Path) -> None:
    one = dataset(np.zeros((3, ROWS, COLUMNS), np.uint8), Modality="ES")
    one.file_meta.TransferSyntaxUID = MPEG4HP41
    one.PixelData = encapsulate([bytes(100)])
    one["PixelData"].is_undefined_length = True
    (source, *_), _ = dicom_sources(save(tmp_path / "video", one).parent)[0].values(), None
    with pytest.raises(ImageError, match=r"video: expected a compression of images, found MPEG-4 AVC"):
        source.read()


@pytest.mark.parametrize(
    ("tags", "found"),
    [
        ({"TotalPixelMatrixColumns": 5000}, "the tiles of a whole slide"),
        ({"Modality": "RTDOSE"}, "a dose distribution"),
        ({"PhotometricInterpretation": "HSV"}, "photometric interpretation HSV"),
    ],
)
def test_other_files_are_refused_with_the_reason(tmp_path: Path, tags: dict[str, Any], found: str) -> None:
    path = save(tmp_path / "a", dataset(values_of(0), **tags))
    with pytest.raises(ImageError, match=found):
        open_source(path)


def test_the_real_series_is_read_as_it_is(real: Any) -> None:
    root = real("ct_dicom") / "example_ct_dicom"
    source = opened(root)
    image = source.read()[0]
    assert (source.shape, image.dtype, len(source.files)) == ((20, 512, 512), np.int16, 20)
    for frame, path in zip(source.in_frame_order(image[0]), source.files, strict=True):
        one = pydicom.dcmread(path)
        np.testing.assert_array_equal(frame, one.pixel_array.astype(int) - 1024)
        assert dicom.read_attributes(path).SOPInstanceUID == one.file_meta.MediaStorageSOPInstanceUID
    assert source.grid.spacing[0] == 2  # whereas SliceThickness is 3
    assert len(dicom_series.series_in(root).series) == 1
