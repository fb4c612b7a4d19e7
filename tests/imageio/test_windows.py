"""Windows of files: equal to the same window of the whole image, in memory that depends on the window."""

from __future__ import annotations

import itertools
import multiprocessing
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.shutil
import tifffile
from affine import Affine
from PIL import Image

from pixelwise.errors import ImageError
from pixelwise.formats.reading import read_record_image
from pixelwise.formats.records import Record
from pixelwise.imageio import pieces, tiff, windows
from pixelwise.imageio.images import Limits
from pixelwise.imageio.sources import open_source
from pixelwise.tiles import Window

PLACE = {"transform": Affine(0.5, 0, 733601, 0, -0.5, 3725139), "crs": "EPSG:32616"}
TAG_OF_POSITION = (33922, "d", 6, (0, 0, 0, 7, 8, 0), True)  # what makes a TIFF georeferenced

pytestmark = [
    pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]


@pytest.fixture(params=[False, True])
def keeping(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Keep decoded pixels and headers, or not, as of files that were written a moment ago."""
    monkeypatch.setattr(pieces, "_SETTLED", -1 if request.param else 1e9)
    monkeypatch.setattr(pieces, "_kept", {})
    return bool(request.param)


def drawn(size: tuple[int, int], rng: np.random.Generator) -> Window:
    start = tuple(int(rng.integers(side)) for side in size)
    return Window(start, tuple(int(rng.integers(a + 1, side + 1)) for a, side in zip(start, size, strict=True)))


def agree(path: Path, rng: np.random.Generator, count: int = 6) -> None:
    """Compare random windows with those of the whole image."""
    source = open_source(path)
    image, valid = source.read()
    for _ in range(count):
        window = drawn(source.shape, rng)
        piece, inside = source.read(window)
        assert (piece.dtype, piece.flags.c_contiguous) == (image.dtype, True)
        np.testing.assert_array_equal(piece, image[:, *window.slices])
        expected = None if valid is None or valid[window.slices].all() else valid[window.slices]
        np.testing.assert_array_equal(inside, expected)
        piece[:] = 0  # must not change what is kept


def combinations() -> Iterator[dict[str, Any]]:
    """Yield options for tifffile: each kind of pixels × layout, with compressions, orientations and bytes in turn."""
    kinds = ("grey", "rgb", "bands", "palette", "white", "rgba", "grey alpha", "premultiplied", "cmyk")
    layouts = ({}, {"tile": (16, 32)}, {"rowsperstrip": 7}, {"rowsperstrip": 200})
    for number, (kind, layout) in enumerate((kind, layout) for kind in kinds for layout in layouts * 3):
        planar = ("contig", "separate")[number // 3 % 2] if kind not in ("grey", "palette", "white") else None
        dtype = ("uint8", "uint16", "float32")[number % 3 if kind in ("grey", "rgb", "bands") else 0]
        compression = (None, "deflate", "lzw", "zstd", "packbits")[number % 5]
        yield {
            "kind": kind, "dtype": dtype, "planarconfig": planar, "compression": compression, "orientation": number % 8 + 1,
            "predictor": compression in ("deflate", "lzw") and number % 2 == 1 and dtype != "float32",
            "byteorder": "<>"[number % 4 // 3], "bigtiff": number % 7 == 0, "nodata": number % 6 == 0,
            "georeferenced": number % 3 == 1, "beside": number % 8 == 5,
        } | layout  # fmt: skip


def write_tiff(path: Path, options: dict[str, Any], rng: np.random.Generator) -> None:
    options = dict(options)
    kind, size = options.pop("kind"), (37, 41)
    samples = {"rgb": 3, "bands": 5, "rgba": 4, "grey alpha": 2, "premultiplied": 4, "cmyk": 4}.get(kind, 1)
    values = rng.integers(0, 200, (*size, samples)).astype(options.pop("dtype"))
    extra = []
    if kind in ("rgba", "grey alpha", "premultiplied"):
        ones = options["georeferenced"] and options["orientation"] == 1  # otherwise, 1 is hardly opaque
        values[..., -1] = 1 if ones else rng.choice([0, 255, 255, 100], size)
        options["extrasamples"] = ["assocalpha" if kind == "premultiplied" else "unassalpha"]
    if kind == "palette":
        options["colormap"] = rng.integers(0, 65536, (3, 256)).astype(np.uint16)
    photometric = {"palette": "palette", "white": "miniswhite", "cmyk": "separated", "rgb": "rgb"}
    photometric |= {"rgba": "rgb", "premultiplied": "rgb"}
    extra.append((274, "H", 1, options.pop("orientation"), True))
    if options.pop("nodata"):
        extra.append((42113, "s", 0, "7", True))
    if options.pop("georeferenced"):
        extra.append(TAG_OF_POSITION)
    if options.pop("beside"):
        tifffile.imwrite(f"{path}.msk", (rng.random(size) > 0.3).astype(np.uint8), tile=(16, 16), compression="deflate")
    stored = values[..., 0] if samples == 1 else values
    if options["planarconfig"] == "separate":
        stored = np.moveaxis(values, -1, 0)
    tifffile.imwrite(path, stored, photometric=photometric.get(kind, "minisblack"), extratags=extra, **options)


def test_windows_of_tiffs_are_those_of_the_whole_image(tmp_path: Path, keeping: bool) -> None:
    rng = np.random.default_rng(0)
    for number, options in enumerate(combinations()):
        path = tmp_path / f"{number}.tif"
        write_tiff(path, options, rng)
        try:
            agree(path, rng)
        except Exception as error:
            raise AssertionError(options) from error
    assert (len(pieces.kept().files._values) > 0) is keeping
    assert number > 100


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_masks_of_gdal_are_read_by_window(tmp_path: Path, dtype: str, keeping: bool) -> None:
    rng = np.random.default_rng(0)
    for number, (inside, tiled) in enumerate([(True, True), (True, False), (False, True), (False, False)]):
        path = tmp_path / f"{number}.tif"
        blocks = {"tiled": True, "blockxsize": 16, "blockysize": 16} if tiled else {}
        size = {"width": 53, "height": 37, "count": 2, "dtype": dtype}
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=inside):
            with rasterio.open(path, "w", driver="GTiff", compress="deflate", **size, **blocks, **PLACE) as file:
                file.write(rng.integers(0, 200, (2, 37, 53)).astype(dtype))
            with rasterio.open(path, "r+") as file:
                file.write_mask(rng.random((37, 53)) > 0.4)
        agree(path, rng)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".bmp", ".gif", ".jp2", ".ppm", ".npy"])
def test_other_files_are_read_by_window(tmp_path: Path, suffix: str, keeping: bool) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / f"a{suffix}"
    values = rng.integers(0, 256, (37, 41, 3), dtype=np.uint8)
    if suffix == ".npy":
        np.save(path, values)
    else:
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.fromarray(values).save(path, **({"exif": exif} if suffix == ".jpg" else {}))
    agree(path, rng)


@pytest.mark.parametrize("bits", [2, 7, 8, 12, 16])
@pytest.mark.parametrize("bands", [1, 3, 5])
def test_windows_of_jpeg_2000_are_decoded_without_the_rest(tmp_path: Path, bits: int, bands: int) -> None:
    rng = np.random.default_rng(0)
    dtype = "uint8" if bits <= 8 else "uint16"
    smooth = np.add.outer(np.arange(300), np.arange(260)) % 2**bits
    values = np.stack([smooth // (k + 1) for k in range(bands)]).astype(dtype)
    size = {"width": 130, "height": 150, "count": bands, "dtype": dtype}
    with rasterio.open(tmp_path / "a.tif", "w", driver="GTiff", nbits=bits, **size) as file:
        file.write(values)
    for number, (codec, reversible, block) in enumerate(itertools.product(("JP2", "J2K"), ("YES", "NO"), (64, 1024))):
        path = tmp_path / f"{number}.{codec.lower()}"
        rasterio.shutil.copy(
            tmp_path / "a.tif", path, driver="JP2OpenJPEG", CODEC=codec, REVERSIBLE=reversible, BLOCKXSIZE=block, BLOCKYSIZE=block,
            QUALITY=100 if reversible == "YES" else 20,
        )  # fmt: skip
        agree(path, rng, 3)
        np.testing.assert_array_equal(
            open_source(path, limits=Limits(pixels=1000)).read(Window((90, 80), (120, 110)))[0],
            open_source(path).read()[0][:, 90:120, 80:110],
        )


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_png_with_alpha_is_treated_as_a_whole(tmp_path: Path, orientation: int, keeping: bool) -> None:
    rng = np.random.default_rng(0)
    values = rng.integers(0, 256, (37, 41, 4), dtype=np.uint8)
    values[..., 3] = 255
    values[:10, :10, 3] = 100  # a window of mostly partly transparent pixels
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(values).save(tmp_path / "a.png", exif=exif)
    agree(tmp_path / "a.png", rng)
    source = open_source(tmp_path / "a.png")
    for corner in (Window((0, 0), (9, 9)), Window((source.shape[0] - 9, 0), (source.shape[0], 9))):
        np.testing.assert_array_equal(source.read(corner)[0], source.read()[0][:, *corner.slices])


# Alpha -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("georeferenced", [True, False])
@pytest.mark.parametrize("values", [(0, 1), (0, 255), (1, 255), (0, 1, 2), (3, 4, 255)])
def test_alpha_means_the_same_in_every_window(
    tmp_path: Path, values: tuple[int, ...], georeferenced: bool, keeping: bool
) -> None:
    """Half of the image has the first values, the other half the last one only."""
    for number, dtype in enumerate(("uint8", "uint16", "float32")):
        stored = np.full((64, 64, 4), 90, dtype)
        stored[..., 3] = values[-1]
        stored[:30, :, 3] = np.random.default_rng(0).choice(values[:-1], (30, 64))
        path = tmp_path / f"{number}.tif"
        extra = [TAG_OF_POSITION] if georeferenced else []
        tifffile.imwrite(
            path,
            stored,
            photometric="rgb",
            extrasamples=["unassalpha"],
            tile=(16, 16),
            extratags=extra,
            compression="lzw",
        )
        if message_of(path, None):
            for window in (Window((0, 0), (10, 10)), Window((50, 50), (64, 64))):
                assert message_of(path, window) == message_of(path, None)
        else:
            agree(path, np.random.default_rng(1))


def message_of(path: Path, window: Window | None) -> str:
    """Return the error in reading; empty without one."""
    try:
        open_source(path).read(window)
    except ImageError as error:
        return str(error)
    return ""


def test_alpha_of_a_file_beyond_the_limits_is_decided_by_a_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(windows, "_SAMPLE", 8)
    stored = np.full((160, 160, 4), 90, np.uint8)
    stored[..., 3] = np.random.default_rng(0).choice([0, 1], (160, 160))
    tifffile.imwrite(
        tmp_path / "a.tif", stored, photometric="rgb", extrasamples=["unassalpha"], tile=(16, 16), compression="lzw",
        extratags=[TAG_OF_POSITION],
    )  # fmt: skip
    source = open_source(tmp_path / "a.tif", limits=Limits(pixels=1000))
    with pytest.raises(ImageError, match="at most 1,000 pixels"):
        source.read()
    image, valid = source.read(Window((40, 50), (60, 70)))
    np.testing.assert_array_equal(valid, stored[40:60, 50:70, 3] > 0)
    assert (image[:, valid] == 90).all()


# Limits, and what is decoded ----------------------------------------------------------------------------------------------


def test_limits_apply_to_the_window_and_to_a_strip(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 256, (300, 400), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "tiles.tif", values, tile=(32, 32), compression="deflate")
    tifffile.imwrite(tmp_path / "strip.tif", values, rowsperstrip=300, compression="deflate")
    tifffile.imwrite(tmp_path / "plain.tif", values, rowsperstrip=300)
    Image.fromarray(values).save(tmp_path / "a.png")
    window = Window((100, 100), (120, 130))
    limits = Limits(pixels=2000)
    for name in ("tiles.tif", "plain.tif"):
        np.testing.assert_array_equal(
            open_source(tmp_path / name, limits=limits).read(window)[0][0], values[100:120, 100:130]
        )
        with pytest.raises(ImageError, match=r"expected at most 2,000 pixels, found 100×30 = 3,000 in the window"):
            open_source(tmp_path / name, limits=limits).read(Window((0, 0), (30, 100)))
    with pytest.raises(
        ImageError, match=r"strips or tiles of at most 2,000 pixels, found 400×300 = 120,000 in one\. Write the"
    ):
        open_source(tmp_path / "strip.tif", limits=limits).read(window)
    with pytest.raises(ImageError, match=r"at most 2,000 pixels, found 400×300 = 120,000 in the header"):
        open_source(tmp_path / "a.png", limits=limits).read(window)


def test_windows_of_records_do_not_need_the_whole_file(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 256, (300, 400), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", values, tile=(32, 32), compression="deflate")
    record = Record("a", tmp_path / "a.tif", None, window=(100, 90, 20, 30))
    image, _, valid = read_record_image(record, Limits(pixels=2000))
    np.testing.assert_array_equal(image[0], values[100:120, 90:120])
    assert valid is None


def test_only_the_tiles_of_a_window_are_decoded_and_only_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "_SETTLED", -1)
    monkeypatch.setattr(pieces, "_kept", {})
    values = np.random.default_rng(0).integers(0, 256, (320, 320), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", values, tile=(32, 32), compression="deflate")
    opened, decoded = [], []
    open_tiff, keep = tiff.open_tiff, pieces.keep

    def watched(cache: Any, key: Any, what: Any, make: Any) -> Any:
        return keep(cache, key, what, lambda: (decoded.append(what), make())[1])

    monkeypatch.setattr(tiff, "open_tiff", lambda file: (opened.append(1), open_tiff(file))[1])
    monkeypatch.setattr(pieces, "keep", watched)
    source = open_source(tmp_path / "a.tif")
    for start in (0, 16, 32):
        source.read(Window((start, 0), (start + 64, 64)))
    assert len(decoded) == len(set(decoded)) == 6
    assert len(opened) == 2, "when it was opened, and for the first window"


def test_a_file_that_changes_is_read_anew(tmp_path: Path) -> None:
    window = Window((0, 0), (5, 5))
    for value in range(4):
        tifffile.imwrite(tmp_path / "a.tif", np.full((40, 40), value, np.uint8), compression="deflate")
        assert open_source(tmp_path / "a.tif").read(window)[0].max() == value


def test_the_cache_is_bounded_and_keeps_the_latest() -> None:
    cache = pieces.Cache(100, lambda values: int(values.nbytes))
    made = []

    def get(key: int, size: int) -> None:
        cache.get(key, lambda: (made.append(key), np.zeros(size, np.uint8))[1])

    for key in (1, 2, 1, 3, 1):
        get(key, 40)
    assert made == [1, 2, 3]
    get(2, 40)  # 1 was used last, so 3 was left out for it
    get(1, 40)
    assert made == [1, 2, 3, 2]
    get(4, 500)
    get(4, 500)
    assert made == [1, 2, 3, 2, 4]
    assert (list(cache._values), cache._total) == ([4], 500)


def test_threads_and_forks_read_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "_SETTLED", -1)
    values = np.random.default_rng(0).integers(0, 256, (320, 320), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", values, tile=(32, 32), compression="deflate")
    source = open_source(tmp_path / "a.tif")
    source.read(Window((0, 0), (50, 50)))
    wrong: list[Window] = []

    def read(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(30):
            window = drawn((320, 320), rng)
            if not np.array_equal(source.read(window)[0][0], values[window.slices]):
                wrong.append(window)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    if "fork" in multiprocessing.get_all_start_methods():
        workers = [multiprocessing.get_context("fork").Process(target=read, args=(seed,)) for seed in range(3)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(60)
        assert [worker.exitcode for worker in workers] == [0, 0, 0]


# Large files ---------------------------------------------------------------------------------------------------------------

MEMORY = """
import resource, sys, tracemalloc
from pathlib import Path
from pixelwise.imageio.sources import open_source
from pixelwise.tiles import Window
source = open_source(Path(sys.argv[1]))
source.read(Window((0, 0), (10, 10)))
tracemalloc.start()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for start in range(0, 8000, 1000):
    image, valid = source.read(Window((start, start), (start + 1000, start + 1000)))
assert (image == int(sys.argv[2])).all() or valid is not None
print(tracemalloc.get_traced_memory()[1] / 1e6, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


def memory_of(path: Path, value: int) -> None:
    result = subprocess.run(
        [sys.executable, "-c", MEMORY, str(path), str(value)], capture_output=True, text=True, check=True
    )
    traced, resident = map(float, result.stdout.split())
    assert traced < 100
    assert resident < 100, "MB"


def test_the_memory_of_a_window_does_not_depend_on_the_file(tmp_path: Path) -> None:
    """20,000 × 20,000 pixels in tiles that were never written, and 40,000 × 40,000 × 3 bytes without compression."""
    blocks = {"tiled": True, "blockxsize": 512, "blockysize": 512, "SPARSE_OK": True, "compress": "deflate"}
    size = {"width": 20_000, "height": 20_000, "count": 3, "dtype": "uint8"}
    with rasterio.open(tmp_path / "a.tif", "w", driver="GTiff", nodata=0, **size, **blocks, **PLACE) as file:
        file.write(np.full((3, 3000, 3000), 5, np.uint8), window=((0, 3000), (0, 3000)))
    memory_of(tmp_path / "a.tif", 5)
    tifffile.imwrite(
        tmp_path / "b.tif", None, shape=(40_000, 40_000, 3), dtype=np.uint8, photometric="rgb", bigtiff=True
    )
    memory_of(tmp_path / "b.tif", 0)
