"""NRRD volumes, against pynrrd: values, positions, bands, detached data; masks with the segments of 3D Slicer."""

import bz2
import gzip
from pathlib import Path
from typing import Any

import nibabel
import nrrd as pynrrd
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelwise.config import DataConfig
from pixelwise.datasets.dataset import open_data
from pixelwise.errors import ImageError
from pixelwise.formats.reading import file_hash, image_digest
from pixelwise.imageio import nrrd, volume_files, volume_values
from pixelwise.imageio.images import Limits
from pixelwise.imageio.sources import VolumeSource, open_source
from pixelwise.imageio.writing import write_prediction
from pixelwise.labels import Labels
from pixelwise.tiles import Window
from pixelwise.types import Prediction

SHAPE = (6, 5, 4)
DIRECTIONS = np.array([[0.6, 0.1, 0], [-0.1, 0.8, 0.2], [0, -0.4, 2.5]])  # one row per axis
ORIGIN = np.array([-30.0, 12.5, 100.25])
LABELS = Labels(
    ("background", "liver, left", "Milz\\ \nsick"), (0, 5, 300), colours=((0, 0, 0), (255, 0, 51), (0, 128, 0))
)
SIGNS = {"left-posterior-superior": (-1, -1, 1), "RAS": (1, 1, 1), "left-anterior-superior": (-1, 1, 1)}
NONE = [np.nan] * 3  # no direction in space, for pynrrd
rng = np.random.default_rng(0)


def values(shape: tuple[int, ...] = SHAPE, dtype: Any = np.int16) -> np.ndarray:
    return rng.integers(0, 100, shape).astype(dtype)


def save(path: Path, array: np.ndarray, **header: Any) -> Path:
    plain = {"space": "left-posterior-superior", "space directions": DIRECTIONS, "space origin": ORIGIN}
    pynrrd.write(str(path), array, plain | header)
    return path


def opened(path: Path, **options: Any) -> VolumeSource:
    source = open_source(path, **options)
    assert isinstance(source, VolumeSource)
    return source


def text_file(path: Path, content: bytes, **fields: Any) -> Path:
    """Write a file by hand; None removes a field."""
    plain = {"type": "short", "dimension": 3, "sizes": "2 3 2", "encoding": "raw", "endian": "little"} | fields
    lines = [f"{name.replace('_', ' ')}: {value}" for name, value in plain.items() if value is not None]
    path.write_bytes("\n".join(["NRRD0004", "# a comment", *lines]).encode() + b"\n\n" + content)
    return path


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "float32", "float64"])
@pytest.mark.parametrize("encoding", ["raw", "gzip", "bzip2", "text"])
def test_values_are_those_of_pynrrd(tmp_path: Path, encoding: str, dtype: str) -> None:
    array = values(dtype=dtype)
    path = save(tmp_path / "v.nrrd", array, encoding=encoding)
    whole = nrrd.read_box(path, (slice(None),) * 3)
    assert whole.dtype == array.dtype
    np.testing.assert_array_equal(whole, array)
    np.testing.assert_array_equal(nrrd.read_box(path, (slice(1, 3), slice(0, 1), slice(2, 4))), array[1:3, :1, 2:4])
    np.testing.assert_array_equal(whole, pynrrd.read(str(path))[0])


@pytest.mark.parametrize("endian", ["big", "little"])
@pytest.mark.parametrize("encoding", ["raw", "gzip", "bz2", "hex"])
def test_both_orders_of_bytes_are_read(tmp_path: Path, encoding: str, endian: str) -> None:
    array = values((2, 3, 2)) - 50
    content = array.astype(f"{'>' if endian == 'big' else '<'}i2").tobytes("F")
    compress = {"raw": bytes, "gzip": gzip.compress, "bz2": bz2.compress, "hex": lambda data: data.hex().encode()}
    path = text_file(tmp_path / "v.nrrd", compress[encoding](content), encoding=encoding, endian=endian)
    np.testing.assert_array_equal(nrrd.read_box(path, (slice(None),) * 3), array)


@pytest.mark.parametrize("space", SIGNS)
def test_positions_are_those_of_the_file_in_right_front_and_head(tmp_path: Path, space: str) -> None:
    array = values()
    source = opened(save(tmp_path / "v.nrrd", array, space=space))
    image = source.read()[0]
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = DIRECTIONS.T, ORIGIN
    affine[:3] *= np.array(SIGNS[space])[:, None]
    np.testing.assert_allclose(source.header.affine, affine)
    assert (source.format, source.grid.unit, source.grid.calibration) == ("NRRD", "mm", "space directions")
    # The same volume in NIfTI gives the same slices.
    nibabel.save(nibabel.Nifti1Image(array, affine), tmp_path / "v.nii.gz")
    other = opened(tmp_path / "v.nii.gz", across=source.across)
    np.testing.assert_array_equal(image, other.read()[0])
    np.testing.assert_allclose(source.grid.affine, other.grid.affine, atol=1e-4)


@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_any_window_of_any_layout_is_the_slice_of_the_whole(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    order = data.draw(st.permutations(range(3)))
    signs = data.draw(st.tuples(*[st.sampled_from((-1, 1))] * 3))
    bands = data.draw(st.integers(1, 3))
    first = data.draw(st.booleans())
    encoding = data.draw(st.sampled_from(["raw", "gzip"]))
    shape = (bands, *SHAPE) if first else (*SHAPE, bands)
    array = values(shape)
    directions = (np.diag([0.7, 0.9, 2.0]) * np.array(signs))[list(order)].tolist()
    none = [NONE, *directions] if first else [*directions, NONE]
    path = save(tmp_path_factory.mktemp("nrrd") / "v.nrrd", array, encoding=encoding, **{"space directions": none})
    source = opened(path, across=data.draw(st.sampled_from([None, "axial", "coronal", "sagittal"])))
    whole = source.read()[0]
    assert whole.shape == (bands, *source.shape)
    starts = [data.draw(st.integers(0, size - 1)) for size in source.shape]
    stops = [data.draw(st.integers(start + 1, size)) for start, size in zip(starts, source.shape, strict=True)]
    window = Window(tuple(starts), tuple(stops))
    np.testing.assert_array_equal(source.read(window)[0], whole[:, *window.slices])
    for band in range(bands):
        stored = array[band] if first else array[..., band]
        np.testing.assert_array_equal(source.in_file_axes(whole[band]), stored)


def test_kinds_tell_axes_of_bands_without_directions(tmp_path: Path) -> None:
    content = np.arange(24, dtype="<i2")
    path = text_file(
        tmp_path / "v.nrrd", content.tobytes(), dimension=4, sizes="2 2 3 2", kinds="vector domain domain domain",
        spacings="nan 1 2 3",
    )  # fmt: skip
    source = opened(path)
    assert (source.channels, source.grid.calibration) == (2, "spacings")
    np.testing.assert_array_equal(nrrd.read_box(path, (slice(None),) * 3)[..., 1].ravel("F"), content[1::2])
    np.testing.assert_allclose(np.diag(source.header.affine), [-1, -2, 3, 1])
    text_file(path, content.tobytes(), dimension=4, sizes="2 2 3 2", kinds="domain domain domain time")
    assert open_source(path).header.timed  # type: ignore[union-attr]


def test_without_a_spacing_the_unit_is_pixels(tmp_path: Path) -> None:
    grid = opened(text_file(tmp_path / "v.nrrd", bytes(24))).grid
    assert (grid.unit, grid.spacing) == ("px", (1, 1, 1))
    flat = opened(text_file(tmp_path / "f.nrrd", bytes(12), dimension=2, sizes="2 3", spacings="2 4"))
    assert (flat.shape, flat.grid.spacing, flat.grid.unit) == ((1, 3, 2), (4, 4, 2), "mm")


def test_units_of_space_become_millimetres(tmp_path: Path) -> None:
    source = opened(save(tmp_path / "v.nrrd", values(), **{"space units": ["um", "um", "um"]}))
    np.testing.assert_allclose(source.header.spacing, np.linalg.norm(DIRECTIONS, axis=1) / 1000)


# Detached headers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["raw", "gzip"])
def test_data_beside_the_header_are_read(tmp_path: Path, encoding: str) -> None:
    array = values()
    path = save(tmp_path / "v.nhdr", array, encoding=encoding)
    np.testing.assert_array_equal(nrrd.read_box(path, (slice(None),) * 3), array)
    (data,) = set(tmp_path.iterdir()) - {path}
    data.unlink()
    with pytest.raises(
        ImageError, match=rf"v\.nhdr: expected the data file {data.name} beside the header, found nothing"
    ):
        nrrd.read_box(path, (slice(None),) * 3)
    path.write_text(path.read_text() + " ")
    with pytest.raises(
        ImageError, match=rf"v\.nhdr: expected a data file beside the header, found no file '{data.name}'"
    ):
        nrrd.read_header(path)


@pytest.mark.parametrize(
    "name",
    ["../secret.raw", "/etc/passwd", "sub/v.raw", "..", "C:\\v.raw", "..\\v.raw", "http://a/v.raw", "file:v.raw"],
)
def test_a_data_file_elsewhere_is_never_opened(tmp_path: Path, name: str) -> None:
    (tmp_path / "secret.raw").write_bytes(bytes(24))
    (tmp_path / "data/sub").mkdir(parents=True)
    (tmp_path / "data/sub/v.raw").write_bytes(bytes(24))
    path = text_file(tmp_path / "data/v.nhdr", b"", data_file=name)
    with pytest.raises(ImageError, match="expected a data file beside the header"):
        nrrd.read_header(path)


@pytest.mark.parametrize("name", ["LIST", "LIST 2", "v%03d.raw 1 4 1"])
def test_several_data_files_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ImageError, match="expected one data file, found several"):
        nrrd.read_header(text_file(tmp_path / "v.nhdr", b"", data_file=name))


def test_bytes_and_lines_before_the_values_are_skipped(tmp_path: Path) -> None:
    content = np.arange(12, dtype="<i2").tobytes()
    box = (slice(None),) * 3
    for name, data, fields in (
        ("bytes", b"12345" + content, {"byte_skip": 5}),
        ("end", b"any header" + content, {"byte_skip": -1}),
        ("lines", b"one\ntwo\n" + content, {"line_skip": 2}),
        ("gzip", b"one\n" + gzip.compress(b"123" + content), {"encoding": "gzip", "line_skip": 1, "byte_skip": 3}),
    ):
        (tmp_path / f"{name}.raw").write_bytes(data)
        path = text_file(tmp_path / f"{name}.nhdr", b"", data_file=f"{name}.raw", **fields)
        np.testing.assert_array_equal(nrrd.read_box(path, box).ravel("F"), np.arange(12), err_msg=name)


# Broken and hostile files ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"type": "block"}, "expected whole or real numbers, found type block"),
        ({"type": None}, "expected a field 'type' in the header, found none"),
        ({"encoding": "lzma"}, r"found 'lzma'\. Save the volume with gzip compression"),
        ({"sizes": "2 3"}, "expected a positive size for each axis, found sizes 2 3"),
        ({"sizes": "2 3 -2"}, "expected a positive size for each axis"),
        ({"dimension": 4, "sizes": "2 3 2 1"}, "found 4 axes without space directions or kinds"),
        ({"endian": "middle"}, "expected endian little or big"),
        ({"byte_skip": -1, "encoding": "gzip"}, "expected a byte skip of at least 0, found -1"),
        ({"sizes": "30000 30000 30000"}, "truncated"),
        ({"sizes": "30000 30000 30000", "encoding": "gzip"}, "truncated"),
        ({"space_directions": "(1,0,0) (0,1,0)"}, "expected 3 space directions"),
        ({"space_directions": "(1,0,0) (0,1,0) (0,x,1)"}, "expected vectors of two or three numbers"),
        ({"space_directions": "(1,0,0) (0,1,0) (0,0,0)"}, "expected an affine with an inverse"),
        ({"space_directions": "(1,0,0) (0,1,0) (nan,0,0)"}, "expected an affine with an inverse"),
    ],
)
def test_invalid_headers_are_refused_with_the_reason(tmp_path: Path, fields: dict[str, Any], found: str) -> None:
    content = gzip.compress(bytes(24)) if fields.get("encoding") == "gzip" else bytes(24)
    path = text_file(tmp_path / "v.nrrd", content, **fields)
    with pytest.raises(ImageError, match=found):
        open_source(path).read()


@pytest.mark.parametrize("encoding", ["raw", "gzip", "bzip2", "text", "hex"])
def test_truncated_files_fail_by_name(tmp_path: Path, encoding: str) -> None:
    content = {"raw": bytes(20), "gzip": gzip.compress(bytes(20)), "bzip2": bz2.compress(bytes(20)),
               "text": b"1 2 3 4 5 6 7", "hex": b"00" * 20}[encoding]  # fmt: skip
    path = text_file(tmp_path / "v.nrrd", content, encoding=encoding)
    with pytest.raises(ImageError, match=r"v\.nrrd: expected a complete NRRD file, found one that ends early"):
        open_source(path).read()
    whole = save(tmp_path / "w.nrrd", values(), encoding="gzip").read_bytes()
    for cut in (3, 30, len(whole) // 2, len(whole) - 9):
        (tmp_path / "w.nrrd").write_bytes(whole[:cut])
        with pytest.raises(ImageError, match=r"w\.nrrd: "):
            open_source(tmp_path / "w.nrrd").read()


def test_other_files_and_limits(tmp_path: Path) -> None:
    (tmp_path / "v.nrrd").write_bytes(b"something else")
    with pytest.raises(ImageError, match=r"v\.nrrd: "):
        open_source(tmp_path / "v.nrrd")
    source = opened(save(tmp_path / "w.nrrd", values()), limits=Limits(pixels=7))
    with pytest.raises(ImageError, match="expected at most 7 pixels per slice"):
        source.read()


def test_the_content_decides_and_not_the_name(tmp_path: Path) -> None:
    array = values()
    nibabel.save(nibabel.Nifti1Image(array, np.diag([1, 2, 3, 1])), tmp_path / "v.nii")
    (tmp_path / "v.nii").rename(tmp_path / "v.nrrd")
    save(tmp_path / "w.nrrd", array).rename(tmp_path / "w.nii")
    assert (opened(tmp_path / "v.nrrd").format, opened(tmp_path / "w.nii").format) == ("NIfTI", "NRRD")


def test_a_changed_data_file_is_read_again(tmp_path: Path) -> None:
    path = save(tmp_path / "v.nhdr", values(), encoding="raw")
    (data,) = set(tmp_path.iterdir()) - {path}
    volume_values._KEPT.clear()
    nrrd.read_box(path, (slice(None),) * 3)
    data.write_bytes(bytes(data.stat().st_size + 2))
    assert not nrrd.read_box(path, (slice(None),) * 3).any()


def test_the_data_file_of_a_header_belongs_to_the_volume(tmp_path: Path) -> None:
    for folder, dtype in (("images", np.int16), ("labels", np.uint8)):
        (tmp_path / folder).mkdir()
        save(tmp_path / folder / "a.nhdr", values(dtype=dtype) % 3, encoding="gzip")
    splits = open_data(DataConfig.model_validate({"split": {"val": 0, "test": 0}}), tmp_path)
    assert len(splits.train) == SHAPE[2]
    assert not [notice for notice in splits.notices if "not used" in notice]
    record = splits.train.records[0]
    digests = [image_digest(record), file_hash(record.mask)]
    for folder in ("images", "labels"):
        (data,) = (tmp_path / folder).glob("*.gz")
        data.write_bytes(gzip.compress(bytes(240 // (1 + (folder == "labels")))))
    assert not {image_digest(record), file_hash(record.mask)} & set(digests)


# Masks ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["three axes", "bands first", "bands last", "spacings", "detached"])
def test_a_mask_is_a_segmentation_of_slicer_on_the_voxels_of_the_image(tmp_path: Path, layout: str) -> None:
    directions = DIRECTIONS.tolist()
    if layout == "bands first":
        path = save(tmp_path / "v.nrrd", values((2, *SHAPE)), **{"space directions": [NONE, *directions]})
    elif layout == "bands last":
        path = save(tmp_path / "v.nrrd", values((*SHAPE, 2)), **{"space directions": [*directions, NONE]})
    elif layout == "spacings":
        path = text_file(tmp_path / "v.nrrd", values().astype("<i2").tobytes("F"), sizes="6 5 4", spacings="0.7 1 2.5")
    else:
        units = {"kinds": ["domain"] * 3, "space units": ["mm", "mm", "mm"]}
        path = save(tmp_path / ("v.nhdr" if layout == "detached" else "v.nrrd"), values(), **units)
    source = opened(path)
    mask = rng.integers(0, 3, source.shape).astype(np.uint8)
    written = write_prediction(Prediction(mask, LABELS, source.grid), tmp_path / "out/v.nrrd", like=source)
    assert written.name == "v.seg.nrrd"
    ids, after = pynrrd.read(str(written))
    before = pynrrd.read_header(str(path))
    np.testing.assert_array_equal(ids, source.in_file_axes(LABELS.decode(mask)))
    assert ids.dtype == np.uint16
    for field in ("space", "space origin", "space units"):
        assert str(after.get(field)) == str(before.get(field)), field
    for field in ("space directions", "spacings"):
        given = [row for row in np.atleast_1d(before.get(field, [])) if not np.isnan(row).all()]
        np.testing.assert_array_equal(after.get(field, []), given)
    assert {key: after[f"Segment0_{key}"] for key in ("Name", "LabelValue", "Layer", "Color", "Extent")} == {
        "Name": "liver, left", "LabelValue": "5", "Layer": "0", "Color": "1 0 0.2", "Extent": "0 5 0 4 0 3",
    }  # fmt: skip
    assert after["Segment1_LabelValue"] == "300"
    assert "Segment2_Name" not in after
    assert nrrd.read_label_table(written) == {5: "liver, left", 300: "Milz\\ \nsick"}
    back = opened(written, across=source.across)
    assert back.grid == source.grid
    np.testing.assert_array_equal(back.read()[0][0], LABELS.decode(mask))


def test_nrrd_pairs_are_training_data_with_the_names_of_segments(tmp_path: Path) -> None:
    for name in ("a", "b"):
        for folder in ("images", "labels"):
            (tmp_path / folder).mkdir(exist_ok=True)
        source = opened(save(tmp_path / f"images/{name}.nrrd", values()))
        mask = rng.integers(0, 3, source.shape).astype(np.uint8)
        labels = Labels(("background", "liver", "spleen"), (0, 5, 7))
        write_prediction(Prediction(mask, labels, source.grid), tmp_path / f"labels/{name}", like=source)
    splits = open_data(DataConfig.model_validate({"split": {"val": 0, "test": 0}}), tmp_path)
    assert splits.labels.names == ("background", "liver", "spleen")
    assert len(splits.train) == 2 * source.shape[0]
    for k in range(source.shape[0]):
        sample = splits.train.read(source.shape[0] + k)
        np.testing.assert_array_equal(sample.mask, mask[k])
        np.testing.assert_array_equal(sample.image[0], source.read()[0][0, k])


def test_a_segmentation_of_slicer_beside_its_volume_is_its_mask(tmp_path: Path) -> None:
    for name in ("a", "b"):
        shift = [0, 0, 7 * (name == "b")]
        save(tmp_path / f"{name}.nrrd", values(), **{"space origin": ORIGIN + shift})
        save(tmp_path / f"{name}.seg.nrrd", values(dtype=np.uint8) % 3, **{"space origin": ORIGIN + shift})
    splits = open_data(DataConfig.model_validate({"split": {"val": 0, "test": 0}}), tmp_path)
    pairs = {(record.image.name, record.mask.name) for record in splits.train.records if record.mask}
    assert pairs == {("a.nrrd", "a.seg.nrrd"), ("b.nrrd", "b.seg.nrrd")}


def test_damaged_files_are_refused_by_name(tmp_path: Path) -> None:
    """Any byte may be damaged: either the file is read, or an ImageError names it."""
    chosen = np.random.default_rng(1)
    whole = save(tmp_path / "whole.nrrd", values()).read_bytes()
    path = tmp_path / "damaged.nrrd"
    refused = 0
    for _ in range(200):
        content = bytearray(whole)
        for place in chosen.integers(0, len(whole), 3):
            content[place] = chosen.integers(0, 256)
        path.write_bytes(content)
        try:
            open_source(path, limits=Limits(bytes=1_000_000)).read()
        except ImageError as error:
            refused += Path(error.where).name == "damaged.nrrd"
            continue
    assert refused > 20


def test_an_nrrd_mask_belongs_to_a_nifti_image_and_the_reverse(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = DIRECTIONS.T, ORIGIN
    nibabel.save(nibabel.Nifti1Image(values(), np.diag([-1.0, -1, 1, 1]) @ affine), tmp_path / "images/a.nii.gz")
    save(tmp_path / "labels/a.seg.nrrd", values(dtype=np.uint8) % 3)
    splits = open_data(DataConfig.model_validate({"split": {"val": 0, "test": 0}}), tmp_path)
    assert len(splits.train) == volume_files.read_header(tmp_path / "images/a.nii.gz").size("axial")[0]
