"""Adjoining rasters as one image, and VRTs that are read without GDAL."""

from __future__ import annotations

import http.server
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from rasterio import Affine
from tests.inference.backends import predictor_of

from pixelwise.api.predicting import predict_files
from pixelwise.errors import GridMismatchError, ImageError
from pixelwise.imageio.mosaic import files_of_vrt, is_vrt, open_mosaic
from pixelwise.labels import Labels
from pixelwise.tiles import Window

PLACES = (
    Affine(0.5, 0, 500_000, 0, -0.5, 5_600_000),
    Affine(0.5, 0.1, 500_000, 0.1, -0.5, 5_600_000),
    Affine(1, 0, 9, 0, 1, 5),
)


def write(path: Path, values: NDArray[Any], place: Affine, top: int = 0, left: int = 0, **profile: Any) -> Path:
    moved = place @ Affine.translation(left, top)
    options = {"crs": "EPSG:32632", "transform": moved} | profile
    count, height, width = values.shape
    with rasterio.open(path, "w", "GTiff", width, height, count, dtype=values.dtype, **options) as file:
        file.write(values)
    return path


def whole(height: int = 60, width: int = 80) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(1, 250, (3, height, width)).astype(np.uint8)


@settings(max_examples=25, deadline=None)
@given(
    rows=st.lists(st.integers(1, 59), max_size=3, unique=True),
    columns=st.lists(st.integers(1, 79), max_size=3, unique=True),
    overlap=st.integers(0, 5),
    place=st.sampled_from(PLACES),
    seed=st.integers(0, 99),
)
def test_a_mosaic_is_the_image_that_was_cut(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[int],
    columns: list[int],
    overlap: int,
    place: Affine,
    seed: int,
) -> None:
    folder, image = tmp_path_factory.mktemp("mosaic"), whole()
    tops, lefts = [0, *sorted(rows)], [0, *sorted(columns)]
    files = []
    for top, bottom in zip(tops, [*tops[1:], 60], strict=True):
        for left, right in zip(lefts, [*lefts[1:], 80], strict=True):
            part = image[:, top : bottom + overlap, left : right + overlap]
            files.append(write(folder / f"{top}-{left}.tif", part, place, top, left))
    np.random.default_rng(seed).shuffle(files)  # type: ignore[arg-type]
    mosaic = open_mosaic(folder, files)
    assert mosaic.shape == (60, 80)
    found, valid = mosaic.read()
    assert valid is None
    np.testing.assert_array_equal(found, image)
    window = Window((7, 11), (44, 63))
    np.testing.assert_array_equal(mosaic.read(window)[0], image[:, *window.slices])
    with rasterio.open(write(folder / "whole.tif", image, place)) as file:
        x, y = file.xy(0, 0)
    np.testing.assert_allclose(mosaic.grid.to_world(np.zeros((1, 2)))[0], (x, y))


def test_pixels_without_data_are_taken_from_another_file_or_are_invalid(tmp_path: Path) -> None:
    first, second = np.full((1, 4, 6), 5, np.uint8), np.full((1, 4, 6), 7, np.uint8)
    first[:, 0, 3:] = 0
    files = [
        write(tmp_path / "a.tif", first, PLACES[0], nodata=0),
        write(tmp_path / "b.tif", second, PLACES[0], left=4, nodata=0),
        write(tmp_path / "c.tif", second, PLACES[0], top=6, left=4, nodata=0),
    ]
    image, valid = open_mosaic(tmp_path, files).read()
    assert image.shape == (1, 10, 10)
    assert valid is not None
    assert image[0, 0].tolist() == [5, 5, 5, 0, 7, 7, 7, 7, 7, 7]
    assert valid[0].tolist() == [True] * 3 + [False] + [True] * 6
    assert not valid[4:6].any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"crs": "EPSG:32633"}, "EPSG:32633"),
        ({"transform": Affine(0.5, 0, 500_000.2, 0, -0.5, 5_600_000)}, "0.400 columns away"),
        ({"transform": Affine(0.51, 0, 500_000, 0, -0.5, 5_600_000)}, "spacing"),
        ({"transform": PLACES[1]}, "spacing"),
    ],
)
def test_files_on_other_grids_are_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    files = [write(tmp_path / "a.tif", whole(), PLACES[0]), write(tmp_path / "b.tif", whole(), PLACES[0], **change)]
    with pytest.raises(GridMismatchError, match=r"expected pixels on the grid of a\.tif") as error:
        open_mosaic(tmp_path, files)
    assert message in str(error.value)


@pytest.mark.parametrize("values", [whole()[:1], whole().astype(np.uint16)])
def test_files_of_another_kind_are_refused(tmp_path: Path, values: NDArray[Any]) -> None:
    files = [write(tmp_path / "a.tif", whole(), PLACES[0]), write(tmp_path / "b.tif", values, PLACES[0])]
    with pytest.raises(ImageError, match=r"expected 3 bands of uint8, as a.tif has"):
        open_mosaic(tmp_path, files)


def bright(images: NDArray[Any]) -> NDArray[Any]:
    values = np.asarray(images, np.float32)[:, :1]
    return np.concatenate([np.full_like(values, 100), values], 1)


def vrt(path: Path, *names: str, relative: int = 1, more: str = "") -> Path:
    bands = "".join(
        f'<SimpleSource><SourceFilename relativeToVRT="{relative}">{name}</SourceFilename><SourceBand>1</SourceBand></SimpleSource>'
        for name in names
    )
    path.write_text(
        f'<VRTDataset rasterXSize="80" rasterYSize="60"><VRTRasterBand dataType="Byte" band="1">{bands}</VRTRasterBand>{more}</VRTDataset>'
    )
    return path


@pytest.mark.parametrize("by_vrt", [False, True])
def test_a_mosaic_is_predicted_as_one_scene(tmp_path: Path, by_vrt: bool) -> None:
    image, folder = whole(), tmp_path / "scenes"
    folder.mkdir()
    for left in (0, 40):
        write(folder / f"{left}.tif", image[..., left : left + 40], PLACES[1], left=left)
    predictor = predictor_of(bright, Labels(("dark", "bright")), channels=3, tile=(32, 32))
    source = vrt(tmp_path / "all.vrt", "scenes/40.tif", "scenes/0.tif") if by_vrt else folder
    (entry,) = predict_files(predictor, [str(source)], tmp_path / "out", mosaic=True).images
    assert entry["mask"] == ("masks/all.tif" if by_vrt else "masks/scenes.tif")
    with rasterio.open(tmp_path / "out" / entry["mask"]) as file:
        np.testing.assert_array_equal(file.read(1), image[0] > 100)
        assert file.transform.almost_equals(PLACES[1])
    plain = predict_files(predictor, [str(folder)], tmp_path / "plain")
    assert len(plain.images) == 2


def test_a_vrt_is_no_image_without_the_option(tmp_path: Path) -> None:
    write(tmp_path / "a.tif", whole(), PLACES[0])
    predictor = predictor_of(bright, Labels(("dark", "bright")), channels=3)
    result = predict_files(predictor, [str(vrt(tmp_path / "all.vrt", "a.tif"))], tmp_path / "out")
    assert not result.images
    assert len(result.failed) == 1


@pytest.mark.parametrize(
    ("name", "more", "message"),
    [
        ("/vsicurl/http://127.0.0.1:{port}/a.tif", "", "expected local files"),
        ("http://127.0.0.1:{port}/a.tif", "", "expected local files"),
        ("missing.tif", "", "expected local files, found missing.tif"),
        ("", "", "expected local files, found an empty name"),
        ("a.tif", "<GDALWarpOptions><SourceDataset>a.tif</SourceDataset></GDALWarpOptions>", "found GDALWarpOptions"),
        ("a.tif", '<VRTRasterBand subClass="VRTDerivedRasterBand"/>', "a derived or warped data set"),
        ("a.tif", "<PixelFunctionCode>import os</PixelFunctionCode>", "found PixelFunctionCode"),
    ],
)
def test_a_vrt_that_does_more_is_refused_and_nothing_is_fetched(
    tmp_path: Path, name: str, more: str, message: str
) -> None:
    requests: list[str] = []

    class Canary(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requests.append(self.path)

        do_HEAD = do_GET  # noqa: N815

    server = http.server.HTTPServer(("127.0.0.1", 0), Canary)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    write(tmp_path / "a.tif", whole(), PLACES[0])
    path = vrt(tmp_path / "all.vrt", name.format(port=server.server_port), more=more)
    assert is_vrt(path)
    with pytest.raises(ImageError, match=message):
        files_of_vrt(path)
    server.shutdown()
    server.server_close()
    assert requests == []


def test_entities_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "all.vrt"
    path.write_text('<VRTDataset><!DOCTYPE x [<!ENTITY a "b">]></VRTDataset>')
    with pytest.raises(ImageError, match="expected a plain VRT"):
        files_of_vrt(path)
