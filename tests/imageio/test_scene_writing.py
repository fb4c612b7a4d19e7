"""Scenes written window by window: valid COGs, the same bytes whatever the windows, and nothing committed is lost by a kill."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import random
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from affine import Affine
from rasterio.control import GroundControlPoint
from rio_cogeo import cog_validate

from pixelwise.errors import ResourceError
from pixelwise.grid import Grid
from pixelwise.imageio import scene_writing
from pixelwise.imageio.scene_writing import (
    CONFIDENCE,
    SceneContent,
    SceneWriter,
    class_content,
    class_ids,
    disk_needed,
    partial_path,
    probability_content,
    require_disk,
)
from pixelwise.imageio.sources import RasterSource, open_source
from pixelwise.labels import Labels
from pixelwise.tiles import Window, windows

LABELS = Labels(("ground", "field", "wald größer"), ids=(3, 7, 1), ignore_ids=(9,))
CONTENTS = {
    "uint8": class_content(LABELS),
    "uint16": class_content(Labels(("a", "b"), ids=(0, 300))),
    "uint32": class_content(Labels(("a", "b"), ids=(0, 70000))),
    "confidence": CONFIDENCE,
    "probabilities": probability_content(LABELS),
}

pytestmark = [
    pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]
forks = pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs processes that fork")


def plain(size: Sequence[int]) -> RasterSource:
    """Return a source without georeference, which is not read."""
    return RasterSource(Path("none.png"), "PNG", 3, np.dtype(np.uint8), tuple(size), Grid())


def geotiff(path: Path, size: tuple[int, int] = (37, 53), **place: Any) -> Any:
    place = place or {"transform": Affine(0.5, 0, 733601, 0, -0.5, 3725139), "crs": "EPSG:32616"}
    profile = {"height": size[0], "width": size[1], "count": 1, "dtype": "uint8"}
    with rasterio.open(path, "w", driver="GTiff", **profile, **place) as file:
        file.write(np.ones(size, np.uint8), 1)
    return open_source(path)


def values_of(content: SceneContent, size: Sequence[int], seed: int = 0) -> np.ndarray:
    """Draw patches of the values that a content can hold: (bands, H, W)."""
    rng = np.random.default_rng(seed)
    some = [*content.names, content.nodata] if content.names else range(content.steps + 1)
    coarse = rng.choice(list(some), (len(content.bands), *(-(-side // 7) for side in size)))
    drawn: np.ndarray = np.kron(coarse, np.ones((1, 7, 7)))[:, : size[0], : size[1]].astype(content.dtype)
    return drawn


def write(path: Path, like: Any, content: SceneContent, values: np.ndarray) -> Path:
    with SceneWriter(path, like, content) as writer:
        writer.write(Window((0, 0), values.shape[1:]), values)
        return writer.finish()


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("size", [(1, 1), (37, 53), (512, 512), (513, 1025), (3, 1400)])
@pytest.mark.parametrize("kind", CONTENTS)
def test_scenes_are_valid_cogs(tmp_path: Path, kind: str, size: tuple[int, int]) -> None:
    content = CONTENTS[kind]
    values = values_of(content, size)
    path = write(tmp_path / "out" / "a.tif", geotiff(tmp_path / "s.tif", size), content, values)
    assert cog_validate(path, strict=True) == (True, [], [])
    with rasterio.open(path, driver="GTiff") as file:
        np.testing.assert_array_equal(file.read(), values)
        assert (set(file.dtypes), file.nodata) == ({content.dtype}, content.nodata)
        assert file.descriptions == content.bands
        assert bool(file.overviews(1)) == (max(size) > 512)
        assert (file.crs.to_epsg(), file.transform) == (32616, Affine(0.5, 0, 733601, 0, -0.5, 3725139))
        assert file.compression.name == "deflate"
    beside = ["a.tif", "a.tif.aux.xml"] if kind in ("uint8", "uint16") else ["a.tif"]
    assert sorted(file.name for file in path.parent.iterdir()) == beside


def test_a_source_without_georeference_gives_a_cog_without(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", plain((600, 700)), CONTENTS["uint8"], values_of(CONTENTS["uint8"], (600, 700)))
    assert cog_validate(path, strict=True)[0]
    with rasterio.open(path) as file:
        assert (file.crs, file.transform, file.gcps) == (None, Affine.identity(), ([], None))


@pytest.mark.parametrize("kind", ["uint8", "uint16", "probabilities"])
def test_windows_commits_and_threads_do_not_change_a_byte(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    size, content = (1100, 1300), CONTENTS[kind]
    values = values_of(content, size)
    whole = digest(write(tmp_path / "a.tif", plain(size), content, values))
    monkeypatch.setattr(scene_writing, "_LARGE", 0)
    for seed in range(4):
        rng = random.Random(seed)
        pieces = windows(size, [rng.randint(100, 800) for _ in size], [rng.randint(0, 50) for _ in size])
        rng.shuffle(pieces)
        writer = SceneWriter(tmp_path / "a.tif", plain(size), content)
        for piece in pieces:
            part = values[:, *piece.slices]
            writer.write(piece, part if len(part) > 1 or rng.random() < 0.5 else part[0])
            if rng.random() < 0.3:
                writer.commit()
            elif rng.random() < 0.2:
                writer.close()
                again = SceneWriter.reopen(tmp_path / "a.tif", plain(size), content)
                assert again is not None
                writer = again
        assert digest(writer.finish()) == whole
    assert not partial_path(tmp_path / "a.tif").exists()


def test_pixels_that_are_not_written_hold_no_data(tmp_path: Path) -> None:
    for content in (CONTENTS["uint8"], CONTENTS["probabilities"]):
        writer = SceneWriter(tmp_path / "a.tif", plain((1100, 600)), content)
        ones = np.ones((len(content.bands), 50, 20), np.uint8)
        writer.write(Window((500, 30), (550, 50)), ones)
        with rasterio.open(writer.finish()) as file:
            expected = np.full((len(content.bands), 1100, 600), content.nodata)
            expected[:, 500:550, 30:50] = 1
            np.testing.assert_array_equal(file.read(), expected)


def test_windows_without_data_take_no_space(tmp_path: Path) -> None:
    writer = SceneWriter(tmp_path / "a.tif", plain((3000, 3000)), CONTENTS["uint8"])
    empty = writer.partial.stat().st_size
    writer.write(Window((0, 0), (3000, 3000)), np.full((3000, 3000), 9, np.uint8))
    writer.commit()
    assert writer.partial.stat().st_size == empty
    writer.discard()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "values", [np.zeros((5, 7), np.uint8), np.zeros((5, 6), np.float32), np.zeros((2, 5, 6), np.uint8)]
)
def test_values_of_another_shape_or_type_are_refused(tmp_path: Path, values: np.ndarray) -> None:
    with (
        SceneWriter(tmp_path / "a.tif", plain((50, 60)), CONTENTS["uint8"]) as writer,
        pytest.raises(ValueError, match=r"expected values of shape and type \(1, 5, 6\) uint8"),
    ):
        writer.write(Window((0, 0), (5, 6)), values)


# Names, colours and overviews --------------------------------------------------------------------------------------------


def categories(path: Path, folder: Path) -> list[str]:
    """Return the category names that GDAL finds, by a copy that states all that it knows."""
    with rasterio.open(path) as file:
        rasterio.shutil.copy(file, folder / "a.vrt", driver="VRT")
    return [element.text or "" for element in ElementTree.parse(folder / "a.vrt").iter("Category")]


@pytest.mark.parametrize(
    ("names", "ids"),
    [
        (("ground", "field"), (0, 1)),
        (("<b>&amp;", 'a "quoted"\' name'), (7, 3)),
        (("wald größer", "森林 🌲"), (0, 300)),
    ],
)
def test_gdal_reads_names_and_colours(tmp_path: Path, names: tuple[str, str], ids: tuple[int, int]) -> None:
    labels = Labels(names, ids=ids, colours=((10, 20, 30), (200, 100, 50)))
    content = class_content(labels)
    path = write(tmp_path / "a.tif", plain((600, 700)), content, values_of(content, (600, 700)))
    found = categories(path, tmp_path)
    assert {index: name for index, name in enumerate(found) if name} == dict(zip(ids, names, strict=True))
    with rasterio.open(path) as file:
        assert json.loads(file.tags(1)["CLASSES"]) == {str(i): name for i, name in zip(ids, names, strict=True)}
        colours = file.colormap(1)
        assert [colours[i][:3] for i in ids] == list(labels.colours)
        assert file.nodata == 255


def test_names_with_control_characters_give_valid_xml(tmp_path: Path) -> None:
    content = class_content(Labels(("a\x00b\x1f", "\ud800", "tab\there")))
    write(tmp_path / "a.tif", plain((5, 6)), content, values_of(content, (5, 6)))
    root = ElementTree.parse(tmp_path / "a.tif.aux.xml")
    assert [element.text for element in root.iter("Category")] == ["a\ufffdb\ufffd", "\ufffd", "tab\there"]


@pytest.mark.parametrize("make", [class_content, probability_content])
def test_odd_names_are_written_and_recognised(tmp_path: Path, make: Callable[[Labels], SceneContent]) -> None:
    content = make(Labels(("", " a ", "b\nc\td", "e\x00", "\ud800", "<&>", "x" * 5000, "森林 🌲"), ignore_ids=(9,)))
    values = values_of(content, (20, 30))
    SceneWriter(tmp_path / "a.tif", plain((20, 30)), content).close()
    writer = SceneWriter.reopen(tmp_path / "a.tif", plain((20, 30)), content)
    assert writer is not None
    writer.write(Window((0, 0), (20, 30)), values)
    with rasterio.open(writer.finish()) as file:
        np.testing.assert_array_equal(file.read(), values)
        assert file.descriptions == content.bands
        assert json.loads(file.tags(1).get("CLASSES", "{}")) == {str(i): name for i, name in content.names.items()}


@pytest.mark.parametrize("ids", [(0, 100, 200), (0, 300, 600), (0, 70000, 140000)])
def test_overviews_of_classes_hold_no_other_ids(tmp_path: Path, ids: tuple[int, ...]) -> None:
    content = class_content(Labels(("a", "b", "c"), ids=ids, ignore_ids=(50,)))
    values = np.random.default_rng(0).choice([*ids, 50], (1, 1100, 1300)).astype(content.dtype)
    path = write(tmp_path / "a.tif", plain((1100, 1300)), content, values)
    with rasterio.open(path) as file:
        count = len(file.overviews(1))
    assert count == 2
    for level in range(count):
        with rasterio.open(path, overview_level=level) as file:
            assert set(np.unique(file.read())) <= {*ids, 50}


def test_overviews_of_probabilities_are_means_of_pixels_with_data(tmp_path: Path) -> None:
    values = np.full((1, 1024, 1024), 100, np.uint8)
    values[:, ::2] = 50
    values[:, :, ::2] = 255
    path = write(tmp_path / "a.tif", plain((1024, 1024)), CONFIDENCE, values)
    with rasterio.open(path, overview_level=0) as file:
        assert set(np.unique(file.read())) == {75}


def test_probabilities_are_stored_in_steps_that_gdal_scales_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    drawn = rng.random((3, 40, 50)).astype(np.float32)
    valid = rng.random((40, 50)) > 0.2
    content = probability_content(LABELS)
    path = write(tmp_path / "a.tif", plain((40, 50)), content, content.encode(drawn, valid))
    with rasterio.open(path) as file:
        np.testing.assert_allclose(
            (file.read() * np.array(file.scales)[:, None, None])[:, valid], drawn[:, valid], atol=0.0021
        )
        np.testing.assert_array_equal(file.dataset_mask() > 0, valid)
    assert CONFIDENCE.encode(np.array([[0, 0.004, 0.506, 1, 1.0000001]])).tolist() == [[0, 0, 51, 100, 100]]


def test_ids_are_those_of_the_labels() -> None:
    table, ignore_id = class_ids(LABELS)
    assert (table[[0, 1, 2, 255]].tolist(), ignore_id, table.dtype) == ([3, 7, 1, 9], 9, np.uint8)


# Continuing --------------------------------------------------------------------------------------------------------------

PLACES: dict[str, dict[str, Any]] = {
    "north-up": {},
    "rotated": {"transform": Affine(0.5, 0, 7e5, 0, -0.5, 3e6) @ Affine.rotation(30), "crs": "EPSG:32616"},
    "south-up in feet": {"transform": Affine(1, 0, 984000, 0, 1, 205000), "crs": "EPSG:2263"},
    "own CRS": {
        "transform": Affine(30, 0, 0, 0, -30, 0),
        "crs": "+proj=tmerc +lat_0=48 +lon_0=11.5 +k=1 +x_0=0 +y_0=0 +ellps=GRS80 +units=m",
    },
    "no CRS": {"transform": Affine(30, 0, 7, 0, -30, 0)},
    "points": {
        "gcps": [
            GroundControlPoint(row=r, col=c, x=c + 0.1 * r, y=-r, z=0) for r, c in ((0, 0), (0, 53), (37, 0), (37, 53))
        ],
        "crs": "EPSG:4326",
    },
}


@pytest.mark.parametrize("kind", PLACES)
def test_a_work_file_is_continued_for_the_same_scene_only(tmp_path: Path, kind: str) -> None:
    source = geotiff(tmp_path / "s.tif", **PLACES[kind])
    content, path = CONTENTS["uint8"], tmp_path / "a.tif"
    values = values_of(content, source.shape)
    expected = digest(write(path, source, content, values))
    assert SceneWriter.reopen(path, source, content) is None
    SceneWriter(path, source, content).close()
    moved = geotiff(tmp_path / "t.tif", transform=Affine(0.5, 0, 1, 0, -0.5, 3725139), crs="EPSG:32616")
    for other, what in (
        (moved, content),
        (plain(source.shape), content),
        (geotiff(tmp_path / "u.tif", (37, 54)), content),
        (source, class_content(Labels(("ground", "other", "wald größer"), ids=(3, 7, 1), ignore_ids=(9,)))),
        (source, class_content(Labels(LABELS.names, ids=LABELS.ids, ignore_ids=(8,)))),
        (source, CONFIDENCE),
    ):
        assert SceneWriter.reopen(path, other, what) is None
    writer = SceneWriter.reopen(path, source, content)
    assert writer is not None
    writer.write(Window((0, 0), source.shape), values)
    assert digest(writer.finish()) == expected
    partial_path(path).write_bytes(b"II+\0 and nothing else")
    assert SceneWriter.reopen(path, source, content) is None
    partial_path(path).write_bytes(b"")
    assert SceneWriter.reopen(path, source, content) is None


def write_rows(path: Path, values: np.ndarray, pipe: Any) -> None:
    """Write and commit rows, and report how many were committed."""
    size = values.shape[1:]
    writer = SceneWriter(path, plain(size), CONTENTS["uint8"])
    for top in range(0, size[0], 130):
        window = Window((top, 0), (min(top + 130, size[0]), size[1]))
        writer.write(window, values[:, *window.slices])
        writer.commit()
        pipe.send(window.stop[0])
    pipe.send(size[0])
    writer.finish()
    pipe.send(size[0])


def kill(path: Path, values: np.ndarray, seed: int) -> int:
    """Start a writer and kill it at a random place; return how many rows it had committed, as far as it could report."""
    rng = random.Random(seed)
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=write_rows, args=(path, values, theirs))
    process.start()
    committed = 0
    for _ in range(min(rng.randint(1, 22), 18)):  # the 18th message is sent before the copy is made
        committed = ours.recv()
    time.sleep(rng.random() * 0.06)
    process.kill()
    process.join()
    return int(committed)


def check_kills(folder: Path, seeds: range) -> None:
    size, content = (2100, 1300), CONTENTS["uint8"]
    values = values_of(content, size)
    expected = digest(write(folder / "whole.tif", plain(size), content, values))
    for seed in seeds:
        path = folder / str(seed) / "a.tif"
        rows = kill(path, values, seed)
        if partial_path(path).exists():
            with rasterio.open(partial_path(path), driver="GTiff") as file:
                np.testing.assert_array_equal(file.read()[:, :rows], values[:, :rows])
            writer = SceneWriter.reopen(path, plain(size), content)
            assert writer is not None
            if rows < size[0]:
                writer.write(Window((rows, 0), size), values[:, rows:])
            writer.finish()
        assert digest(path) == expected
        assert sorted(file.name for file in path.parent.iterdir()) == ["a.tif", "a.tif.aux.xml"]


@forks
def test_committed_rows_survive_kills(tmp_path: Path) -> None:
    check_kills(tmp_path, range(8))


@forks
@pytest.mark.slow
def test_committed_rows_survive_twenty_kills(tmp_path: Path) -> None:
    check_kills(tmp_path, range(100, 120))


# Disks -------------------------------------------------------------------------------------------------------------------

# The beginning of the programs that are run as processes of their own.
START = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from pixelwise.errors import ResourceError
from pixelwise.grid import Grid
from pixelwise.imageio.scene_writing import SceneWriter, class_content
from pixelwise.imageio.sources import RasterSource
from pixelwise.labels import Labels
from pixelwise.tiles import Window
content = class_content(Labels(("ground", "field", "wald größer"), ids=(3, 7, 1), ignore_ids=(9,)))
path = Path(sys.argv[1])


def begin(size):
    return SceneWriter(path, RasterSource(Path("none.png"), "PNG", 3, np.dtype(np.uint8), size, Grid()), content)


"""

# Limits the size of files to a number of bytes, as a full disk would: of the work file, or of the copy only. Noise cannot be
# compressed.
FULL = (
    START
    + """
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
size = 1100, 1300
values = np.random.default_rng(0).integers(0, 200, size).astype(np.uint8)


def write(limits):
    writer = None
    try:
        for what in ("write", "finish"):
            resource.setrlimit(resource.RLIMIT_FSIZE, (limits.get(what, resource.RLIM_INFINITY), resource.RLIM_INFINITY))
            if what == "write":
                writer = begin(size)
                writer.write(Window((0, 0), size), values)
                writer.commit()
        writer.finish()
        print("written")
    except ResourceError as error:
        print(error)
    if writer is not None:
        writer.discard()


path = path.with_name("b.tif")
write({})
copy = path.stat().st_size
path = path.with_name("a.tif")
for limit in (200, 1000, 100_000, 1_000_000, 2_362_368):
    write({"write": limit})
for limit in (200, copy // 4, copy // 2, copy - 100_000, copy - 1):
    write({"finish": limit})
"""
)


@pytest.mark.skipif(sys.platform == "win32", reason="needs limits of processes")
def test_a_full_disk_is_reported_and_leaves_the_existing_file(tmp_path: Path) -> None:
    size, content, path = (1100, 1300), CONTENTS["uint8"], tmp_path / "a.tif"
    write(path, plain(size), content, values_of(content, size))
    before = digest(path)
    result = subprocess.run([sys.executable, "-c", FULL, str(path)], capture_output=True, text=True, check=True)
    first, *others = result.stdout.splitlines()
    assert (first, len(others)) == ("written", 10)
    for line in others:
        assert line.startswith(f"{path}: expected a writable disk with free space, found ")
        assert line.endswith("Free disk space or choose another --out. Existing files are unchanged.")
    assert digest(path) == before
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.tif", "a.tif.aux.xml", "b.tif", "b.tif.aux.xml"]


def test_old_files_beside_the_target_do_not_describe_the_new_one(tmp_path: Path) -> None:
    content, path = CONTENTS["confidence"], tmp_path / "a.tif"
    values = values_of(content, (40, 50))
    for suffix in (".aux.xml", ".ovr", ".msk"):
        (tmp_path / f"a.tif{suffix}").write_text("<PAMDataset/>")
        (tmp_path / f"a.partial.tif{suffix}").write_text("<PAMDataset/>")
    (tmp_path / "a.partial.tif").write_text("of another program")
    write(path, plain((40, 50)), content, values)
    assert [file.name for file in tmp_path.iterdir()] == ["a.tif"]


def test_the_disk_space_is_a_bound_and_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size, contents, used = (1100, 1300), [CONTENTS["uint8"], CONTENTS["probabilities"]], 0
    for number, content in enumerate(contents):
        writer = SceneWriter(tmp_path / f"{number}.tif", plain(size), content)
        noise = np.random.default_rng(0).integers(0, 256, (len(content.bands), *size)).astype(np.uint8)
        writer.write(Window((0, 0), size), noise)
        writer.commit()
        used += writer.partial.stat().st_size + writer.finish().stat().st_size
    needed = disk_needed(size, contents)
    assert used <= needed <= 2 * used
    require_disk(tmp_path / "new" / "a.tif", size, contents)
    monkeypatch.setattr(scene_writing.shutil, "disk_usage", lambda folder: SimpleNamespace(free=needed - 1))
    with pytest.raises(
        ResourceError, match=r"a\.tif: expected 0\.0 GB of free disk space for 1300×1100 pixels.*found 0\.0 GB"
    ):
        require_disk(tmp_path / "new" / "a.tif", size, contents)


MEMORY = (
    START
    + """
side = 20_000
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
writer = begin((side, side))
for top in range(0, side, 500):
    row = np.full((500, side), (3, 7, 1)[top // 500 % 3], np.uint8)
    writer.write(Window((top, 0), (top + 500, side)), row)
    writer.commit()
writer.finish()
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""
)


@pytest.mark.slow
def test_the_memory_of_writing_is_bounded(tmp_path: Path) -> None:
    arguments = [sys.executable, "-c", MEMORY, str(tmp_path / "a.tif")]
    result = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert float(result.stdout) < 250, "MB; the scene has 400"
    assert cog_validate(tmp_path / "a.tif", strict=True)[0]
