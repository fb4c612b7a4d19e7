"""TIFF files, decoded by tifffile and imagecodecs: the header first, the pixels on demand.

Pixels are returned as they are stored, with any number of bands, chunky or planar. No second file is ever opened, whatever
names the first one holds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from pixelwise.imageio.georeference import has_position, read_grid, read_nodata
from pixelwise.imageio.raster import (
    Decoder,
    Header,
    Kind,
    Raster,
    Refused,
    apply_orientation,
    as_samples,
    require_mask_size,
)

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


def open_tiff(file: BinaryIO) -> tuple[Header, Decoder]:
    """Read the header of a TIFF that holds one image; overviews are skipped.

    Raises:
        Refused: several images, a volume, or an unsupported pixel type. tifffile's own exceptions if the file is broken.
    """
    file.seek(0)
    tif = tifffile.TiffFile(file)
    page = _only_page(tif)
    header = _header(page)

    def decode() -> Raster:
        values = apply_orientation(as_samples(_decode(page, file)), header.orientation)
        palette = _palette(page) if header.kind == "palette" else None
        return Raster(header, values, palette, opaque=_opaque(tif, page, file, header.orientation))

    return header, decode


def _only_page(tif: Any) -> Any:
    pages = [page for page in tif.pages if not int(page.subfiletype) & (_REDUCED | _TRANSPARENCY)]
    if not pages:
        raise EOFError("truncated")
    if len(pages) > 1:
        raise _several(f"{len(tif.pages)} pages")
    images = int((tif.imagej_metadata or {}).get("images", 1)) if tif.is_imagej else 1
    if images > 1 or pages[0].imagedepth > 1:
        raise _several(f"a stack of {max(images, pages[0].imagedepth)} slices")
    return pages[0]


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
    )


def _decode(page: Any, file: BinaryIO) -> NDArray[Any]:
    """Decode a page to (H, W, samples) in native byte order; YCbCr becomes RGB."""
    _require_complete(page, file)
    if page.compression not in tifffile.TIFF.DECOMPRESSORS:
        name = getattr(page.compression, "name", page.compression)
        do = "Save the file without compression, or with deflate."
        raise Refused("a compression that imagecodecs can decode", f"{name}", do)
    convert = int(page.photometric) == _YCBCR and int(page.compression) not in _JPEG  # tifffile converts JPEG itself
    if convert and page.is_subsampled:
        found = "subsampled YCbCr without JPEG compression"
        raise Refused("RGB pixels, or YCbCr in JPEG compression", found, "Save the image as RGB.")
    if int(page.bitspersample) == 24 and page.parent.byteorder == ">" and page.dtype.kind == "u":
        found = "24-bit integers in big-endian byte order, which programs write in different ways"
        raise Refused("8, 16, 32 or 64 bits", found, "Save the image with 32 bits.")
    if int(page.compression) == _LERC:
        stored = _decode_lerc(page, file)
    elif int(page.compression) == _PRESENT_JPEG and _has_no_colours(page):
        stored = _decode_jpeg(page, file)
    else:
        stored = page.asarray(squeeze=False, maxworkers=1)[:, 0]  # (planes, H, W, samples of a plane)
    values = stored[0] if stored.shape[0] == 1 else np.moveaxis(stored[..., 0], 0, -1)
    if convert:
        values = np.asarray(Image.fromarray(np.ascontiguousarray(values), "YCbCr").convert("RGB"))
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def _decode_pieces(page: Any, file: BinaryIO, decode: Callable[[bytes], NDArray[Any]]) -> NDArray[Any]:
    """Decode the strips or tiles of a page, each to (H, W, samples of a plane), to (planes, H, W, samples of a plane)."""
    planes, _, height, width, samples = page.shaped
    image = np.full((planes, height, width, samples), page.nodata, page.dtype)
    for index, (offset, count) in enumerate(zip(page.dataoffsets, page.databytecounts, strict=True)):
        if count:
            _, (plane, _, top, left, _), _ = page.decode(None, index)  # decodes nothing, but tells the position
            file.seek(offset)
            values = as_samples(decode(file.read(count)))
            target = image[plane, top : top + values.shape[0], left : left + values.shape[1]]
            target[:] = values[: target.shape[0], : target.shape[1]]
    return image


def _has_no_colours(page: Any) -> bool:
    """Whether JPEG must not convert colours: in separate planes, and in three bands that are neither RGB nor YCbCr."""
    bands = int(page.samplesperpixel) == 3 and int(page.photometric) not in (_RGB, _YCBCR)
    return bands or (int(page.planarconfig) == _SEPARATE and int(page.samplesperpixel) > 1)


def _decode_jpeg(page: Any, file: BinaryIO) -> NDArray[Any]:
    """Decode JPEG whose samples are no colours of JPEG's own: separate planes, and three bands of any kind.

    tifffile expects colours in the former, and converts the latter from YCbCr.
    """
    import imagecodecs

    colours = None if int(page.planarconfig) == _SEPARATE else _RGB

    def decode(data: bytes) -> NDArray[Any]:
        values: NDArray[Any] = imagecodecs.jpeg_decode(
            data, tables=page.jpegtables, bitspersample=page.bitspersample, colorspace=colours, outcolorspace=colours
        )
        return values

    return _decode_pieces(page, file, decode)


def _decode_lerc(page: Any, file: BinaryIO) -> NDArray[Any]:
    """Decode LERC, whose pieces mark pixels by a mask, which tifffile drops.

    By the convention of libtiff, masked pixels are NaN in floats; in 8-bit images, the mask replaces an alpha band of 0 and
    255. Values are encoded in the byte order of the file.

    Raises:
        Refused: floats in big-endian order of which libtiff lost some, since swapped bytes may look like NaN.
    """
    import imagecodecs

    order = page.parent.byteorder

    def decode(data: bytes) -> NDArray[Any]:
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

    return _decode_pieces(page, file, decode)


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


def _opaque(tif: Any, page: Any, file: BinaryIO, orientation: int) -> NDArray[np.bool_] | None:
    """Read the transparency mask (H, W) that GDAL calls an internal mask; None if the file has none.

    Raises:
        Refused: it has another size than the image.
    """
    size = (int(page.imagelength), int(page.imagewidth))
    for other in tif.pages:
        kind = int(other.subfiletype)
        if kind & _TRANSPARENCY and not kind & _REDUCED:
            found = (int(other.imagelength), int(other.imagewidth))
            require_mask_size(found, size, "an internal mask")
            return apply_orientation((_decode(other, file) != 0).all(axis=-1), orientation)
    return None


def _palette(page: Any) -> NDArray[np.uint8]:
    """Return the palette as (N, 4); 16-bit values are reduced to 8 bits, unless they are 8-bit values already."""
    colours = np.asarray(page.colormap).T
    colours = colours >> 8 if colours.size and colours.max() > 255 else colours
    return np.concatenate([colours, np.full((len(colours), 1), 255)], axis=1).astype(np.uint8)
