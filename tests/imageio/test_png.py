"""PNG files by `imageio.png`, against those that Pillow writes and the decoders of Pillow and imagecodecs."""

from io import BytesIO
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from PIL import Image

from pixelwise.imageio import png
from pixelwise.imageio.masks import encode_png
from pixelwise.labels import Labels

SIZES = st.tuples(st.integers(1, 19), st.integers(1, 23))
GREY = SIZES.flatmap(lambda size: arrays.arrays(np.uint8, size))
WIDE = SIZES.flatmap(lambda size: arrays.arrays(st.sampled_from(["<u2", ">u2"]), size))
COLOUR = SIZES.flatmap(lambda size: arrays.arrays(np.uint8, (*size, 3)))


def by_pillow(pixels: NDArray[Any], palette: NDArray[np.uint8] | None = None) -> Image.Image:
    """Write with Pillow and read that."""
    image = Image.fromarray(np.ascontiguousarray(pixels, pixels.dtype.newbyteorder("=")))
    if palette is not None:
        image.putpalette(palette.tobytes())
    buffer = BytesIO()
    image.save(buffer, "PNG")
    return opened(buffer.getvalue())


def opened(data: bytes) -> Image.Image:
    image = Image.open(BytesIO(data))
    image.load()
    return image


def assert_as_pillow(pixels: NDArray[Any], palette: NDArray[np.uint8] | None = None) -> None:
    data = png.encode(pixels, palette)
    found, expected = opened(data), by_pillow(pixels, palette)
    assert (found.format, found.mode, found.size, found.info) == ("PNG", expected.mode, expected.size, expected.info)
    assert found.getpalette() == expected.getpalette()
    np.testing.assert_array_equal(np.asarray(found), np.asarray(expected))
    np.testing.assert_array_equal(np.asarray(found), pixels)
    if palette is None:
        np.testing.assert_array_equal(imagecodecs.png_decode(data), pixels)


@given(st.one_of(GREY, WIDE, COLOUR))
@settings(max_examples=150)
def test_pixels_are_those_that_pillow_writes(pixels: NDArray[Any]) -> None:
    assert_as_pillow(pixels)


@given(GREY, arrays.arrays(np.uint8, (256, 3)))
@settings(max_examples=50)
def test_indices_and_palettes_are_those_that_pillow_writes(pixels: NDArray[Any], palette: NDArray[np.uint8]) -> None:
    assert_as_pillow(pixels, palette)


@pytest.mark.parametrize("shape", [(8, 10), (8, 10, 3)])
def test_views_are_written_as_they_look(shape: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    for view in (pixels[::2], pixels[:, ::-3], pixels.swapaxes(0, 1), pixels[3:4, 2:3]):
        assert_as_pillow(view)
    before = pixels.copy()
    pixels.setflags(write=False)
    png.encode(pixels)
    np.testing.assert_array_equal(pixels, before)


def test_long_data_is_split_into_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    monkeypatch.setattr(png, "_LONGEST", 1000)
    assert png.encode(pixels).count(b"IDAT") >= 4
    assert_as_pillow(pixels)


LABELS = [
    Labels(("a", "b", "c")),
    Labels(("a", "b"), ids=(200, 7), colours=((1, 2, 3), (255, 254, 253)), ignore_ids=(9, -1)),
    Labels(("a", "b"), ids=(0, 300)),
    Labels(tuple(f"c{k}" for k in range(260)), ignore_ids=(999,)),
]


@pytest.mark.parametrize("labels", LABELS, ids=("plain", "gaps", "16 bits", "many"))
def test_masks_have_the_ids_and_palette_of_their_labels(labels: Labels) -> None:
    generator = np.random.default_rng(0)
    mask = generator.integers(0, labels.num_classes, (40, 30)).astype(labels.dtype)
    mask[::7] = labels.ignore_index
    ids = labels.decode(mask)
    found = opened(encode_png(Path("a.png"), ids, labels, *labels.ignore_ids or ()))
    palette = None
    if ids.dtype == np.uint8:
        palette = np.zeros((256, 3), np.uint8)
        for id_ in labels.ignore_ids or ():
            if id_ >= 0:
                palette[id_] = (244, 244, 240)
        for id_, colour in zip(labels.ids, labels.colours, strict=True):
            palette[id_] = colour
    expected = by_pillow(ids, palette)
    assert (found.mode, found.info, found.getpalette()) == (expected.mode, {}, expected.getpalette())
    assert found.mode == ("P" if palette is not None else "I;16")
    np.testing.assert_array_equal(np.asarray(found), ids)


def test_files_are_about_as_small_as_those_of_pillow() -> None:
    rows, columns = np.mgrid[:240, :320]
    smooth = np.stack([128 + 90 * np.sin(rows / a + columns / b) for a, b in ((31, 17), (23, 29), (47, 11))], axis=-1)
    photo = (smooth + np.random.default_rng(0).normal(0, 3, smooth.shape)).astype(np.uint8)
    ids = (smooth[..., 0] // 50).astype(np.uint8)
    for pixels in (photo, ids):
        buffer = BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        assert len(png.encode(pixels)) < 1.15 * buffer.tell()
