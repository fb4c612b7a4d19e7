"""TIFF files, decoded by tifffile and imagecodecs: the header first, the pixels on demand, of a window or of the whole image.

A window is decoded from the strips or tiles that it needs, by the same functions as the whole image. Pixels are returned as they are stored, with any number of bands, chunky or planar. No second file is ever opened, whatever
names the first one holds.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Iterator
from typing import Any, BinaryIO

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from pixelwise.imageio.band_names import read_band_names
from pixelwise.imageio.georeference import has_position, read_grid, read_nodata
from pixelwise.imageio.pieces import Pieces, read_rows
from pixelwise.imageio.raster import (
    Header,
    Kind,
    Raster,
    Refused,
    WindowDecoder,
    apply_orientation,
    as_samples,
    oriented_window,
    require_mask_size,
    stored_window,
)
from pixelwise.tiles import Window

_KINDS: dict[int, tuple[Kind, int]] = {  # photometric interpretation: kind and number of colour samples
    0: ("grey", 1),
    1: ("grey", 1),
    2: ("rgb", 3),
    3: ("palette", 1),
    4: ("grey", 1),
    5: ("cmyk", 4),
    6: ("rgb", 3),
}
_YCBCR = 6
_JPEG = {6, 7, 33007, 34892}  # old-style, present, alternative and DNG
_PRESENT_JPEG = 7
_LERC = 34887
_RGB = 2
_SEPARATE = 2  # planar configuration
_REDUCED = 1  # bits of NewSubfileType
_TRANSPARENCY = 4
_ROWS = 1 << 22  # pixels that are read at once where the strip does not matter


class TiffDecoder(WindowDecoder):
    """Decodes the image of a TIFF.

    Args:
        header: of the file.
        page: the image.
        mask: the transparency mask, which GDAL calls an internal mask; None if the file has none.
        file: for decoding the whole image.
    """

    def __init__(self, header: Header, page: Any, mask: Any, file: BinaryIO) -> None:
        self._header, self._page, self._mask, self._file = header, page, mask, file
        self._pieces: dict[int, Pieces] = {}
        # Read now, since windows are decoded from other handles of the file.
        self._palette = _palette(page) if header.kind == "palette" else None

    def __call__(self) -> Raster:
        """Decode the whole image from the file that was opened."""
        return self._raster(lambda page: _decode(page, self._file))

    def window(self, file: BinaryIO, window: Window, most: int, key: Hashable | None) -> Raster:
        """Decode a window; see `WindowDecoder.window`."""
        box = stored_window(window, self._header)
        return self._raster(lambda page: self._decode_window(page, file, box, most, key))

    def boxes(self) -> Iterator[Window]:
        """Yield windows that cover the image and that each need one strip or tile."""
        height, width = self._header.size
        rows, columns = _piece_size(self._page)
        rows = rows if rows * columns <= _ROWS or not self._page.is_final else max(1, _ROWS // width)
        for top, left in itertools.product(range(0, height, rows), range(0, width, columns)):
            yield oriented_window(
                Window((top, left), (min(top + rows, height), min(left + columns, width))), self._header
            )

    def _raster(self, decode: Callable[[Any], NDArray[Any]]) -> Raster:
        values = apply_orientation(as_samples(decode(self._page)), self._header.orientation)
        opaque = None
        if self._mask is not None:
            found = (int(self._mask.imagelength), int(self._mask.imagewidth))
            require_mask_size(found, self._header.size, "an internal mask")
            opaque = apply_orientation((decode(self._mask) != 0).all(axis=-1), self._header.orientation)
        return Raster(self._header, values, self._palette, opaque=opaque)

    def _decode_window(self, page: Any, file: BinaryIO, box: Window, most: int, key: Hashable | None) -> NDArray[Any]:
        if page.offset not in self._pieces:
            _require_decodable(page, file)
            self._pieces[page.offset] = _pieces(page)
        pieces = self._pieces[page.offset]
        if page.is_final:
            return _finished(page, read_rows(page, file, box))
        _require_small(page, pieces.size, most)
        return _finished(page, pieces.read(file, box, key))


def open_tiff(file: BinaryIO) -> tuple[Header, TiffDecoder]:
    """Read the header of a TIFF that holds one image; overviews are skipped.

    Raises:
        Refused: several images, a volume, or an unsupported pixel type. tifffile's own exceptions if the file is broken.
    """
    file.seek(0)
    page, mask = _pages(tifffile.TiffFile(file))
    header = _header(page)
    return header, TiffDecoder(header, page, mask, file)


def _pages(tif: Any) -> tuple[Any, Any]:
    """Return the page of the image, and that of its mask or None."""
    images, mask, count = [], None, 0
    for page in tif.pages:
        kind = int(page.subfiletype)
        count += 1
        if not kind & (_REDUCED | _TRANSPARENCY):
            images.append(page)
        elif not kind & _REDUCED and mask is None:
            mask = page
    if not images:
        raise EOFError("truncated")
    if len(images) > 1:
        raise _several(f"{count} pages")
    slices = int((tif.imagej_metadata or {}).get("images", 1)) if tif.is_imagej else 1
    if slices > 1 or images[0].imagedepth > 1:
        raise _several(f"a stack of {max(slices, images[0].imagedepth)} slices")
    return images[0], mask


def _several(found: str) -> Refused:
    return Refused(
        "one image in the file",
        found,
        "Save slices as one file each; save bands as one page "
        "(tifffile.imwrite(path, bands, planarconfig='separate', photometric='minisblack')).",
    )


def _header(page: Any) -> Header:
    samples = int(page.samplesperpixel)
    photometric = int(page.photometric)
    dtype = None if page.dtype is None else np.dtype(page.dtype)
    if samples > 1 and "BitsPerSample" not in page.tags:  # the tag's values are beyond the end of the file
        raise EOFError("truncated")
    kind, colours = _KINDS.get(photometric, ("grey", 0))
    if kind == "cmyk" and samples < 4:
        kind, colours = "grey", 1
    supported = 0 < colours <= samples and not (kind == "palette" and samples > 1)
    if not supported or dtype is None or dtype.kind not in "buif":
        name = getattr(page.photometric, "name", photometric)
        raise Refused(
            "grey, palette, RGB or CMYK pixels of whole or real numbers",
            f"{samples} × {page.bitspersample} bits, {name}",
            "Save the image as plain grey, RGB or bands.",
        )
    extras = [int(extra) for extra in page.extrasamples]
    alpha = next((colours + place for place, extra in enumerate(extras) if extra in (1, 2)), None)
    bits = int(page.bitspersample)
    tag = page.tags.get("Orientation")
    orientation = int(tag.value) if tag is not None and tag.value in range(1, 9) else 1
    return Header(
        "TIFF",
        (int(page.imagelength), int(page.imagewidth)),
        samples,
        "bit" if bits == 1 and kind == "grey" and samples == 1 else kind,
        np.dtype(np.uint8) if dtype.kind == "b" else dtype.newbyteorder("="),
        bits,
        alpha,
        premultiplied=alpha is not None and extras[alpha - colours] == 1,
        inverted=photometric == 0,
        orientation=orientation,
        lossy=int(page.compression) in _JPEG or photometric == _YCBCR,
        grid=read_grid(page.tags) if orientation == 1 else None,
        nodata=read_nodata(page.tags),
        georeferenced=orientation == 1 and has_position(page.tags),
        names=tuple(name for place, name in enumerate(read_band_names(page.tags, samples)) if place != alpha),
    )


def _decode(page: Any, file: BinaryIO) -> NDArray[Any]:
    """Decode a page to (H, W, samples) in native byte order; YCbCr becomes RGB."""
    _require_decodable(page, file)
    if _own_decoder(page) is None:
        stored = page.asarray(squeeze=False, maxworkers=1)[:, 0]  # (planes, H, W, samples of a plane)
    else:
        height, width = page.shaped[2:4]
        stored = _pieces(page).read(file, Window((0, 0), (height, width)))
    return _finished(page, stored)


def _require_decodable(page: Any, file: BinaryIO) -> None:
    """Raise unless a page is complete and can be decoded."""
    _require_complete(page, file)
    if page.compression not in tifffile.TIFF.DECOMPRESSORS:
        name = getattr(page.compression, "name", page.compression)
        do = "Save the file without compression, or with deflate."
        raise Refused("a compression that imagecodecs can decode", f"{name}", do)
    if _is_ycbcr(page) and page.is_subsampled:
        found = "subsampled YCbCr without JPEG compression"
        raise Refused("RGB pixels, or YCbCr in JPEG compression", found, "Save the image as RGB.")
    if int(page.bitspersample) == 24 and page.parent.byteorder == ">" and page.dtype.kind == "u":
        found = "24-bit integers in big-endian byte order, which programs write in different ways"
        raise Refused("8, 16, 32 or 64 bits", found, "Save the image with 32 bits.")


def _is_ycbcr(page: Any) -> bool:
    """Whether colours must be converted here, since tifffile converts those of JPEG only."""
    return int(page.photometric) == _YCBCR and int(page.compression) not in _JPEG


def _finished(page: Any, stored: NDArray[Any]) -> NDArray[Any]:
    """Convert stored values (planes, H, W, samples of a plane) to (H, W, samples) in native byte order, and YCbCr to RGB."""
    values = stored[0] if stored.shape[0] == 1 else np.moveaxis(stored[..., 0], 0, -1)
    if _is_ycbcr(page):
        values = np.asarray(Image.fromarray(np.ascontiguousarray(values), "YCbCr").convert("RGB"))
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def _pieces(page: Any) -> Pieces:
    """Return the strips or tiles of a page, with their decoder."""
    own = _own_decoder(page)
    tables = {"jpegtables": page.jpegtables, "jpegheader": page.jpegheader} if int(page.compression) in _JPEG else {}
    decode_piece = page.decode

    def decode(data: bytes, index: int) -> NDArray[Any]:
        values: NDArray[Any] = as_samples(own(data)) if own else decode_piece(data, index, **tables)[0][0]
        return values

    return Pieces(page, decode, _piece_size(page))


def _piece_size(page: Any) -> tuple[int, int]:
    """Return (H, W) of a strip or tile."""
    if page.is_tiled:
        return int(page.tilelength), int(page.tilewidth)
    return max(1, int(page.rowsperstrip)), int(page.imagewidth)


def _require_small(page: Any, size: tuple[int, int], most: int) -> None:
    """Raise if a strip or tile (H, W), which must be decoded as a whole, has more than `most` pixels."""
    height, width = size
    if height * width > most:
        raise Refused(
            f"strips or tiles of at most {most:,} pixels",
            f"{width}×{height} = {height * width:,} in one",
            "Write the image in tiles (with the extra geo: rio convert IMAGE.tif TILED.tif --driver COG), or read it with "
            "larger Limits.",
        )


def _own_decoder(page: Any) -> Callable[[bytes], NDArray[Any]] | None:
    """Return the decoder of a piece to (H, W, samples of a plane) where that of tifffile does not fit, else None."""
    if int(page.compression) == _LERC:
        return lambda data: _decode_lerc(page, data)
    if int(page.compression) == _PRESENT_JPEG and _has_no_colours(page):
        return lambda data: _decode_jpeg(page, data)
    return None


def _has_no_colours(page: Any) -> bool:
    """Whether JPEG must not convert colours: in separate planes, and in three bands that are neither RGB nor YCbCr."""
    bands = int(page.samplesperpixel) == 3 and int(page.photometric) not in (_RGB, _YCBCR)
    return bands or (int(page.planarconfig) == _SEPARATE and int(page.samplesperpixel) > 1)


def _decode_jpeg(page: Any, data: bytes) -> NDArray[Any]:
    """Decode JPEG whose samples are no colours of JPEG's own: separate planes, and three bands of any kind.

    tifffile expects colours in the former, and converts the latter from YCbCr.
    """
    import imagecodecs

    colours = None if int(page.planarconfig) == _SEPARATE else _RGB
    values: NDArray[Any] = imagecodecs.jpeg_decode(
        data, tables=page.jpegtables, bitspersample=page.bitspersample, colorspace=colours, outcolorspace=colours
    )
    return values


def _decode_lerc(page: Any, data: bytes) -> NDArray[Any]:
    """Decode LERC, whose pieces mark pixels by a mask, which tifffile drops.

    By the convention of libtiff, masked pixels are NaN in floats; in 8-bit images, the mask replaces an alpha band of 0 and
    255. Values are encoded in the byte order of the file.

    Raises:
        Refused: floats in big-endian order of which libtiff lost some, since swapped bytes may look like NaN.
    """
    import imagecodecs

    order = page.parent.byteorder
    values, mask = imagecodecs.lerc_decode(data, masks=True)
    if mask is not None:
        values, mask = _lerc_samples(values, mask), _lerc_samples(mask, mask)
        if values.dtype.kind == "f":
            if order == ">" and not mask.all():
                found = "LERC in big-endian byte order, with values that were lost when it was written"
                raise Refused("floats that are all there", found, "Export the image again, little-endian.")
            values = np.where(mask, values, np.nan)
        elif values.shape[2] == page.shaped[-1] - 1:
            values = np.concatenate([values, mask * values.dtype.type(255)], axis=2)
    stored: NDArray[Any] = values.view(page.dtype.newbyteorder(order))
    return stored


def _lerc_samples(values: NDArray[Any], mask: NDArray[np.bool_]) -> NDArray[Any]:
    """Return (H, W, samples); values come as (samples, H, W) if each sample has its own mask."""
    return np.moveaxis(values, 0, -1) if mask.ndim == 3 else values.reshape(*values.shape[:2], -1)


def _require_complete(page: Any, file: BinaryIO) -> None:
    """Raise if strips or tiles are outside the file, or were never written where that does not mean "no data".

    tifffile fills absent pieces with nodata or zeros, as GDAL does: right for files with nodata and for masks of valid pixels.
    """
    pieces = list(zip(page.dataoffsets, page.databytecounts, strict=False))
    end = file.seek(0, 2)
    if any(offset + count > end for offset, count in pieces):
        raise EOFError("truncated")
    absent = sum(offset == 0 or count == 0 for offset, count in pieces)
    nodata = read_nodata(page.tags)
    filled = nodata is not None and bool(np.isclose(page.nodata, nodata, equal_nan=True))
    if not pieces or (absent and not filled and not int(page.subfiletype) & _TRANSPARENCY):
        raise Refused(
            "every strip or tile of the image",
            f"{absent} of {len(pieces)} never written",
            "Write the file again completely (GDAL: without SPARSE_OK, or with a nodata value).",
        )


def _palette(page: Any) -> NDArray[np.uint8]:
    """Return the palette as (N, 4); 16-bit values are reduced to 8 bits, unless they are 8-bit values already."""
    colours = np.asarray(page.colormap).T
    colours = colours >> 8 if colours.size and colours.max() > 255 else colours
    return np.concatenate([colours, np.full((len(colours), 1), 255)], axis=1).astype(np.uint8)
