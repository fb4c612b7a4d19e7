"""Missing data that no file declares, and nodata values of masks."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import numpy as np
import pytest
import tifffile
from tests.checking.drawn import findings, halves, kinds, of_kind, save

import pixelwise
from pixelwise.checking import Finding
from pixelwise.checking.far_values import far_values

FLT_MAX = float(np.finfo(np.float32).max)
# Measurements as they occur: lowest and highest value.
RANGES = {
    "fractions": (0, 1),
    "elevation": (-400, 8800),
    "decibel": (-35, 12),
    "reflectance": (-2000, 16000),
    "kelvin": (180, 330),
    "index": (-1, 1),
}


def measured(low: float, high: float, shape: tuple[int, ...] = (2, 64, 64), seed: int = 0) -> np.ndarray:
    """Draw smooth values over a range, with some at both ends."""
    rng = np.random.default_rng(seed)
    x = np.linspace(0, 3, shape[-1])
    waves = np.sin(x + x[:, None]) + rng.normal(0, 0.05, shape)
    waves = (waves - waves.min()) / np.ptp(waves)
    return low + (high - low) * waves


def values_in(image: np.ndarray) -> list[float]:
    return [far.value for far in far_values(image)]


@pytest.mark.parametrize("dtype", ["int16", "int32", "float32", "float64"])
@pytest.mark.parametrize("what", RANGES)
@pytest.mark.parametrize("share", [0.01, 0.2, 0.9])
def test_marks_of_missing_data_are_found(dtype: str, what: str, share: float) -> None:
    marks = [-9999, -32768, -32767, *([-99999, -(2**31)] if dtype != "int16" else [])]
    marks += [-FLT_MAX, FLT_MAX, -3.4e38, 1e20, -1e34, 9.969209968386869e36] if dtype.startswith("float") else []
    for mark, bands in itertools.product(marks, (1, 3)):
        image = measured(*RANGES[what], (bands, 64, 64)).astype(dtype)
        missing = np.arange(64 * 64).reshape(64, 64) < share * 64 * 64
        image[:, missing] = mark
        (found,) = far_values(image)
        assert found.value == np.dtype(dtype).type(mark)
        assert found.pixels == missing.sum()
        rest = image[:, ~missing]
        assert (found.low, found.high) == (rest.min(), rest.max())
        np.testing.assert_allclose(found.spread, rest.astype(np.float64).std(axis=1).max(), rtol=1e-6)
        with np.errstate(over="ignore"):
            expected = image.astype(np.longdouble).reshape(bands, -1).std(axis=1).max()
        np.testing.assert_allclose(found.spread_with, float(expected), rtol=1e-6)
        assert not far_values(image, ~missing), "declared"


def test_any_far_value_in_many_pixels_is_found() -> None:
    for mark in (-500.0, 1234.5, 777.0):
        image = measured(0, 20).astype(np.float32)
        image[0, :3] = mark
        assert values_in(image) == [mark]
        image = measured(0, 20).astype(np.float32)
        image[0, 0, :3] = mark
        assert values_in(image) == [], "three outliers may be defects of the sensor"
    image = measured(0, 10000).astype(np.uint16)
    image[:, :9] = 65535
    assert values_in(image) == [65535]


def test_two_marks_in_one_image_are_found() -> None:
    for pair in ((-9999, -32768), (-9999, 1e20), (-FLT_MAX, FLT_MAX), (-9999, 9.969209968386869e36)):
        image = measured(0, 4).astype(np.float32)
        image[:, :5] = pair[0]
        image[:, 10:12] = pair[1]
        assert values_in(image) == [np.float32(mark) for mark in pair], "the most frequent first"


def test_marks_in_some_bands_are_found() -> None:
    image = measured(0, 4, (3, 64, 64)).astype(np.float32)
    image[1, :5] = -9999
    image[2, 3:8] = -9999
    (found,) = far_values(image)
    assert (found.value, found.pixels) == (-9999, 8 * 64)


def _ct(padding: int) -> np.ndarray:
    """Draw a slice: air, tissue, bone, and padding outside of the field of view."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[-1:1:128j, -1:1:128j]
    radius = np.hypot(x, y)
    values = np.where(radius < 0.6, 40.0, -1000.0) + rng.normal(0, 20, radius.shape)
    values[radius < 0.2] += 900
    values = np.clip(values, -1024, 3071)
    values[radius > 1] = padding
    return values[None].astype(np.int16)


def _bordered(dtype: str, low: float, high: float, border: float) -> np.ndarray:
    image = measured(low, high, (3, 64, 64)).astype(dtype)
    image[:, :8] = image[:, :, :8] = border
    return image


def _saturated(top: int) -> np.ndarray:
    """Draw bright spots on a dark ground that exceed the range of the sensor."""
    y, x = np.mgrid[:64, :64]
    spots = sum(2e5 * np.exp(-((y - r) ** 2 + (x - c) ** 2) / 18) for r, c in ((10, 20), (40, 50), (30, 8)))
    noise = np.random.default_rng(0).normal(600, 30, (64, 64))
    return np.minimum(spots + noise, top)[None].astype(np.uint16)


def _hot_pixels() -> np.ndarray:
    image = measured(100, 900, (1, 64, 64)).astype(np.uint16)
    image[0, [3, 40], [50, 7]] = 65535
    return image


INNOCENT = {
    "black border, 8 bits": lambda: _bordered("uint8", 180, 250, 0),
    "white paper, 8 bits": lambda: _bordered("uint8", 5, 20, 255),
    "black border, 16 bits": lambda: _bordered("uint16", 9000, 12000, 0),
    "white border, 16 bits": lambda: _bordered("uint16", 20000, 60000, 65535),
    "black border, floats": lambda: _bordered("float32", 0.4, 0.6, 0),
    "air": lambda: _ct(-1024),
    "padding -1024": lambda: _ct(-1024),
    "padding -2000": lambda: _ct(-2000),
    "padding -3024": lambda: _ct(-3024),
    "saturated spots": lambda: _saturated(65535),
    "saturated spots, 12 bits": lambda: _saturated(4095),
    "hot pixels": _hot_pixels,
    "a drawing": lambda: np.where(halves() > 0, 65535, 0)[None].astype(np.uint16),
    "a drawing of floats": lambda: halves()[None].astype(np.float32),
    "ids": lambda: np.random.default_rng(0).integers(0, 9, (1, 64, 64)).astype(np.int32) * 1000,
    "sea level": lambda: np.maximum(measured(-3000, 4000), 0).astype(np.float32),
    "standardised": lambda: np.clip(measured(-5, 5), -3, 3).astype(np.float32),
    "long tail": lambda: np.random.default_rng(0).lognormal(0, 3, (1, 64, 64)).astype(np.float32),
    "densities": lambda: 10 ** measured(18, 21),
    "a window of the range": lambda: measured(-9999, 9999).astype(np.int16),
    "the whole range": lambda: np.arange(-(2**15), 2**15).reshape(1, 256, 256).astype(np.int16),
    "constant": lambda: np.full((1, 64, 64), -9999, np.float32),
}


@pytest.mark.parametrize("name", INNOCENT)
def test_no_false_alarms(name: str) -> None:
    found = values_in(INNOCENT[name]())
    assert found == ([-9999] if name == "constant" else [])


# Findings -----------------------------------------------------------------------------------------------------------------


def draw(root: Path, mark: float, dtype: str = "float32", high: float = 4) -> Path:
    """Draw images with a strip of `mark`, of which the mask knows nothing."""
    for number, (split, count) in enumerate((("train", 6), ("val", 4))):
        for k in range(count):
            image = measured(0, high, (64, 64), 10 * number + k)
            image[:10] = mark
            path = root / split / "images" / f"{split}{k}.tif"
            path.parent.mkdir(parents=True, exist_ok=True)
            tifffile.imwrite(path, image.astype(dtype))
            save(root / split / "masks" / f"{split}{k}.png", halves(20 + 3 * k))
    (root / "labels.yaml").write_text("names: [ground, road]\n")
    return root


def overrides_in(fix: str) -> list[str]:
    return [text.strip("'") for text in re.findall(r"--set ('[^']+'|\S+?)(?=[.;,]? |[.;,]?$)", fix)]


@pytest.mark.parametrize("mark", [-9999, -32768, -FLT_MAX, 1e20, 9.969209968386869e36])
def test_unmarked_nodata_is_an_error_with_an_option_that_fixes_it(tmp_path: Path, mark: float) -> None:
    found = of_kind(list(pixelwise.check(draw(tmp_path, mark)).findings), "unmarked-nodata")
    assert (found.severity, found.count, found.of) == ("error", 10, 10)
    assert (
        "in 16 % of the pixels of 10 images looks like missing data: all other values are between 0 and 4" in found.what
    )
    assert found.where[0].endswith("train0.tif")
    (option,) = overrides_in(found.fix)
    assert option.startswith("data.nodata=")
    fixed = pixelwise.check(tmp_path, overrides=[option])
    assert "unmarked-nodata" not in kinds(list(fixed.findings))
    assert not fixed.blocks
    assert fixed.ignored_share == pytest.approx(10 / 64, abs=1e-3)


def test_a_mark_near_the_data_is_a_warning(tmp_path: Path) -> None:
    found = of_kind(list(pixelwise.check(draw(tmp_path, -9999, "int16", high=15000)).findings), "unmarked-nodata")
    assert found.severity == "warning"


def test_a_second_mark_cannot_be_declared_by_the_option(tmp_path: Path) -> None:
    root = draw(tmp_path, -9999)
    for path in root.glob("*/images/*.tif"):
        image = tifffile.imread(path)
        image[20:22] = 1e20
        tifffile.imwrite(path, image)
    both = pixelwise.check(root).findings
    assert sum(finding.kind == "unmarked-nodata" for finding in both) == 2
    left = of_kind(list(pixelwise.check(root, overrides=["data.nodata=-9999"]).findings), "unmarked-nodata")
    assert left.fix.startswith("data.nodata is -9999, and takes one value only")


def test_nothing_is_found_in_a_good_data_set(folder: Path) -> None:
    assert kinds(findings(folder)) == []


# Nodata of masks ----------------------------------------------------------------------------------------------------------


def mask_findings(root: Path, nodata: int, values: tuple[int, ...], *overrides: str) -> list[Finding]:
    draw(root, 2)
    for path in root.glob("*/masks/*.png"):
        path.unlink()
        mask = np.resize(np.repeat(values, 8), (64, 64)).astype(np.uint8)
        tifffile.imwrite(path.with_suffix(".tif"), mask, extratags=[(42113, "s", 0, str(nodata), True)])
    return list(pixelwise.check(root, overrides=overrides).findings)


@pytest.mark.parametrize("listed", [True, False])
def test_the_nodata_value_of_masks_is_reported_with_the_mapping_that_ignores_it(tmp_path: Path, listed: bool) -> None:
    draw(tmp_path, 2)
    found_list = mask_findings(tmp_path, 7, (0, 1, 7))
    if listed:
        (tmp_path / "labels.yaml").unlink()
        found_list = list(pixelwise.check(tmp_path).findings)
    found = of_kind(found_list, "mask-nodata")
    assert (found.severity, found.count) == ("notice", 10)
    expected = "read as the class 'class_7'" if listed else "not defined by the labels"
    assert found.what == f"10 masks define 7 as nodata; in masks it is {expected}"
    (option,) = overrides_in(found.fix)
    assert option == "data.mask_values={0: 0, 1: 1, 7: 255, 255: 255}"
    fixed = pixelwise.check(tmp_path, overrides=[option])
    assert not fixed.blocks
    assert len(fixed.classes) == 2
    assert fixed.ignored_share == pytest.approx(1 / 3, abs=0.01)
    assert "mask-nodata" not in kinds(list(fixed.findings))


def test_a_nodata_value_that_does_no_harm_is_not_reported(tmp_path: Path) -> None:
    assert "mask-nodata" not in kinds(mask_findings(tmp_path / "a", 255, (0, 1, 255))), "ignored anyway"
    assert "mask-nodata" not in kinds(mask_findings(tmp_path / "b", 7, (0, 1))), "in no pixel"
    assert "mask-nodata" not in kinds(mask_findings(tmp_path / "c", -9999, (0, 1))), "in no pixel"
    assert "mask-nodata" in kinds(mask_findings(tmp_path / "d", 0, (0, 1)))
