"""Names of bands in GeoTIFFs as GDAL writes them, and bands in another order."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from rasterio.transform import Affine

from pixelwise.errors import ImageError
from pixelwise.imageio.band_names import distinct, other_names, require_band_order
from pixelwise.imageio.images import read_header
from pixelwise.imageio.mosaic import open_mosaic
from pixelwise.imageio.sources import open_source

PLACE = {"transform": Affine(10, 0, 500_000, 0, -10, 5_600_000), "crs": "EPSG:32632"}


def write(path: Path, names: tuple[str, ...] | None, left: int = 0, **options: object) -> Path:
    place = PLACE | {"transform": PLACE["transform"] @ Affine.translation(left, 0)}
    count = len(names or "abc")
    options = {"photometric": "MINISBLACK"} | options
    with rasterio.open(path, "w", "GTiff", 8, 8, count, dtype="uint8", **place, **options) as file:
        for band in range(count):
            file.write(np.full((8, 8), 50 * band + left, np.uint8), band + 1)
        if names is not None:
            file.descriptions = names
    return path


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("B02", "B03", "B04", "B08"), ("B02", "B03", "B04", "B08")),
        (("blue & \"green\"", "<red>", "naïve"), ("blue & \"green\"", "<red>", "naïve")),
        (("red", "Red", "green"), ()),
        (("red", "", "green"), ()),
        (None, ()),
    ],
)  # fmt: skip
def test_names_are_those_of_gdal(tmp_path: Path, names: tuple[str, ...] | None, expected: tuple[str, ...]) -> None:
    path = write(tmp_path / "a.tif", names)
    assert read_header(path).names == open_source(path).names == expected  # type: ignore[union-attr]


def test_alpha_has_no_name(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", ("red", "green", "blue", "opacity"), photometric="RGB", alpha="unspecified")
    with rasterio.open(path, "r+") as file:
        file.colorinterp = [*file.colorinterp[:3], rasterio.enums.ColorInterp.alpha]
    assert read_header(path).names == ("red", "green", "blue")


@given(st.permutations(["blue", "green", "red", "nir", "swir"]))
def test_the_advice_restores_the_order(names: list[str]) -> None:
    expected = ["Blue", "green", "red", "NIR", "swir"]
    same = [name.casefold() for name in expected] == names
    if same:
        require_band_order("scenes/a.tif", names, expected, "in training")
        return
    with pytest.raises(
        ImageError, match="expected the bands Blue, green, red, NIR, swir, in this order, as in training"
    ) as caught:
        require_band_order("scenes/a.tif", names, expected, "in training")
    order = [int(number) for number in re.findall(r"-b (\d+)", str(caught.value))]
    assert [names[number - 1] for number in order] == [name.casefold() for name in expected]
    assert str(caught.value).endswith("a.tif reordered.tif")


def test_unknown_and_other_names_have_no_order() -> None:
    for found, expected in (((), ("a", "b")), (("a", "b"), ()), (("a", "c"), ("b", "a")), (("a",), ("a", "b"))):
        require_band_order("a.tif", found, expected, "in training")
    assert [other_names(*pair) for pair in ((("a", "c"), ("b", "a")), (("B", "a"), ("a", "b")), ((), ("a",)))] == [
        True,
        False,
        False,
    ]
    assert distinct(("a", "b")) == ("a", "b")
    assert distinct(()) == ()


def test_a_mosaic_has_one_order(tmp_path: Path) -> None:
    files = [write(tmp_path / "a.tif", ("x", "y")), write(tmp_path / "b.tif", ("x", "y"), left=8)]
    assert open_mosaic(tmp_path, files).names == ("x", "y")
    files.append(write(tmp_path / "c.tif", ("y", "x"), left=16))
    with pytest.raises(ImageError, match=r"c\.tif: expected the bands x, y, in this order, as in a\.tif, found y, x"):
        open_mosaic(tmp_path, files)
