"""Volumes are read as slices in radiological orientation, in the type of the file, each with its own mask."""

import gzip
import importlib
from itertools import permutations, product
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from nibabel.orientations import apply_orientation, axcodes2ornt, io_orientation, ornt_transform

from pixelwise.errors import ImageError, MaskError, PairingError
from pixelwise.formats.reading import (
    image_digest,
    image_size,
    read_record_image,
    read_truth,
    read_truth_ids,
)
from pixelwise.formats.records import Record
from pixelwise.grid import Grid
from pixelwise.imageio import nifti, volume_values
from pixelwise.imageio.images import Limits
from pixelwise.imageio.masks import MaskRule
from pixelwise.imageio.volume_files import read_header as volume_header
from pixelwise.imageio.volumes import Across, Plane, coarsest, require_same_place, scaled, scaled_type
from pixelwise.labels import Labels

RAS = np.array([[2.0, 0, 0, -10], [0, 3, 0, 20], [0, 0, 5, 30], [0, 0, 0, 1]])
SHAPE = (4, 5, 3)


def moved(millimetres: float, scale: float = 0.0) -> np.ndarray:
    """Return the affine of the same voxels, moved to the right and widened."""
    affine = RAS.copy()
    affine[0, 3] += millimetres
    affine[0, 0] += scale
    return affine


def values(shape: tuple[int, ...] = SHAPE, dtype: Any = np.int16) -> np.ndarray:
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


def save(
    path: Path,
    array: np.ndarray,
    affine: np.ndarray = RAS,
    scaling: tuple[float, float] | None = None,
    units: str = "mm",
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(array, affine)
    image.header.set_xyzt_units(units)
    if scaling is not None:
        image.header.set_slope_inter(*scaling)
        image = nibabel.Nifti1Image.from_bytes(image.to_bytes())
        raw = bytearray(image.to_bytes())
        raw[112:120] = np.array(scaling, "<f4").tobytes()
        raw[352:] = array.astype(array.dtype.newbyteorder("<")).tobytes(order="F")
        path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else bytes(raw))
        return path
    nibabel.save(image, path)
    return path


def record(path: Path, index: int, mask: Path | None = None, across: Across = "axial", **more: Any) -> Record:
    return Record(f"v/{index}", path, mask, plane=Plane(index, across, **more))


def read(path: Path, index: int, across: Across = "axial", **more: Any) -> np.ndarray:
    return read_record_image(record(path, index, across=across, **more))[0]


# Layout ----------------------------------------------------------------------------------------------------------------


def test_axial_slices_are_in_radiological_orientation(tmp_path: Path) -> None:
    array = np.zeros(SHAPE, np.uint8)  # RAS: i to the right, j to the front, k to the head
    array[3, 4, 0] = 1  # the right-most, front-most voxel of the lowest slice
    first = read(save(tmp_path / "v.nii.gz", array), 0)
    assert first.shape == (1, 5, 4)
    assert first[0].nonzero() == (np.array([0]), np.array([0])), "front is above, the patient's right is on the left"


@pytest.mark.parametrize(
    ("across", "codes"),
    [("axial", "SPL"), ("coronal", "PIL"), ("sagittal", "LIP")],
    ids=["axial", "coronal", "sagittal"],
)
def test_slices_equal_nibabels_in_the_stated_orientation(tmp_path: Path, across: Across, codes: str) -> None:
    path = save(tmp_path / "v.nii.gz", values())
    turned = ornt_transform(io_orientation(RAS), axcodes2ornt(codes))
    wanted = apply_orientation(values(), turned)
    for index, plane in enumerate(wanted):
        np.testing.assert_array_equal(read(path, index, across)[0], plane)


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_the_order_and_direction_of_a_files_axes_change_nothing(tmp_path: Path, order: tuple[int, ...]) -> None:
    usual = save(tmp_path / "ras.nii.gz", values())
    for signs in product((1, -1), repeat=3):
        turned = nibabel.Nifti1Image(values(), RAS).as_reoriented(np.stack([order, signs], axis=1))
        path = save(tmp_path / "other.nii.gz", np.asarray(turned.dataobj), turned.affine)
        for across in ("axial", "coronal", "sagittal"):
            for index in range(volume_header(usual).size(across)[0]):
                np.testing.assert_array_equal(read(path, index, across), read(usual, index, across))
            theirs = volume_header(path).grid(across)
            np.testing.assert_allclose(theirs.affine, volume_header(usual).grid(across).affine, atol=1e-5)
            assert theirs.spacing == volume_header(usual).grid(across).spacing
        require_same_place(volume_header(usual), volume_header(path))


def test_an_oblique_volume_is_arranged_by_the_nearest_axes(tmp_path: Path) -> None:
    angle = np.deg2rad(30)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    path = save(tmp_path / "v.nii.gz", values(), turn @ RAS)
    np.testing.assert_array_equal(read(path, 1), read(save(tmp_path / "w.nii.gz", values()), 1))
    assert volume_header(path).grid("axial").spacing == pytest.approx((5, 3, 2))


def test_spacing_is_in_millimetres_in_array_order_with_its_calibration(tmp_path: Path) -> None:
    path = save(tmp_path / "v.nii.gz", values())
    assert volume_header(path).grid("axial").spacing == (5, 3, 2)
    assert volume_header(path).grid("axial").pixel_size == pytest.approx(30)
    _, grid, measured = read_record_image(record(path, 0))
    assert grid == Grid((3.0, 2.0), "mm", calibration="sform")
    assert measured is None
    assert read_record_image(record(path, 0, across="sagittal"))[1].spacing == (5, 3)


@pytest.mark.parametrize(("units", "factor"), [("meter", 1000), ("micron", 0.001), ("mm", 1), ("unknown", 1)])
def test_other_units_become_millimetres(tmp_path: Path, units: str, factor: float) -> None:
    path = save(tmp_path / "v.nii.gz", values(), units=units)
    assert volume_header(path).grid("axial").spacing == pytest.approx((5 * factor, 3 * factor, 2 * factor))


def test_the_grid_of_a_volume_has_the_positions_of_nibabel(tmp_path: Path) -> None:
    path = save(tmp_path / "v.nii.gz", values())
    for across in ("axial", "coronal", "sagittal"):
        grid = volume_header(path).grid(across)
        for index in range(volume_header(path).size(across)[0]):
            plane = read(path, index, across)[0]
            for row, column in product(*map(range, plane.shape)):
                voxel = np.argwhere(values() == plane[row, column])[0]
                world = RAS[:3, :3] @ voxel + RAS[:3, 3]
                np.testing.assert_allclose(grid.to_world(np.array([[index, row, column]])), [world])


def test_slices_are_stacked_along_the_coarsest_axis_or_axially(tmp_path: Path) -> None:
    def header(name: str, *spacing: float) -> Any:
        return volume_header(save(tmp_path / name, values(), np.diag([*spacing, 1])))

    assert coarsest([header("a.nii", 1, 1, 1)]) == "axial"
    assert coarsest([header("b.nii", 1, 1, 3)]) == "axial"
    assert coarsest([header("c.nii", 3, 1, 1)]) == "sagittal"
    assert coarsest([header("d.nii", 1, 3, 1)]) == "coronal"
    assert coarsest([header("e.nii", 1.02, 1, 1)]) == "axial"
    assert coarsest([header("f.nii", 3, 1, 1), header("g.nii", 1, 1, 3), header("h.nii", 1, 1, 4)]) == "axial"


# Values ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "int32", "float32", "float64", "uint32"])
@pytest.mark.parametrize("name", ["v.nii", "v.nii.gz"])
def test_values_keep_the_type_they_are_stored_in(tmp_path: Path, dtype: str, name: str) -> None:
    image = read(save(tmp_path / name, values(dtype=dtype)), 1)
    assert image.dtype == np.dtype(dtype)
    assert image.flags.c_contiguous
    assert image.flags.writeable
    np.testing.assert_array_equal(image[0], values()[::-1, ::-1, 1].T)


def test_big_endian_files_are_read(tmp_path: Path) -> None:
    header = nibabel.Nifti1Header(endianness=">")
    header.set_data_dtype(np.int16)
    image = nibabel.Nifti1Image(values(), RAS, header)
    nibabel.save(image, tmp_path / "v.nii.gz")
    found = read(tmp_path / "v.nii.gz", 2)
    assert found.dtype.isnative
    np.testing.assert_array_equal(found[0], values()[::-1, ::-1, 2].T)


def test_nifti_2_is_read(tmp_path: Path) -> None:
    nibabel.save(nibabel.Nifti2Image(values(), RAS), tmp_path / "v.nii.gz")
    np.testing.assert_array_equal(read(tmp_path / "v.nii.gz", 0)[0], values()[::-1, ::-1, 0].T)


@pytest.mark.parametrize(
    ("stored", "scaling", "wanted"),
    [
        ("int16", (1, 0), "int16"),
        ("int16", (1, -1024), "int32"),
        ("uint8", (1, -100), "int16"),
        ("uint8", (2, 0), "uint16"),
        ("int16", (0.5, 0), "float32"),
        ("int32", (0.5, 3), "float64"),
        ("float32", (2, 1), "float32"),
    ],
)
def test_scaled_values_are_integers_if_slope_and_intercept_are(
    tmp_path: Path, stored: str, scaling: tuple[float, float], wanted: str
) -> None:
    path = save(tmp_path / "v.nii.gz", values(dtype=stored), scaling=scaling)
    image = read(path, 1)
    assert image.dtype == np.dtype(wanted)
    oracle = np.asanyarray(nibabel.load(path).dataobj)[::-1, ::-1, 1].T
    np.testing.assert_allclose(image[0], oracle)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32"])
@pytest.mark.parametrize("scaling", [(1, -1024), (3, 7), (-2, 5), (1.5, 0.25)])
def test_no_scaled_value_overflows(dtype: str, scaling: tuple[float, float]) -> None:
    info = np.iinfo(dtype)
    ends = np.array([info.min, info.max], dtype)
    chosen = scaled_type(np.dtype(dtype), (int(info.min), int(info.max)), *scaling)
    exact = [int(value) * scaling[0] + scaling[1] for value in ends.tolist()]
    np.testing.assert_allclose(scaled(ends, chosen, *scaling).astype(float), exact, rtol=1e-6)


def test_channels_in_a_fourth_or_fifth_axis_become_bands(tmp_path: Path) -> None:
    four = values((*SHAPE, 2))
    for array in (four, four.reshape(*SHAPE, 1, 2)):
        path = save(tmp_path / "v.nii.gz", array)
        assert image_size(record(path, 0)) == (2, 5, 4)
        np.testing.assert_array_equal(read(path, 1), np.moveaxis(four[::-1, ::-1, 1], -1, 0).transpose(0, 2, 1))


def test_channels_in_separate_files_become_bands_of_one_type(tmp_path: Path) -> None:
    first, second = save(tmp_path / "a.nii.gz", values()), save(tmp_path / "b.nii.gz", values(dtype=np.float32) + 0.5)
    one = record(first, 1, dtype="float32", more=(second,))
    image = read_record_image(one)[0]
    assert (image.shape, image.dtype, image_size(one)) == ((2, 5, 4), np.float32, (2, 5, 4))
    np.testing.assert_array_equal(image[1], image[0] + 0.5)


def test_a_plane_with_nan_is_refused_by_name(tmp_path: Path) -> None:
    array = values(dtype=np.float32)
    array[0, 0, 1] = np.nan
    path = save(tmp_path / "v.nii.gz", array)
    read(path, 0)
    with pytest.raises(ImageError, match=r"v\.nii\.gz: expected finite values, found 1 NaN pixel"):
        read(path, 1)


# Masks -----------------------------------------------------------------------------------------------------------------


def test_a_mask_is_read_as_classes_by_the_same_rules_as_any_other(tmp_path: Path) -> None:
    labels = Labels(("nothing", "organ"), (0, 4))
    array = np.zeros(SHAPE, np.uint8)
    array[0, 0] = 4
    image, mask = save(tmp_path / "v.nii.gz", values()), save(tmp_path / "m.nii.gz", array.astype(np.float32))
    found, told = read_truth(record(image, 0, mask), labels)
    assert (found.dtype, told) == (np.uint8, ())
    np.testing.assert_array_equal(found, (array[::-1, ::-1, 0] == 4).T)
    np.testing.assert_array_equal(read_truth_ids(record(image, 0, mask), MaskRule()), array[::-1, ::-1, 0].T)
    merged, _ = read_truth(record(image, 0, mask), Labels(("a", "b")), MaskRule(values={0: 1, 4: 0}))
    np.testing.assert_array_equal(merged, 1 - found)


def test_unknown_ids_and_fractions_in_a_mask_are_errors_that_name_it(tmp_path: Path) -> None:
    image = save(tmp_path / "v.nii.gz", values())
    odd = save(tmp_path / "odd.nii.gz", np.full(SHAPE, 7, np.uint8))
    with pytest.raises(MaskError, match=r"odd\.nii\.gz: expected class ids 0, 1, found 7 in 20 pixels. Add class 7"):
        read_truth(record(image, 0, odd), Labels(("a", "b")))
    soft = save(tmp_path / "soft.nii.gz", np.full(SHAPE, 0.5, np.float32))
    with pytest.raises(MaskError, match=r"soft\.nii\.gz: expected whole numbers, found 20 fractions"):
        read_truth(record(image, 0, soft), Labels(("a", "b")))
    several = save(tmp_path / "several.nii.gz", np.zeros((*SHAPE, 2), np.uint8))
    with pytest.raises(MaskError, match="expected one band of class ids, found 2 bands"):
        read_truth(record(image, 0, several), Labels(("a", "b")))


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda a: moved(1), r"some 1 mm away\."),
        (lambda a: a * 1.1, "away"),
        (lambda a: a @ np.diag([-1, 1, 1, 1]), "its axes are LAS, the image's RAS"),
        (lambda a: a[:, [1, 0, 2, 3]], "expected 3×5×4 voxels .* as v.nii.gz has, found 3×4×5"),
    ],
    ids=["moved", "scaled", "mirrored", "axes exchanged"],
)
def test_a_mask_at_another_position_is_refused_with_the_fix(tmp_path: Path, change: Any, found: str) -> None:
    image = save(tmp_path / "v.nii.gz", values())
    mask = save(tmp_path / "m.nii.gz", np.zeros(SHAPE, np.uint8), change(RAS))
    with pytest.raises(PairingError, match=rf"m\.nii\.gz: .*{found}.*Resample the mask to the image's grid"):
        require_same_place(volume_header(image), volume_header(mask))


def test_rounding_is_tolerated_and_a_tenth_of_a_voxel_is_not(tmp_path: Path) -> None:
    image = volume_header(save(tmp_path / "v.nii.gz", values()))
    require_same_place(image, volume_header(save(tmp_path / "a.nii.gz", values(), moved(0.01, 1e-4))))
    other = volume_header(save(tmp_path / "b.nii.gz", values(), moved(0.2)))
    with pytest.raises(PairingError, match=r"0\.2 mm away"):
        require_same_place(image, other)


# Broken and hostile files ----------------------------------------------------------------------------------------------


def test_truncated_files_fail_by_name(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 30000, (20, 20, 20)).astype(np.int16)
    for name in ("v.nii", "v.nii.gz"):
        whole = save(tmp_path / "whole" / name, noise).read_bytes()
        for share in (0.02, 0.5, 0.98):
            (tmp_path / name).write_bytes(whole[: int(len(whole) * share)])
            with pytest.raises(ImageError, match=rf"{name}: expected a complete NIfTI file, found one that ends early"):
                read(tmp_path / name, 0)


def test_a_damaged_checksum_is_noticed(tmp_path: Path) -> None:
    data = bytearray(save(tmp_path / "v.nii.gz", values()).read_bytes())
    data[-8] ^= 1
    (tmp_path / "v.nii.gz").write_bytes(data)
    with pytest.raises(
        ImageError, match=r"v\.nii\.gz: expected a complete NIfTI file, found one that cannot be decoded"
    ):
        read(tmp_path / "v.nii.gz", 0)


def claiming(path: Path, *shape: int) -> Path:
    """Write a header with a shape, without values."""
    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.int16)
    header.set_data_shape(shape)
    header["vox_offset"], header["magic"] = 352, b"n+1"
    header.set_sform(RAS, 1)
    path.write_bytes(gzip.compress(header.binaryblock + bytes(4 + 5000)))
    return path


def test_a_header_is_compared_with_the_file_before_memory_is_allocated(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="ends early"):
        volume_header(claiming(tmp_path / "v.nii.gz", 30000, 30000, 30000))
    path = claiming(tmp_path / "w.nii.gz", 30, 20, 4)
    for limits, wanted in (
        (Limits(pixels=500), "at most 500 pixels per slice, found 600 in the header"),
        (Limits(bytes=4000), "at most 4,000 bytes once unpacked, found 4,800 in the header"),
        (Limits(bands=0), "at most 0 bands, found 1 in the header"),
    ):
        with pytest.raises(ImageError, match=wanted):
            read_record_image(record(path, 0), limits)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "an empty file"),
        (b"not a volume at all" * 40, "expected a NIfTI file, found something else"),
        (gzip.compress(b"neither" * 100), "expected a NIfTI file, found something else"),
        (bytes(344) + b"ni1\0" + bytes(300), "found a pair of .hdr and .img"),
        (b"\x1f\x8b" + b"noise" * 50, "cannot be decoded|ends early"),
    ],
    ids=["empty", "text", "zipped text", "pair", "noise"],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes, found: str) -> None:
    (tmp_path / "v.nii.gz").write_bytes(content)
    with pytest.raises(ImageError, match=rf"v\.nii\.gz: .*({found})"):
        volume_header(tmp_path / "v.nii.gz")


def test_folders_and_missing_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="expected a NIfTI file, found a folder"):
        volume_header(tmp_path)
    with pytest.raises(ImageError, match="expected a NIfTI file, found nothing"):
        volume_header(tmp_path / "none.nii.gz")


def test_complex_and_coloured_voxels_and_too_many_axes_are_refused(tmp_path: Path) -> None:
    colours = np.zeros(SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1")])
    for array in (values(dtype=np.complex64), colours):
        with pytest.raises(ImageError, match="expected whole or real numbers, found data type"):
            volume_header(save(tmp_path / "v.nii.gz", array))
    with pytest.raises(ImageError, match="expected three spatial axes and one of bands, found 4×5×3×2×2"):
        volume_header(save(tmp_path / "w.nii.gz", values((*SHAPE, 2, 2))))


def test_an_affine_without_an_inverse_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "v.nii", values())
    data = bytearray(path.read_bytes())
    data[312:328] = bytes(16)  # the third row of the sform
    path.write_bytes(data)
    with pytest.raises(ImageError, match="expected an affine with an inverse"):
        volume_header(path)


def test_the_content_decides_and_not_the_name(tmp_path: Path) -> None:
    packed, plain = save(tmp_path / "a.nii.gz", values()), save(tmp_path / "b.nii", values())
    swapped = packed.rename(tmp_path / "c.nii"), plain.rename(tmp_path / "d.nii.gz")
    for path in swapped:
        np.testing.assert_array_equal(read(path, 0)[0], values()[::-1, ::-1, 0].T)


def test_a_slice_beyond_the_last_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="expected slice 3, found 3 slices"):
        read(save(tmp_path / "v.nii.gz", values()), 3)


def test_a_missing_package_is_named_with_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "v.nii.gz", values())

    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(
        ImageError, match=r"v\.nii\.gz: expected the package nibabel.* pip install 'pixelwise\[volumes\]'"
    ):
        volume_header(path)


# What is kept ----------------------------------------------------------------------------------------------------------


def test_slices_in_order_decompress_each_file_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image, mask = save(tmp_path / "v.nii.gz", values()), save(tmp_path / "m.nii.gz", np.zeros(SHAPE, np.uint8))
    unpacked, usual = [], volume_values.decompress
    monkeypatch.setattr(volume_values, "decompress", lambda *args: unpacked.append(1) or usual(*args))
    for index in range(3):
        read_record_image(record(image, index))
        read_truth(record(image, index, mask), Labels(("a", "b")))
    assert len(unpacked) == 2


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    path = save(tmp_path / "v.nii.gz", values())
    before = read(path, 0)
    save(path, values((5, 5, 3)) + 1)
    assert read(path, 0).shape == (1, 5, 5)
    assert before.shape == (1, 5, 4)


def test_the_cache_stays_within_its_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(volume_values, "_KEPT_BYTES", 300)
    volume_values._KEPT.clear()
    for k in range(5):
        read(save(tmp_path / f"{k}.nii.gz", values()), 0)
    assert len(volume_values._KEPT) == 2


def test_few_files_stay_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(volume_values, "_KEPT_FILES", 3)
    volume_values._KEPT.clear()
    for k in range(5):
        read(save(tmp_path / f"{k}.nii", values()), 0)
    assert [path.name for ((path, *_),) in volume_values._KEPT] == ["2.nii", "3.nii", "4.nii"]


def test_the_digest_tells_slices_and_contents_apart(tmp_path: Path) -> None:
    path = save(tmp_path / "v.nii.gz", values())
    first = image_digest(record(path, 0))
    assert first == image_digest(record(path, 0))
    assert len({first, image_digest(record(path, 1)), image_digest(record(path, 0, across="sagittal"))}) == 3
    save(path, values() + 1)
    assert image_digest(record(path, 0)) != first


# Label tables ----------------------------------------------------------------------------------------------------------


def with_table(path: Path, array: np.ndarray, text: str, affine: np.ndarray = RAS) -> Path:
    image = nibabel.Nifti1Image(array, affine)
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension(0, text.encode()))
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(image, path)
    return path


def test_label_tables_are_read(tmp_path: Path) -> None:
    table = (
        '<?xml version="1.0"?><CaretExtension><LabelTable>\n<Label Key="1" Red="0"><![CDATA[spleen]]></Label>\n'
        '<Label Key="7">left &amp; right</Label><Label Key="x"/></LabelTable></CaretExtension>'
    )
    good = with_table(tmp_path / "a.nii.gz", np.zeros(SHAPE, np.uint8), table.replace('<Label Key="x"/>', ""))
    assert nifti.read_label_table(good) == {1: "spleen", 7: "left & right"}
    for text in (table, "<LabelTable><Label Key='1'>", "none", "<LabelTable>&bomb;</LabelTable>"):
        assert nifti.read_label_table(with_table(tmp_path / "b.nii.gz", np.zeros(SHAPE, np.uint8), text)) == {}
    assert nifti.read_label_table(save(tmp_path / "c.nii.gz", values())) == {}
