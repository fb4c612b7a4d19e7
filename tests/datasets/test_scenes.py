"""Large images are read as windows, and split by blocks with a buffer between them."""

from __future__ import annotations

import itertools
import json
import math
import resource
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import tifffile
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from rasterio.features import rasterize
from rasterio.transform import Affine

from pixelwise.config import DataConfig, SplitConfig
from pixelwise.datasets import dataset as datasets
from pixelwise.datasets import scenes
from pixelwise.datasets.convert import convert
from pixelwise.datasets.dataset import DataSplits, _divide, open_data
from pixelwise.datasets.scenes import divide_scenes, resolved_blocks
from pixelwise.errors import ConfigError, DataError
from pixelwise.formats import FORMATS, geojson
from pixelwise.formats.records import Record
from pixelwise.grid import Grid
from pixelwise.imageio import images, pieces
from pixelwise.imageio.raster import Header

NORTH_UP = Affine(0.5, 0, 500_000, 0, -0.5, 5_600_000)
SOUTH_UP = Affine(0.5, 0, 500_000, 0, 0.5, 5_600_000)
ROTATED = Affine(0.5, 0.1, 500_000, 0.1, -0.5, 5_600_000)
SIZE = (300, 260)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take small images for scenes."""
    for module in (datasets, geojson, images, scenes):
        monkeypatch.setattr(module, "LARGE", 10_000)
    monkeypatch.setattr(scenes, "SIDE", 32)
    monkeypatch.setattr(scenes, "_SMALLEST", 4)
    monkeypatch.setattr(scenes, "_BUFFER", 16)


def raster(path: Path, values: NDArray[Any], transform: Affine | None = NORTH_UP, **profile: Any) -> None:
    """Write bands (C, H, W) as a tiled TIFF, with a georeference if there is a transform."""
    path.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = values.shape
    if transform is None:
        bands = values if count > 1 else values[0]
        layout: Any = {"photometric": "minisblack", "planarconfig": "separate" if count > 1 else None}
        tifffile.imwrite(path, bands, tile=(16, 16), compression="zlib", **layout)
        return
    place = {"transform": transform, "crs": "EPSG:32632"}
    tiles = {"tiled": True, "blockxsize": 16, "blockysize": 16, "compress": "deflate"}
    options = place | tiles | profile
    with rasterio.open(path, "w", "GTiff", width, height, count, dtype=values.dtype, **options) as file:
        file.write(values)


def drawn(seed: int = 0, size: tuple[int, int] = SIZE) -> tuple[NDArray[Any], NDArray[Any]]:
    """Draw an image (3, H, W) and a mask (1, H, W) of ids 0, 1, 2, with ignored pixels."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 3, (-(-size[0] // 20), -(-size[1] // 20))).astype(np.uint8)
    mask = coarse.repeat(20, 0).repeat(20, 1)[: size[0], : size[1]].copy()
    mask[:7, :9] = 255
    return rng.integers(0, 255, (3, *size)).astype(np.uint8), mask[np.newaxis]


def pair(root: Path, name: str = "a", seed: int = 0, size: tuple[int, int] = SIZE, **profile: Any) -> Path:
    image, mask = drawn(seed, size)
    raster(root / "images" / f"{name}.tif", image, **profile)
    raster(root / "masks" / f"{name}.tif", mask, **profile)
    return root


def opened(root: Path, split: dict[str, Any] | None = None, **config: Any) -> DataSplits:
    return open_data(DataConfig.model_validate({"split": split or {"val": 0}, **config}), root)


def joined(splits: DataSplits, size: tuple[int, int] = SIZE) -> NDArray[np.int64]:
    """Return the mask (H, W) that the windows of all splits make, -1 where there is none; no pixel may be in two windows."""
    found = np.full(size, -1, np.int64)
    for split in splits:
        for index, record in enumerate(split.records):
            assert record.window is not None
            top, left, height, width = record.window
            part = found[top : top + height, left : left + width]
            assert (part == -1).all()
            sample = split.read(index)
            assert sample.mask is not None
            assert sample.image.shape[1:] == sample.mask.shape == (height, width)
            part[:] = sample.mask
    return found


# Windows --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("transform", [NORTH_UP, SOUTH_UP, ROTATED, None])
@pytest.mark.parametrize("suffix", ["tif", "png"])
def test_windows_show_what_the_whole_image_shows(tmp_path: Path, transform: Affine | None, suffix: str) -> None:
    pair(tmp_path, transform=transform)
    image, mask = drawn()
    if suffix == "png":
        (tmp_path / "masks/a.tif").unlink()
        Image.fromarray(mask[0]).save(tmp_path / "masks/a.png")
    splits = opened(tmp_path)
    assert splits.train is not None
    np.testing.assert_array_equal(joined(splits), mask[0])
    assert splits.labels.ids == (0, 1, 2)
    for index, record in enumerate(splits.train.records):
        top, left, height, width = record.window
        assert max(height, width) <= 32
        sample = splits.train.read(index)
        np.testing.assert_array_equal(sample.image, image[:, top : top + height, left : left + width])
        if transform is not None:
            world = sample.grid.to_world(np.array([[3.0, 5.0]]))[0]
            assert world.tolist() == pytest.approx(transform @ (left + 5.5, top + 3.5))


def test_a_field_of_view_is_read_by_windows(tmp_path: Path) -> None:
    _, mask = drawn()
    pair(tmp_path)
    seen = np.ones((1, *SIZE), np.uint8)
    seen[:, 100:, 50:90] = 0
    raster(tmp_path / "fov/a.tif", seen)
    np.testing.assert_array_equal(joined(opened(tmp_path)), np.where(seen[0] == 0, 255, mask[0]))


def features(root: Path, seed: int) -> list[Any]:
    """Write polygons with holes, many of them across the borders of windows."""
    rng = np.random.default_rng(seed)
    shapes = []
    for _ in range(30):
        column, row = rng.uniform(-20, 260), rng.uniform(-20, 300)
        angles = np.sort(rng.uniform(0, 2 * np.pi, 7))
        ring = np.stack([column + 40 * np.cos(angles), row + 30 * np.sin(angles)], 1)
        rings = [
            [NORTH_UP @ tuple(point) for point in (*part, part[0])] for part in (ring, ring * 0.3 + 0.7 * ring.mean(0))
        ]
        shapes.append({"type": "Polygon", "coordinates": rings})
    plain = {
        "type": "FeatureCollection",
        "crs": {"type": "name", "properties": {"name": "EPSG:32632"}},
        "features": [{"type": "Feature", "properties": {"class": "field"}, "geometry": each} for each in shapes],
    }
    (root / "x.geojson").write_text(json.dumps(plain))
    return shapes


@pytest.mark.parametrize("seed", range(3))
def test_polygons_are_drawn_window_by_window(tmp_path: Path, seed: int) -> None:
    raster(tmp_path / "a.tif", drawn()[0])
    shapes = features(tmp_path, seed)
    found = joined(opened(tmp_path))
    np.testing.assert_array_equal(found, rasterize(shapes, SIZE, transform=NORTH_UP))
    shown = joined(opened(tmp_path, unlabelled="ignore", ignored=[], overlap="area"))
    assert ((shown == 0) == (found == 1))[shown >= 0].all()
    assert (found[shown == -1] == 0).all()  # windows without a shape are ignored, and left out


def test_where_shapes_overlap_windows_agree_with_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    raster(tmp_path / "a.tif", drawn()[0], None)
    points = rng.uniform(0, 1, (40, 2, 2)) * [260, 300]
    shapes = [
        {"label": f"class {k % 5}", "points": each.tolist(), "shape_type": "rectangle"} for k, each in enumerate(points)
    ]
    plain = {"shapes": shapes, "imagePath": "a.tif", "imageHeight": SIZE[0], "imageWidth": SIZE[1]}
    (tmp_path / "a.json").write_text(json.dumps(plain))
    for overlap in ("file", "area"):
        found = joined(opened(tmp_path, overlap=overlap))
        with monkeypatch.context() as patch:
            patch.setattr(datasets, "LARGE", 1 << 25)
            whole = opened(tmp_path, overlap=overlap).train
            assert whole is not None
            np.testing.assert_array_equal(found, whole.read(0).mask)


def test_values_of_the_whole_mask_decide(tmp_path: Path) -> None:
    """Windows with 0 and 255 only do not make 255 a class, if another window has class 1."""
    image, _ = drawn()
    mask = np.zeros((1, *SIZE), np.uint8)
    mask[:, :20] = 255
    mask[:, 250:, 250:] = 1
    raster(tmp_path / "images/a.tif", image)
    raster(tmp_path / "masks/a.tif", mask)
    np.testing.assert_array_equal(joined(opened(tmp_path)), mask[0])
    (tmp_path / "labels.yaml").write_text("names: [ground, car]")
    np.testing.assert_array_equal(joined(opened(tmp_path)), mask[0])


def test_windows_are_converted(tmp_path: Path) -> None:
    pair(tmp_path / "in")
    (tmp_path / "out").mkdir()
    done = convert(opened(tmp_path / "in", {"val": 0.3}), FORMATS["masks"], tmp_path / "out")
    assert done.changed_pixels == 0
    assert done.images > 50


# Blocks ---------------------------------------------------------------------------------------------------------------


def test_few_scenes_are_split_by_blocks_and_many_as_wholes(tmp_path: Path) -> None:
    pair(tmp_path / "few")
    few = opened(tmp_path / "few", {"val": 0.25, "test": 0.25})
    facts = few.description["split"]
    assert (facts["by"], facts["block"], facts["buffer"]) == ("block", {"m": 32.5}, {"m": 8.0})
    assert any("in 20 blocks of 32.5 m" in notice for notice in few.notices), few.notices
    assert any("splits are 8 m apart (data.split.buffer)" in notice for notice in few.notices), few.notices
    assert all(split.groups() >= 3 for split in few)
    for k in range(10):
        pair(tmp_path / "many", f"s{k}", k, (110, 100))
    many = opened(tmp_path / "many", {"val": 0.2})
    assert "block" not in many.description["split"]
    own = [{record.image for record in split.records} for split in many]
    assert [len(each) for each in own] == [8, 2]
    assert own[0].isdisjoint(own[1])
    assert [split.groups() for split in many] == [8, 2]


def test_splits_of_folders_are_kept(tmp_path: Path) -> None:
    for split in ("train", "val"):
        pair(tmp_path / split)
    splits = opened(tmp_path)
    assert splits.train is not None
    assert splits.val is not None
    assert len(splits.train) == len(splits.val) == len({record.id for record in splits.val.records})
    assert splits.description["split"]["given"] == ["train", "val"]
    anew = opened(tmp_path, {"val": 0.3, "anew": True})
    # Both scenes show the same place, so that its blocks are in one split.
    places = [{record.group for record in split.records} for split in anew]
    assert places[0].isdisjoint(places[1])


def test_tiles_of_a_scene_can_be_split_by_blocks(tmp_path: Path) -> None:
    """Small georeferenced images belong to the block of their centre, whatever their format."""
    image, mask = drawn(0, (200, 200))
    for row, column in itertools.product(range(10), range(10)):
        part = slice(None), slice(20 * row, 20 * row + 20), slice(20 * column, 20 * column + 20)
        place = NORTH_UP @ Affine.translation(20 * column, 20 * row)
        raster(tmp_path / f"images/{row}-{column}.tif", image[part], place)
        raster(tmp_path / f"masks/{row}-{column}.tif", mask[part], place)
    splits = opened(tmp_path, {"val": 0.2, "block": 25, "buffer": 2.5})
    assert splits.description["split"]["block"] == {"m": 25}
    assert {record.group for record in splits.val.records}.isdisjoint(record.group for record in splits.train.records)
    kept = sum(record.window is None for record in splits.train.records)
    assert 0 < kept < len(splits.train)
    with pytest.raises(ConfigError, match=r"data\.split\.block: expected blocks or data\.group, found both"):
        opened(tmp_path, {"block": 25}, group="(.)-")
    with pytest.raises(ConfigError, match="expected blocks of at least 4 pixels, 2 m, found 1 m"):
        opened(tmp_path, {"block": 1})
    with pytest.raises(DataError, match=r"images of (train|val) farther than 400 m from the other splits, found none"):
        opened(tmp_path, {"val": 0.2, "block": 25, "buffer": 400})


def test_a_resolved_configuration_splits_in_the_same_way(tmp_path: Path) -> None:
    pair(tmp_path)
    image, mask = drawn(3, (90, 99))  # not large, but larger than a block
    raster(tmp_path / "images/b.tif", image, NORTH_UP @ Affine.translation(500, 0))
    raster(tmp_path / "masks/b.tif", mask, NORTH_UP @ Affine.translation(500, 0))
    asked = SplitConfig(val=0.3, test=0.2, seed=4)
    splits = opened(tmp_path, asked.model_dump())
    resolved, reason = resolved_blocks(asked, splits.description["split"])
    assert (resolved.block, resolved.buffer) == (32.5, 8.0)
    assert reason.startswith("block: a quarter of the shorter side")
    again = opened(tmp_path, resolved.model_dump())
    assert [split.records for split in splits] == [split.records for split in again]
    assert resolved_blocks(resolved, again.description["split"]) == (resolved, "")


@st.composite
def places(draw: st.DrawFn) -> tuple[list[Header], SplitConfig]:
    """Draw scenes in one or several coordinate systems, which may overlap, and how they are to be split."""
    headers = []
    for _ in range(draw(st.integers(1, 3))):
        size = draw(st.integers(90, 250)), draw(st.integers(90, 250))
        across, down = draw(st.sampled_from([(0.5, -0.5), (0.5, 0.5), (-0.5, 0.25), (1e-5, -1e-5)]))
        x, y = draw(st.integers(-300, 300)) / 2, draw(st.integers(-300, 300)) / 2
        crs = draw(st.sampled_from(["EPSG:32632", "EPSG:3857", None]))
        affine = ((across, 0.0, x), (0.0, down, y), (0.0, 0.0, 1.0))
        grid = Grid((abs(down), abs(across)), "m", affine, crs) if draw(st.booleans()) else None
        headers.append(Header("TIFF", size, 3, "rgb", np.dtype(np.uint8), grid=grid))
    unit = min(min(h.grid.spacing) if h.grid else 1.0 for h in headers)
    coarse = max(max(h.grid.spacing) if h.grid else 1.0 for h in headers)
    block = draw(st.none() | st.floats(20 * coarse, 60 * coarse)) if coarse < 5 * unit else None
    buffer = draw(st.none() | st.floats(0, 8 * unit))
    test = draw(st.sampled_from([0.0, 0.2]))
    return headers, SplitConfig(val=0.25, test=test, seed=draw(st.integers(0, 99)), block=block, buffer=buffer)


def corners(record: Record, header: Header) -> tuple[str, NDArray[np.float64]]:
    """Return the coordinate system of a window, and its smallest and largest coordinates."""
    top, left, height, width = record.window or (0, 0, *header.size)
    points = np.array([(top, left), (top + height, left + width)]) - 0.5
    grid = header.grid or Grid()
    name = grid.crs or str(record.image)
    world = grid.to_world(points) if grid.crs else points[:, ::-1] * np.array(grid.spacing)[::-1]
    return name, np.sort(world, axis=0)


@settings(max_examples=40, deadline=None)
@given(places())
def test_no_two_windows_of_different_splits_are_nearer_than_the_buffer(
    drawn: tuple[list[Header], SplitConfig],
) -> None:
    headers, config = drawn
    records = [Record(f"s{k}", Path(f"s{k}.tif"), Path(f"m{k}.tif")) for k in range(len(headers))]
    large = {record.image: header for record, header in zip(records, headers, strict=True)}

    def split(order: list[Record]) -> tuple[Any, dict[str, tuple[Record, ...]], dict[str, Any]]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(scenes, "read_header", lambda path: large[path])
            patch.setattr(scenes, "LARGE", 0)
            division = divide_scenes({"pool": tuple(order)}, large, config, None)
            splits, facts, _ = _divide(division, config, Path())
        return division, splits, facts

    try:
        division, splits, facts = split(records)
    except DataError:  # overlapping scenes or few blocks may leave nothing
        assume(False)
    whole = {record.id: record for record in division.splits["pool"]}
    for record in records:  # the windows cover the scene once
        covered = np.zeros(large[record.image].size, int)
        for each in (each for each in whole.values() if each.image == record.image):
            top, left, height, width = each.window
            assert 0 < height <= 32
            assert 0 < width <= 32
            covered[top : top + height, left : left + width] += 1
        assert (covered == 1).all()
    ids = Counter(record.id for own in splits.values() for record in own)
    assert set(ids) <= set(whole)
    assert max(ids.values()) == 1
    for one, other in itertools.combinations(splits, 2):
        for first, second in itertools.product(records, records):
            frames = [corners(record, large[record.image])[0] for record in (first, second)]
            a, b = (
                np.array([corners(r, large[r.image])[1] for r in splits[name] if r.image == record.image])
                for name, record in ((one, first), (other, second))
            )
            if frames[0] == frames[1] and len(a) and len(b):
                gaps = np.maximum(a[:, None, 0] - b[None, :, 1], b[None, :, 0] - a[:, None, 1]).max(axis=-1)
                place = division.places[first.image]
                assert gaps.min() >= facts["buffer"][place.unit] - 1e-3 * min(map(abs, place.step))
    for own in splits.values():
        for record in own:
            top, left, height, width = record.window
            before = whole[record.id].window
            assert before[0] <= top < top + height <= before[0] + before[2]
            assert before[1] <= left < left + width <= before[1] + before[3]
    sizes = Counter(record.group for record in whole.values())
    for name, share in facts["achieved"].items():
        assert abs(share - facts["asked"][name]) <= max(sizes.values()) / sum(sizes.values()) or len(sizes) < 8
    again = split(records[::-1])[1]
    assert {name: {r.id for r in own} for name, own in again.items()} == {
        name: {r.id for r in own} for name, own in splits.items()
    }


# Memory ---------------------------------------------------------------------------------------------------------------


def huge(root: Path) -> Path:
    """Write a scene of 2 GB, with a few fields, as a file with holes; and their polygons."""
    side, tile = 26_112, 512
    (root / "data").mkdir()
    path = root / "data/scene.tif"
    pixel, east, north = 0.5, 400_000.0, 5_600_000.0
    keys = (1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, 32632)
    tags = [(33550, "d", 3, (pixel, pixel, 0.0), True), (33922, "d", 6, (0.0, 0.0, 0.0, east, north, 0.0), True)]
    tags += [(34735, "H", len(keys), keys, True)]
    tifffile.imwrite(
        path, shape=(side, side, 3), dtype="uint8", tile=(tile, tile), photometric="rgb", extratags=tags, bigtiff=True
    )
    with tifffile.TiffFile(path) as file, path.open("r+b") as raw:
        offsets = file.pages[0].dataoffsets
        for index in range(0, len(offsets), 97):
            raw.seek(offsets[index])
            raw.write(np.random.default_rng(index).integers(0, 255, tile * tile * 3, np.uint8).tobytes())
    assert path.stat().st_size > 2e9
    shapes = []
    for x, y in itertools.product(range(0, side, 1000), range(0, side, 1000)):
        ring = [(x + dx, y + dy) for dx, dy in ((100, 100), (700, 150), (650, 600), (100, 100))]
        world = [[east + pixel * a, north - pixel * b] for a, b in ring]
        shapes.append({"type": "Feature", "properties": {}, "geometry": {"type": "Polygon", "coordinates": [world]}})
    crs = {"type": "name", "properties": {"name": "EPSG:32632"}}
    plain = {"type": "FeatureCollection", "crs": crs, "features": shapes}
    (root / "data/fields.geojson").write_text(json.dumps(plain))
    return root / "data"


def test_a_window_of_a_scene_of_2_gb_needs_few_tiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # with the usual sizes
    data = huge(tmp_path)
    splits = open_data(DataConfig(), data)
    assert splits.train is not None
    assert splits.val is not None
    assert len(splits.train) + len(splits.val) > 700
    read = []
    usual = pieces.Pieces._piece
    monkeypatch.setattr(pieces.Pieces, "_piece", lambda self, *rest: (read.append(rest[1]), usual(self, *rest))[1])
    sample = splits.train.read(0)
    assert sample.mask is not None
    assert sample.image.shape == (3, *sample.mask.shape)
    assert 0 < len(set(read)) <= 9
    assert 0 < (sample.mask == 1).mean() < 1
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for index in range(0, len(splits.val), 40):
        splits.val.read(index)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown < 400  # MB; the cache of decoded tiles takes 256


@pytest.mark.slow
def test_training_on_a_scene_of_2_gb_takes_little_memory(tmp_path: Path) -> None:
    data = huge(tmp_path)
    code = (
        "import resource, pixelwise; pixelwise.train({!r}, out={!r}, model='unet', steps=2, overrides=('model.features=[4,8]',"
        "'model.stem=4', 'train.crop=[64,64]', 'train.batch_size=4', 'evaluate.report=false', 'train.validations=1', 'train.validation_images=2'));"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    ).format(str(data), str(tmp_path / "run"))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600, check=True)
    # kB. The decoded scene has 2.7 GB, and the process that keeps it takes 4.1 GB.
    assert int(done.stdout.split()[-1]) < 2_300_000
    config = (tmp_path / "run/config.yaml").read_text()
    assert "block: 3264.0, buffer: 128.0}  # block: a quarter of the shorter side" in config
    assert math.isclose(26_112 * 0.5 / 4, 3264)
