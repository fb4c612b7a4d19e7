"""Readers and writers in pairs: what is predicted on a source is written on its grid, and read back with equal ids."""

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import rasterio
import tifffile
from affine import Affine
from PIL import Image
from rasterio.control import GroundControlPoint

from pixelwise.errors import ImageError, MaskError
from pixelwise.formats.reading import read_record_image
from pixelwise.formats.records import Record
from pixelwise.grid import Grid
from pixelwise.imageio.images import Limits, read_image, read_with_validity
from pixelwise.imageio.masks import read_mask
from pixelwise.imageio.sources import RasterSource, Source, VolumeSource, open_source
from pixelwise.imageio.volumes import Across, Plane
from pixelwise.imageio.writing import write_prediction
from pixelwise.labels import Labels
from pixelwise.tiles import Window
from pixelwise.types import Prediction

LABELS = Labels(("ground", "field", "wald größer"), ids=(3, 7, 1), ignore_ids=(9,))
SIZE = (37, 53)
NORTH_UP = Affine(0.5, 0, 733601, 0, -0.5, 3725139)
OWN_CRS = "+proj=tmerc +lat_0=48 +lon_0=11.5 +k=1 +x_0=0 +y_0=0 +ellps=GRS80 +units=m"
OBLIQUE = np.array([[1.9, 0.3, 0.1, -10], [-0.3, 2.8, 0.4, 20], [0.05, -0.5, 4.9, 30], [0, 0, 0, 1]])
rng = np.random.default_rng(0)


def predicted(source: Source, labels: Labels = LABELS, gap: bool = True) -> Prediction:
    """Make a random prediction with ignored and, where the source has nodata, invalid pixels."""
    mask = rng.integers(0, labels.num_classes, source.shape).astype(labels.dtype)
    valid = source.read()[1]
    if gap:
        mask[..., 3] = labels.ignore_index
    if valid is not None:
        mask[~valid] = labels.ignore_index
    return Prediction(mask, labels, source.grid, valid=valid)


def raster(name: str, **options: Any) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        Image.fromarray(rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8)).save(folder / name, **options)
        return folder / name

    return make


def geotiff(
    dtype: str = "uint8", bands: int = 3, transform: Affine = NORTH_UP, crs: Any = "EPSG:32616", **profile: Any
) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        values = (rng.random((bands, *SIZE)) * 200 + 1).astype(dtype)
        if profile.get("nodata") is not None:
            values[:, 5:9] = profile["nodata"]
        layout = {"height": SIZE[0], "width": SIZE[1], "count": bands, "dtype": dtype, "crs": crs}
        with rasterio.open(
            folder / "a.tif", "w", driver="GTiff", transform=transform, **layout, **profile
        ) as file:  # fmt: skip
            file.write(values)
        return folder / "a.tif"

    return make


def tiff(folder: Path) -> Path:
    tifffile.imwrite(folder / "a.tif", np.ones((*SIZE, 5), np.float32), photometric="minisblack", planarconfig="contig")
    return folder / "a.tif"


RASTERS = {
    "PNG": raster("a.png"),
    "JPEG": raster("a.jpg"),
    "WebP": raster("a.webp"),
    "turned": raster("b.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"),
    "TIFF": tiff,
    "uint16 TIFF": raster("a.tiff", compression="tiff_lzw"),
}
GEOTIFFS = {
    "UTM": geotiff(),
    "uint16": geotiff("uint16", 1, nodata=0),
    "float32, NaN": geotiff("float32", 2, nodata=float("nan")),
    "float32, -9999": geotiff("float32", 5, nodata=-9999),
    "int16, compressed, big-endian": geotiff("int16", 2, compress="lzw", ENDIANNESS="BIG", interleave="band"),
    "degrees": geotiff(transform=Affine(1e-4, 0, -84.5, 0, -1e-4, 33.6), crs="EPSG:4326"),
    "feet": geotiff(transform=Affine(1, 0, 984000, 0, -1, 205000), crs="EPSG:2263"),
    "own CRS": geotiff(transform=Affine(30, 0, 0, 0, -30, 0), crs=OWN_CRS),
    "rotated": geotiff(transform=NORTH_UP @ Affine.rotation(30) @ Affine.shear(5)),
    "south-up": geotiff(transform=Affine(0.5, 0, 733601, 0, 0.5, 3725139)),
    "no CRS": geotiff(crs=None),
}


@pytest.mark.parametrize("kind", RASTERS)
def test_images_give_png_in_their_size(tmp_path: Path, kind: str) -> None:
    source = open_source(RASTERS[kind](tmp_path))
    assert isinstance(source, RasterSource)
    image, valid = source.read()
    assert valid is None
    assert (image.shape, image.dtype) == ((source.channels, *source.shape), source.dtype)
    assert source.shape == (SIZE[::-1] if kind == "turned" else SIZE)
    assert (source.grid, source.nodata, source.format) == (Grid(), None, {"turned": "JPEG"}.get(kind, kind.split()[-1]))
    prediction = predicted(source)
    path = write_prediction(prediction, tmp_path / "out" / "scene.v2", like=source)
    assert path == tmp_path / "out" / "scene.v2.png"
    np.testing.assert_array_equal(read_mask(path, LABELS)[0], prediction.mask)
    with Image.open(path) as file:
        assert file.mode == "P"
        np.testing.assert_array_equal(np.asarray(file), LABELS.decode(prediction.mask))


@pytest.mark.parametrize("kind", GEOTIFFS)
def test_geotiffs_give_geotiffs_on_their_grid(tmp_path: Path, kind: str) -> None:
    source = open_source(GEOTIFFS[kind](tmp_path))
    assert (source.format, source.shape) == ("GeoTIFF", SIZE)
    image, valid = source.read()
    assert (image.shape, image.dtype) == ((source.channels, *SIZE), source.dtype)
    prediction = predicted(source)
    path = write_prediction(prediction, tmp_path / "out" / "a.png", like=source)
    assert sorted(p.name for p in path.parent.iterdir()) == ["a.tif", "a.tif.aux.xml"]
    with rasterio.open(source.path) as before, rasterio.open(path) as after:
        assert (after.crs, after.transform, after.shape) == (before.crs, before.transform, before.shape)
        assert after.nodata == 9
        ids = after.read(1)
        np.testing.assert_array_equal(ids, LABELS.decode(prediction.mask))
        np.testing.assert_array_equal(after.dataset_mask() > 0, prediction.mask != LABELS.ignore_index)
        if valid is not None:
            assert (ids[~valid] == 9).all()
        assert after.colormap(1)[7][:3] == LABELS.colours[1]
        assert json.loads(after.tags(1)["CLASSES"]) == {"3": "ground", "7": "field", "1": "wald größer"}
        assert after.profile["compress"] == "deflate"
        assert after.block_shapes == [(512, 512)]
    np.testing.assert_array_equal(read_mask(path, LABELS)[0], prediction.mask)
    assert open_source(path).grid == source.grid


def test_points_and_ground_control_points_keep_their_meaning(tmp_path: Path) -> None:
    path = GEOTIFFS["UTM"](tmp_path)
    with rasterio.open(path, "r+") as file:
        file.update_tags(AREA_OR_POINT="Point")
    source = open_source(path)
    written = write_prediction(predicted(source), tmp_path / "p.tif", like=source)
    with rasterio.open(path) as before, rasterio.open(written) as after:
        assert after.tags()["AREA_OR_POINT"] == "Point"
        assert after.transform == before.transform
    assert open_source(written).grid == source.grid
    corners = ((0, 0), (0, 53), (37, 0), (37, 53))
    points = [GroundControlPoint(row=r, col=c, x=c + 0.1 * r, y=-r, z=0) for r, c in corners]
    with rasterio.open(
        tmp_path / "g.tif",
        "w",
        driver="GTiff",
        width=53,
        height=37,
        count=1,
        dtype="uint8",
        gcps=points,
        crs="EPSG:4326",
    ) as file:
        file.write(np.ones((1, *SIZE), np.uint8))
    source = open_source(tmp_path / "g.tif")
    written = write_prediction(predicted(source), tmp_path / "g_out.tif", like=source)
    with rasterio.open(tmp_path / "g.tif") as before, rasterio.open(written) as after:
        assert [p.asdict() | {"id": ""} for p in after.gcps[0]] == [p.asdict() | {"id": ""} for p in before.gcps[0]]
        assert after.gcps[1] == before.gcps[1]


@pytest.mark.parametrize(
    ("labels", "ignore_id", "dtype"),
    [
        (Labels(("a", "b"), ignore_ids=()), 255, "uint8"),
        (Labels(("a", "b"), ids=(0, 255)), 254, "uint8"),
        (Labels(tuple(map(str, range(256)))), 65535, "uint16"),
        (Labels(("a", "b"), ids=(0, 300)), 255, "uint16"),
        (Labels(("a", "b"), ids=(0, 65535), ignore_ids=()), 65534, "uint16"),
        (Labels(("a", "b"), ids=(0, 70000)), 255, "uint32"),
    ],
)
def test_ignored_pixels_get_an_id_that_is_no_class(tmp_path: Path, labels: Labels, ignore_id: int, dtype: str) -> None:
    source = open_source(GEOTIFFS["UTM"](tmp_path))
    prediction = predicted(source, labels)
    valid = np.ones(SIZE, bool)
    valid[0, 0] = False
    prediction = Prediction(prediction.mask, labels, source.grid, valid=valid)
    with rasterio.open(write_prediction(prediction, tmp_path / "out.tif", source)) as file:
        ids = file.read(1)
        assert (file.nodata, ids.dtype) == (ignore_id, dtype)
    counted = (prediction.mask != labels.ignore_index) & valid
    assert (ids[~counted] == ignore_id).all()
    np.testing.assert_array_equal(ids[counted], np.array(labels.ids)[prediction.mask[counted]])
    if dtype == "uint32":
        with pytest.raises(MaskError, match="expected ids that fit in 16 bits, found 70000"):
            write_prediction(prediction, tmp_path / "out.png")
    else:
        with Image.open(write_prediction(prediction, tmp_path / "out")) as file:
            np.testing.assert_array_equal(np.asarray(file), ids)


def volume(
    folder: Path, shape: tuple[int, ...] = (6, 7, 4), name: str = "v.nii.gz", affine: np.ndarray = OBLIQUE, **how: Any
) -> Path:
    values = rng.integers(-1000, 1000, shape).astype(how.get("dtype", np.int16))
    image = how.get("kind", nibabel.Nifti1Image)(values, affine, how.get("header"))
    image.header.set_xyzt_units(how.get("units", "mm"), "sec" if len(shape) > 3 else None)
    image.set_sform(affine, how.get("sform", 1))
    quaternion = affine.copy()
    quaternion[:3, 3] += how.get("apart", 0)
    image.set_qform(quaternion, how.get("qform", 2))
    nibabel.save(image, folder / name)
    return folder / name


FLIPPED = np.array([[0, 0, -5.0, 3], [2.0, 0, 0, -9], [0, -3.0, 0, 4], [0, 0, 0, 1]])
VOLUMES: dict[str, dict[str, Any]] = {
    "oblique": {},
    "exchanged and reversed axes": {"affine": FLIPPED},
    "4-D": {"shape": (6, 7, 4, 2)},
    "one slice": {"shape": (6, 7, 1)},
    "not compressed": {"name": "v.nii"},
    "two transforms": {"apart": 2.5, "sform": 4, "qform": 1},
    "qform only": {"sform": 0, "qform": 1},
    "metres": {"affine": OBLIQUE / 1000 + np.diag([0, 0, 0, 0.999]), "units": "meter"},
    "big-endian": {"header": nibabel.Nifti1Header(endianness=">"), "name": "v.nii"},
    "NIfTI-2": {"kind": nibabel.Nifti2Image},
    "scaled floats": {"dtype": np.float32},
}


@pytest.mark.parametrize("kind", VOLUMES)
def test_volumes_give_volumes_with_the_same_affine(tmp_path: Path, kind: str) -> None:
    source = open_source(volume(tmp_path, **VOLUMES[kind]))
    assert isinstance(source, VolumeSource)
    image, valid = source.read()
    assert valid is None
    assert (image.shape, image.dtype) == ((source.channels, *source.shape), source.dtype)
    prediction = predicted(source)
    written = write_prediction(prediction, tmp_path / "out" / "mask.png", like=source)
    assert written.name == "mask" + "".join(source.path.suffixes)
    before, after = nibabel.load(source.path), nibabel.load(written)
    for field in ("sform_code", "qform_code", "srow_x", "srow_y", "srow_z", "quatern_b", "quatern_c", "quatern_d",
                  "qoffset_x", "qoffset_y", "qoffset_z"):  # fmt: skip
        np.testing.assert_array_equal(after.header[field], before.header[field], field)
    np.testing.assert_array_equal(after.header["pixdim"][:4], before.header["pixdim"][:4])
    np.testing.assert_array_equal(after.affine, before.affine)
    assert after.header.get_xyzt_units()[0] == before.header.get_xyzt_units()[0]
    assert (after.shape, after.get_data_dtype()) == (before.shape[:3], np.uint8)
    # The classes are at the voxels that the predicted slices were made of.
    ids = np.asarray(after.dataobj)
    np.testing.assert_array_equal(ids, source.in_file_axes(LABELS.decode(prediction.mask)))
    stored = np.asarray(before.dataobj).reshape(*before.shape[:3], -1)
    for label in LABELS.ids:
        index = LABELS.ids.index(label)
        expected = sorted(image[0][prediction.mask == index].tolist())
        assert sorted(stored[..., 0][ids == label].tolist()) == expected
    back = open_source(written, across=source.across)
    np.testing.assert_array_equal(back.read()[0][0], LABELS.decode(prediction.mask))
    assert back.grid == source.grid


@pytest.mark.parametrize("across", ["axial", "coronal", "sagittal", None])
def test_slices_are_those_that_training_reads(tmp_path: Path, across: Across | None) -> None:
    source = open_source(volume(tmp_path, (6, 7, 4, 2)), across)
    assert isinstance(source, VolumeSource)
    assert across is not None or source.across == "axial"
    image = source.read()[0]
    slices = list(source.slices())
    assert [index for index, _, _ in slices] == list(range(source.shape[0]))
    for index, piece, grid in slices:
        read, read_grid, _ = read_record_image(Record("v", source.path, None, plane=Plane(index, source.across)))
        np.testing.assert_array_equal(piece, read)
        np.testing.assert_array_equal(piece, image[:, index])
        assert grid == read_grid
    assert (source.grid.ndim, source.grid.unit) == (3, "mm")


@pytest.mark.parametrize("kind", ["PNG", "float32, NaN", "volume"])
def test_a_window_is_the_slice_of_the_whole(tmp_path: Path, kind: str) -> None:
    path = volume(tmp_path, (6, 7, 4, 2)) if kind == "volume" else (RASTERS | GEOTIFFS)[kind](tmp_path)
    source = open_source(path)
    image, valid = source.read()
    for start in (0, 2):
        window = Window((start,) * len(source.shape), tuple(size - 1 for size in source.shape))
        piece, inside = source.read(window)
        np.testing.assert_array_equal(piece, image[:, *window.slices])
        assert piece.flags.c_contiguous
        assert (inside is None) == (valid is None)
        if valid is not None and inside is not None:
            np.testing.assert_array_equal(inside, valid[window.slices])
    if valid is not None:
        assert source.read(Window((0, 0), (5, 5)))[1] is None
    for stop in (0, 1000):
        with pytest.raises(ValueError, match="expected a window inside"):
            source.read(Window((0,) * len(source.shape), (stop,) * len(source.shape)))


def test_invalid_pixels_of_a_source_are_those_of_the_reader(tmp_path: Path) -> None:
    source = open_source(GEOTIFFS["uint16"](tmp_path))
    np.testing.assert_array_equal(source.read()[1], read_with_validity(source.path)[2])
    assert source.nodata == 0
    assert source.grid == read_image(source.path)[1]


def test_opening_reads_no_pixels_and_reading_keeps_the_limits(tmp_path: Path) -> None:
    path = RASTERS["PNG"](tmp_path)
    whole = path.read_bytes()
    source = open_source(path, limits=Limits(pixels=100))
    with pytest.raises(ImageError, match="expected at most 100 pixels"):
        source.read()
    with pytest.raises(ImageError, match="expected at most 10 pixels per slice"):
        open_source(volume(tmp_path), limits=Limits(pixels=10)).read()
    path.write_bytes(whole[:-40])
    with pytest.raises(ImageError, match="truncated"):
        open_source(path)
    for name in ("no.png", "no.nii.gz"):
        with pytest.raises(ImageError, match="found nothing"):
            open_source(tmp_path / name)


def test_a_mask_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    source = open_source(RASTERS["PNG"](tmp_path))
    small = Prediction(np.zeros((5, 5), np.uint8), LABELS, Grid())
    with pytest.raises(MaskError, match=r"expected a mask of shape \(37, 53\), as a\.png has, found shape \(5, 5\)"):
        write_prediction(small, tmp_path / "out.png", source)
    unknown = Prediction(np.full(SIZE, 5, np.uint8), LABELS, Grid())
    with pytest.raises(MaskError, match="expected class indices 0–2 or 255, found 5 in 1961 pixels"):
        write_prediction(unknown, tmp_path / "out.png", source)
    assert not (tmp_path / "out.png").exists()


def test_a_missing_package_is_named_with_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = open_source(GEOTIFFS["UTM"](tmp_path))
    prediction = predicted(source)

    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(ImageError, match=r"expected the package rasterio.* pip install 'pixelwise\[geo\]'"):
        write_prediction(prediction, tmp_path / "out.tif", source)
