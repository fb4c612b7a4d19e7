"""Read images, and the raw values of masks, from the files that `file_formats` lists.

- The format is detected from the content, never from the name. Only regular local files are opened.
- The header is read and the `Limits` are checked before any pixel is decoded. Truncated files raise an error.
- EXIF orientation (or the TIFF tag) is applied to images and masks alike.
- Alpha is not a band. If it is fully opaque, it is dropped; otherwise the image is composited over black. If more than half
  of the pixels are partly transparent, the fourth band is probably not alpha (some programs mark near infrared so), and the
  file is refused. Both are decided for the file, from all its pixels, also if a window is read; in files beyond the limits, from
  some of its strips or tiles.
- Pixels hold no data where they have the nodata value, or where a mask inside the file or beside it (`sidecars`) says so. In a
  georeferenced TIFF, so do fully transparent pixels. In other images these are a background like any other, since objects
  are often cut out before they are annotated.
- Palettes become their colours, CMYK becomes RGB by (1 - C) · (1 - K) without colour profiles, and 8-bit values with a smaller
  maximum (1, 2 and 4 bits, PGM) are stretched to 0–255. Everything else stays as stored: 8 and 16 bits, integers or floats,
  1…N bands.
- Masks are never stretched. The values of a GIF are its colours, since programs renumber its palette.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import DataError, ImageError, MaskError
from pixelwise.grid import Grid
from pixelwise.imageio.alpha import AlphaCounts
from pixelwise.imageio.file_formats import IMAGE_SUFFIXES as IMAGE_SUFFIXES
from pixelwise.imageio.file_formats import READABLE, detect, image_files, open_as
from pixelwise.imageio.raster import Decoder, Header, Raster, Refused, WindowDecoder, top_value
from pixelwise.imageio.safe_reading import reading, require_file
from pixelwise.imageio.sidecars import read_mask_file, read_nodata_file
from pixelwise.imageio.windows import LARGE, WindowReader, open_windows
from pixelwise.labels import Colour
from pixelwise.tiles import Window

_FLOAT32_MAX = float(np.finfo(np.float32).max)
_T = TypeVar("_T")
_Opened = TypeVar("_Opened")
_Read = tuple[NDArray[Any], Grid, NDArray[np.bool_] | None]


@dataclass(frozen=True)
class Limits:
    """The largest image that is decoded: pixels, bands, and bytes of memory after decoding."""

    pixels: int = 400_000_000
    bands: int = 1024
    bytes: int = 16_000_000_000


@dataclass(frozen=True)
class RawMask:
    """The values of a mask file, before they are interpreted.

    Args:
        values: (H, W) integers; (H, W, 3) uint8 if `kind` is "colour", or "lossy" in colour.
        kind: "index" (grey integers), "palette" (indices into `palette`), "binary" (1-bit, 0 and 1), "colour", or
            "lossy" (a compression that changes values).
        palette: the colours of a "palette" mask.
        format: "PNG", "JPEG", "TIFF", … (see `file_formats`).
        bands: bands in the file; more than one of an "index" mask are equal, and `values` is one of them.
    """

    values: NDArray[Any]
    kind: str
    palette: list[Colour] | None
    format: str
    bands: int = 1

    def single_band(self) -> RawMask:
        """Return a mask of colours whose three bands are equal as the "index" mask of one band; others unchanged."""
        if self.kind != "colour" or not _equal_bands(self.values):
            return self
        return replace(self, values=np.ascontiguousarray(self.values[..., 0]), kind="index", bands=3)


def read_image(path: Path | str, limits: Limits = Limits()) -> tuple[NDArray[Any], Grid]:
    """Read an image without its validity; see `read_with_validity`."""
    return read_with_validity(path, None, limits)[:2]


def read_with_validity(
    path: Path | str, nodata: float | None = None, limits: Limits = Limits(), window: Window | None = None
) -> tuple[NDArray[Any], Grid, NDArray[np.bool_] | None]:
    """Read an image, or a window of it, and which of its pixels hold data.

    Pixels hold no data where they equal `nodata` or the file's own nodata value (see `differs_from`), where the file's mask is
    zero, and in a georeferenced TIFF where alpha is zero. Unless alpha composites them over black, they keep their values,
    which may be NaN or infinite.

    Args:
        path: of the file.
        nodata: stored value of pixels without data, besides the value that the file defines.
        limits: the largest image to decode. With a window, they apply to the window and to each strip or tile of a TIFF; other
            files are decoded as a whole.
        window: (H, W), inside the image with its orientation applied. What is read equals the same window of the whole image.

    Returns:
        The image (C, H, W), contiguous, in the type of the file (uint8, uint16, int16, float32, …); the grid of the whole image; and
        valid (H, W), or None if all pixels are valid.

    Raises:
        ImageError: not a readable image, one beyond the limits, or one with NaN or infinite values in valid pixels.
    """
    path = Path(path)

    def work(header: Header, raster: Raster, counts: AlphaCounts | None = None) -> _Read:
        opaque = read_mask_file(path, header, limits.pixels, window)
        with np.errstate(over="ignore", invalid="ignore"):  # pixels without data may hold anything
            bands = _bands(raster, counts)
            valid = _valid(raster, {header.nodata, nodata}, opaque)
        require_finite(bands, valid)
        return np.ascontiguousarray(np.moveaxis(bands, -1, 0)), header.grid or Grid(), valid

    def whole(header: Header, decode: Decoder) -> _Read:
        _require_within(header, limits, header.size)
        return work(header, decode())

    def part(header: Header, reader: WindowReader) -> _Read:
        assert window is not None
        _require_within(header, limits, window.shape if reader.decodes_windows else header.size)
        most = min(limits.pixels, limits.bytes // (header.samples * header.dtype.itemsize))
        return work(header, reader.read(window, most), reader.alpha(most))

    if window is None:
        return _with_file(path, ImageError, open_as, whole)
    return _with_file(path, ImageError, open_windows, part)


def read_header(path: Path | str) -> Header:
    """Read the header of an image file.

    Raises:
        ImageError: no readable header.
    """
    return _with_file(Path(path), ImageError, open_as, lambda header, _: header)


def read_size(path: Path | str) -> tuple[int, int, int]:
    """Return (bands, H, W) as `read_image` would, from the header alone.

    Raises:
        ImageError: no readable header.
    """
    header = read_header(path)
    return (header.bands, *header.oriented_size)


def read_orientation(path: Path | str) -> int:
    """Return the EXIF orientation, 1–8, that `read_image` applies; 1 if the file has none.

    Raises:
        ImageError: no readable header.
    """
    return read_header(path).orientation


def read_mask_values(path: Path | str, limits: Limits = Limits(), window: Window | None = None) -> RawMask:
    """Read the values of a mask, or of a window of it, as they are stored, with the orientation applied.

    Args:
        path: of the file.
        limits: the largest mask to decode; with a window, see `read_with_validity`.
        window: (H, W), inside the mask with its orientation applied.

    Raises:
        MaskError: not a readable image, one beyond the limits, several bands that differ, transparent pixels, fractions, or a
            window that is not inside the mask.
    """

    def whole(header: Header, decode: Decoder) -> RawMask:
        _require_within(header, limits, header.size)
        return _as_mask(header, decode())

    def part(header: Header, reader: WindowReader) -> RawMask:
        assert window is not None
        if any(stop > size for stop, size in zip(window.stop, header.oriented_size, strict=True)):
            found = "×".join(map(str, header.oriented_size))
            expected = f"a mask of at least {'×'.join(map(str, window.stop))} pixels, as its image has"
            raise Refused(expected, found, "Save the mask at the size of its image.")
        _require_within(header, limits, window.shape if reader.decodes_windows else header.size)
        return _as_mask(header, reader.read(window, limits.pixels))

    if window is None:
        return _with_file(Path(path), MaskError, open_as, whole)
    return _with_file(Path(path), MaskError, open_windows, part)


def read_whole_mask(path: Path | str, limits: Limits = Limits()) -> RawMask | tuple[int, int]:
    """Read the values of a mask; of one that is so large that it is read by windows, return only (H, W). Raises as `read_mask_values`."""

    def work(header: Header, decode: Decoder) -> RawMask | tuple[int, int]:
        if header.size[0] * header.size[1] > LARGE and isinstance(decode, WindowDecoder):
            return header.oriented_size
        _require_within(header, limits, header.size)
        return _as_mask(header, decode())

    return _with_file(Path(path), MaskError, open_as, work)


def _as_mask(header: Header, raster: Raster) -> RawMask:
    """Return the values of a decoded mask."""
    values = _without_alpha(raster)
    kind = {"bit": "binary", "grey": "index", "palette": "palette", "rgb": "colour"}.get(header.kind, "cmyk")
    palette = raster.palette
    if palette is not None and header.format == "GIF":
        values, kind, palette = _colours(values, palette)[..., :3], "colour", None
    stored = values.shape[2]
    if stored > 1 and (kind == "index" or (kind == "colour" and values.dtype != np.uint8)) and _equal_bands(values):
        values, kind = values[..., :1], "index"
    bands = 3 if kind == "colour" else 1
    if values.shape[2] != bands or (kind == "colour" and values.dtype != np.uint8) or kind == "cmyk":
        found = f"{values.shape[2]} bands of {values.dtype.name}"
        raise Refused("one band of class ids, or RGB colours of 8 bits", found, "Save the mask as an 8-bit PNG.")
    if kind == "binary" and header.inverted:
        values = 1 - values
    values = np.ascontiguousarray(values if kind == "colour" else as_integers(values[..., 0]))
    colours = None if palette is None else [(r, g, b) for r, g, b, _ in palette.tolist()]
    return RawMask(values, "lossy" if header.lossy else kind, colours, header.format, stored)


def to_rgb8(image: NDArray[Any], limits: NDArray[np.float32] | None = None) -> NDArray[np.uint8]:
    """Convert an image to 8-bit RGB for display.

    8-bit values are kept; others are stretched per band between two limits. Of one or two bands the first is shown in grey, of
    more the first three as colours.

    Args:
        image: (C, H, W).
        limits: lowest and highest value per band that is shown, (2, 1 or 3); None for those of `display_limits` of this image.

    Returns:
        (H, W, 3) uint8.
    """
    shown = np.moveaxis(_shown(image), 0, -1)
    if shown.dtype != np.uint8:
        if limits is None:
            step = max(1, int((shown.shape[0] * shown.shape[1] / 1_000_000) ** 0.5))
            limits = display_limits(image[:, ::step, ::step])
        low, high = limits
        span = np.where(high > low, high - low, 1)
        with np.errstate(over="ignore", invalid="ignore"):
            scaled = (shown.astype(np.float32) - low) / span
        shown = (np.clip(np.nan_to_num(scaled), 0, 1) * 255 + 0.5).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(shown, (*shown.shape[:2], 3)))


def display_limits(image: NDArray[Any]) -> NDArray[np.float32]:
    """Return the 2nd and 98th percentile of each band of an image (C, *S) that is shown, (2, 1 or 3); 0 without a value."""
    shown = _shown(image)
    values = shown.reshape(len(shown), -1).astype(np.float32)
    if not values.size:
        return np.zeros((2, len(shown)), np.float32)
    return np.nan_to_num(np.nanpercentile(values, (2, 98), axis=1)).astype(np.float32)


def _shown(image: NDArray[Any]) -> NDArray[Any]:
    """Return the bands that are shown: the first of one or two, the first three of more."""
    return image[: 3 if len(image) >= 3 else 1]


def list_images(folder: Path | str) -> list[Path]:
    """List the images directly in a folder, by `file_formats.image_files`, in natural order and without hidden files.

    Raises:
        ImageError: no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        found = "a file" if folder.exists() else "nothing"
        raise ImageError(folder, expected="a folder of images", found=found, do="Check the path.")
    files = [path for path in image_files(folder.iterdir()) if not path.name.startswith(".")]
    return sorted((path for path in files if path.is_file()), key=lambda path: natural_key(path.name))


def natural_key(name: str) -> tuple[list[tuple[int, str]], str]:
    """Return a key that sorts numbers inside names by value: img2 before img10."""
    parts = re.split(r"([0-9]+)", name.lower())
    return [(int(part), "") if place % 2 else (0, part) for place, part in enumerate(parts)], name


def _with_file(
    path: Path,
    error: type[DataError],
    opening: Callable[[BinaryIO, str], tuple[Header, _Opened]],
    work: Callable[[Header, _Opened], _T],
) -> _T:
    """Open a file and call `work` with its header and decoder; every failure becomes an `error` with the path."""
    with reading(path, error, "image") as content:
        require_file(path, f"a {READABLE} file")
        with path.open("rb") as file:
            content.name = detect(file)
            header, opened = opening(file, content.name)
            nodata = read_nodata_file(path)
            return work(header if nodata is None else replace(header, nodata=nodata), opened)


def _require_within(header: Header, limits: Limits, size: tuple[int, ...]) -> None:
    """Raise if an image, or a window of it, of this size (H, W) is beyond the limits."""
    height, width = size
    if height * width > limits.pixels:
        raise Refused(
            f"at most {limits.pixels:,} pixels",
            f"{width}×{height} = {height * width:,} in the {'header' if size == header.size else 'window'}",
            "Cut the image into parts, or read it with larger Limits.",
        )
    if header.samples > limits.bands:
        raise Refused(f"at most {limits.bands} bands", str(header.samples), "Select the bands that matter.")
    needed = height * width * max(header.samples, header.bands) * header.dtype.itemsize
    if needed > limits.bytes:
        raise Refused(f"at most {limits.bytes:,} bytes once decoded", f"{needed:,}", "Cut the image into parts.")


def _bands(raster: Raster, counts: AlphaCounts | None = None) -> NDArray[Any]:
    """Convert a raster to its bands (H, W, C) by the rules of this module; `counts` are those of its alpha, or of the whole file's."""
    header = raster.header
    values = raster.values
    if raster.palette is not None:
        colours = _colours(values, raster.palette)
        return _over_black(colours[..., :3], colours[..., 3:], 255)
    top = top_value(header)
    opaque: float = top
    alpha = None
    if raster.transparent is not None:
        alpha = np.where((values == raster.transparent).all(axis=-1, keepdims=True), 0, top).astype(values.dtype)
    if header.alpha is not None:
        alpha = values[..., header.alpha : header.alpha + 1]
        values = np.delete(values, header.alpha, axis=-1)
        if counts is None and np.all(alpha == top):
            alpha = None
        else:
            counts = counts or AlphaCounts.of(alpha, header)
            counts.require_alpha(header)
            opaque = counts.opaque(header)
            alpha = None if header.premultiplied else alpha
    if header.inverted:  # after alpha is removed, which is never inverted
        values = (top - values).astype(values.dtype)
    if header.kind == "cmyk":
        ink = values[..., 3:4]
        values = np.concatenate([_times(top - values[..., :3], top - ink, top), values[..., 4:]], axis=-1)
    if alpha is not None:
        values = _over_black(values, alpha, opaque)
    if top < 255 and values.dtype == np.uint8:
        values = ((values.astype(np.uint16) * 255 + top // 2) // top).astype(np.uint8)
    return values


def _colours(values: NDArray[Any], palette: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the colours and alpha (H, W, 4) of palette indices (H, W, 1)."""
    if values.max() >= len(palette):
        found = f"index {values.max()}"
        raise Refused(f"palette indices 0–{len(palette) - 1}", found, "Save the image as RGB.")
    return palette[values[..., 0]]


def _equal_bands(values: NDArray[Any]) -> bool:
    """Whether all bands of (H, W, C) are equal; a sample is compared first, which is fast."""
    first = values[..., :1]
    return bool((values[::16, ::16] == first[::16, ::16]).all() and (values == first).all())


def _valid(
    raster: Raster, nodata: Iterable[float | None], opaque: NDArray[np.bool_] | None
) -> NDArray[np.bool_] | None:
    """Return where (H, W) a raster holds data, by its stored values and masks; None if it does everywhere."""
    header = raster.header
    stored = raster.values
    marks = [mask for mask in (raster.opaque, opaque) if mask is not None]
    if header.alpha is not None:
        if header.georeferenced:
            marks.append(stored[..., header.alpha] > 0)
        stored = np.delete(stored, header.alpha, axis=-1)
    marks += [differs_from(value, stored) for value in nodata if value is not None]
    valid: NDArray[np.bool_] | None = np.logical_and.reduce(marks) if marks else None
    return None if valid is None or valid.all() else np.ascontiguousarray(valid)


def differs_from(nodata: float, stored: NDArray[Any], axis: int = -1) -> NDArray[np.bool_]:
    """Return where pixels hold data: where their stored values differ from nodata.

    A pixel holds no data if any band equals nodata; if nodata is not negative and the values are integers, only if all bands do,
    since 0 and 255 are also colours. Nodata is rounded to the type of floats, as the values were; integers never equal a
    fraction, NaN, or a value outside of their range.

    Args:
        nodata: the value, or NaN.
        stored: values of all bands.
        axis: of the bands.
    """
    planes = np.moveaxis(stored, axis, 0)
    if stored.dtype.kind == "f":
        with np.errstate(over="ignore"):
            value = stored.dtype.type(nodata)
        equal = (np.isnan(plane) if np.isnan(nodata) else plane == value for plane in planes)
    elif isinstance(nodata, int) or nodata.is_integer():
        equal = (plane == int(nodata) for plane in planes)
    else:
        return np.ones(planes.shape[1:], bool)
    combine = np.logical_or if nodata < 0 or stored.dtype.kind == "f" else np.logical_and
    # Band by band, since numpy is slow in reducing short axes.
    return ~functools.reduce(lambda one, other: combine(one, other, out=one), equal)


def valid_voxels(image: NDArray[Any], nodata: float | None) -> NDArray[np.bool_] | None:
    """Return where (*S) an image (C, *S) of stored values differs from nodata; None if it does everywhere."""
    valid = None if nodata is None else differs_from(nodata, image, axis=0)
    return None if valid is None or valid.all() else valid


def fill_invalid(
    image: NDArray[Any], valid: NDArray[np.bool_] | None, fill: Sequence[float] | None = None
) -> NDArray[Any]:
    """Replace the pixels of an image (C, *S) that are not valid (*S) by one value per band.

    Args:
        image: returned as it is if all pixels are valid.
        valid: false where the image holds no data; None if all pixels are valid.
        fill: value per band, rounded for integers; None for the smallest valid value of each band, or 0 without any.
    """
    if valid is None:
        return image
    if fill is None:
        fill = image[:, valid].min(axis=1).tolist() if valid.any() else [0.0] * len(image)
    values = np.asarray(fill, np.float64 if image.dtype.kind == "f" else None)
    values = np.rint(values) if image.dtype.kind != "f" else values
    return np.where(valid, image, values.astype(image.dtype).reshape(-1, *(1,) * (image.ndim - 1)))


def _over_black(values: NDArray[Any], alpha: NDArray[Any], top: float) -> NDArray[Any]:
    return values if np.all(alpha == top) else _times(values, alpha, top)


def _times(values: NDArray[Any], share: NDArray[Any], top: float) -> NDArray[Any]:
    """Multiply by share / top, rounded for integers."""
    if values.dtype.kind == "f":
        return (values * (share / top)).astype(values.dtype, copy=False)
    wide = np.uint32 if values.dtype.itemsize <= 2 and values.dtype.kind == "u" else np.float64
    product = values.astype(wide) * share.astype(wide)
    return ((product + wide(top // 2)) // wide(top)).astype(values.dtype)


def require_finite(bands: NDArray[Any], valid: NDArray[np.bool_] | None = None) -> None:
    """Raise if an image (H, W, C) has NaN, infinite or too large values in valid pixels (H, W); networks compute in float32.

    Raises:
        Refused: it has some.
    """
    if bands.dtype.kind != "f" or not _exceeds_float32(bands):
        return
    checked = bands if valid is None else bands[valid]
    size = np.abs(checked)
    nan, infinite = int(np.isnan(size).any(axis=-1).sum()), int(np.isinf(size).any(axis=-1).sum())
    large = int((np.isfinite(size) & (size > _FLOAT32_MAX)).any(axis=-1).sum())
    counts = {"{} NaN pixel{}": nan, "{} infinite pixel{}": infinite, "{} pixel{} beyond ±3.4e38": large}
    found = " and ".join(text.format(n, "s" * (n != 1)) for text, n in counts.items() if n)
    if not found:
        return
    do = "Fill those pixels with a number and mark them as ignored in the mask, or crop the image to where it has data."
    if not infinite and bool(nan) != bool(large):
        nodata = "nan" if nan else repr(checked.flat[size.argmax()].item())
        do = (
            f"If {'NaN' if nan else nodata} means no data: --set data.nodata={nodata} (check, train, evaluate), or write it into"
            " the file as its nodata value. Otherwise fill those pixels with a number."
        )
    raise Refused("finite values of float32" if large else "finite values", found, do)


def _exceeds_float32(values: NDArray[Any]) -> bool:
    return not bool(np.isfinite(values).all()) or (
        values.dtype.itemsize > 4 and bool(np.abs(values).max() > _FLOAT32_MAX)
    )


def _without_alpha(raster: Raster) -> NDArray[Any]:
    """Return a mask's values without alpha, which must be opaque everywhere."""
    place = raster.header.alpha
    values = raster.values
    if place is None:
        return values
    hidden = int(np.count_nonzero(values[..., place] != top_value(raster.header)))
    if hidden:
        found = f"{hidden} transparent pixel{'s' * (hidden != 1)}"
        raise Refused("an opaque mask", found, "Save the mask without transparency.")
    return np.delete(values, place, axis=-1)


def as_integers(values: NDArray[Any]) -> NDArray[Any]:
    """Return integers; floats must have whole values.

    Raises:
        Refused: fractions, or values that are too large for ids.
    """
    if values.dtype.kind != "f":
        return values
    fractions = int(np.count_nonzero(~np.isfinite(values) | (values != np.round(values))))
    top = 0.0 if fractions else float(np.abs(values).max())
    if fractions or top > 2**31:
        found = f"{fractions} fractions or NaN among float values" if fractions else f"float values up to ±{top:.3g}"
        raise Refused("whole numbers", found, "Save the mask as whole numbers.")
    return values.astype(np.int32 if top < 2**31 else np.int64)
