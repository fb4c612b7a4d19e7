"""One TIFF as stored: its header first, its pixels on demand; through tifffile, and Pillow for what that cannot unpack.

Comes in: an open file. Goes out: a `Header`, and a function that decodes the pixels as they are stored, any number of
bands, chunky or planar. Knows nothing of classes, limits or what the pixels are for. It never opens a second file,
whatever names the first one holds.
"""

from __future__ import annotations

import sys
from typing import Any, BinaryIO

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

from pixelwise.imageio.georeference import read_grid, read_nodata
from pixelwise.imageio.raster import (
    MODES,
    Header,
    Kind,
    Raster,
    Refused,
    Source,
    as_samples,
    turn,
    unstretched,
    with_raw_mode,
)

_KINDS: dict[int, tuple[Kind, int]] = {  # photometric interpretation → meaning and number of its own samples
    0: ("grey", 1),
    1: ("grey", 1),
    2: ("rgb", 3),
    3: ("palette", 1),
    4: ("grey", 1),
    5: ("cmyk", 4),
    6: ("rgb", 3),
}
_YCBCR = 6
_LOSSY = {6, 7, 34892}  # JPEG in its old, present and DNG forms


def open_tiff(file: BinaryIO) -> Source:
    """Read the header of a TIFF that holds one image (overviews and transparency masks beside it are passed over).

    Raises:
        Refused: several images, a volume, or pixels of a kind that is not understood. tifffile's own exceptions where
            the file is broken.

    """
    file.seek(0)
    tif = tifffile.TiffFile(file)
    page = _only_page(tif)
    header = _header(page)

    def decode() -> Raster:
        _check_complete(page, file)
        values, orientation = _pixels(file, page, header)
        return Raster(
            header, turn(as_samples(values), orientation), _palette(page) if header.kind == "palette" else None
        )

    return header, decode


def _only_page(tif: Any) -> Any:
    full = None
    for page in tif.pages:
        if int(page.subfiletype) & 0b101:  # a smaller copy, or a transparency mask
            continue
        if full is not None:
            raise _several(f"{len(tif.pages)} pages")
        full = page
    if full is None:
        raise EOFError("truncated")
    images = int((tif.imagej_metadata or {}).get("images", 1)) if tif.is_imagej else 1
    if images > 1 or full.imagedepth > 1:
        raise _several(f"a stack of {max(images, full.imagedepth)} slices")
    return full


def _several(found: str) -> Refused:
    return Refused(
        "one image in the file",
        found,
        "Save slices as one file each; save bands as one page "
        "(tifffile.imwrite(path, bands, planarconfig='separate', photometric='minisblack')).",
    )


def _header(page: Any) -> Header:
    samples, photometric = int(page.samplesperpixel), int(page.photometric)
    dtype = None if page.dtype is None else np.dtype(page.dtype)
    if samples > 1 and "BitsPerSample" not in page.tags:  # it lies in a part of the file that is gone
        raise EOFError("truncated")
    kind, own = _KINDS.get(photometric, ("grey", 0))
    if kind == "cmyk" and samples < 4:
        kind, own = "grey", 1
    if own == 0 or samples < own or dtype is None or dtype.kind not in "buif" or (kind == "palette" and samples > 1):
        name = getattr(page.photometric, "name", photometric)
        raise Refused(
            "grey, palette, RGB or CMYK pixels of whole or real numbers",
            f"{samples} × {page.bitspersample} bits, {name}",
            "Save the image as plain grey, RGB or bands.",
        )
    extras = [int(extra) for extra in page.extrasamples]
    alpha = next((own + place for place, extra in enumerate(extras) if extra in (1, 2)), None)
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
        premultiplied=alpha is not None and extras[alpha - own] == 1,
        inverted=photometric == 0,
        orientation=orientation,
        lossy=int(page.compression) in _LOSSY or photometric == _YCBCR,
        grid=read_grid(page.tags) if orientation == 1 else None,
        nodata=read_nodata(page.tags),
    )


def _check_complete(page: Any, file: BinaryIO) -> None:
    """Refuse pieces that lie outside the file or were never written; readers fill those with zeros."""
    pieces = list(zip(page.dataoffsets, page.databytecounts, strict=False))
    end = file.seek(0, 2)
    if any(offset + count > end for offset, count in pieces):
        raise EOFError("truncated")
    absent = sum(offset == 0 or count == 0 for offset, count in pieces)
    if absent or not pieces:
        raise Refused(
            "every strip or tile of the image",
            f"{absent} of {len(pieces)} never written",
            "Write the file again, whole (GDAL: without SPARSE_OK).",
        )


def _pixels(file: BinaryIO, page: Any, header: Header) -> tuple[NDArray[Any], int]:
    """Decode to (H, W, samples); give the orientation still to be applied too."""
    if int(page.photometric) == _YCBCR:
        return _by_pillow(file, page, header), 1
    try:
        stored = page.asarray(squeeze=False, maxworkers=1)[:, 0]  # (planes, H, W, chunky samples)
    except Exception as error:
        if "imagecodecs" not in str(error) and not isinstance(error, ImportError | TypeError):
            raise
        return _by_pillow(file, page, header), 1
    values = stored[0] if stored.shape[0] == 1 else np.moveaxis(stored[..., 0], 0, -1)
    return values.astype(values.dtype.newbyteorder("="), copy=False), header.orientation


def _by_pillow(file: BinaryIO, page: Any, header: Header) -> NDArray[Any]:
    """Decode what tifffile cannot unpack by itself (LZW, JPEG, fax, …), and turn it upright: Pillow does so anyway.

    Raises:
        Refused: Pillow would lose bits or bands, or cannot unpack it either.

    """
    first = _open_by_pillow(file, page)
    if first is None or not _keeps_all(first, header):
        raise _needs_imagecodecs(page, header)
    wide = header.bits == 16 and first.mode in ("RGB", "RGBA")
    if wide or first.mode == "RGBA":  # leave colours multiplied by alpha as stored
        with_raw_mode(first, first.mode + ";16N" * wide)
    first.load()
    values = as_samples(np.asarray(first))
    again = _open_by_pillow(file, page) if wide else None
    if again is not None:  # Pillow unpacks 16-bit colours to their high byte; the other byte order gives the low one
        with_raw_mode(again, f"{again.mode};16{'B' if sys.byteorder == 'little' else 'L'}")
        again.load()
        values = values.astype(np.uint16) << 8 | as_samples(np.asarray(again))
    values = unstretched(values, header.kind, header.bits)
    if (
        header.inverted and header.bits <= 8
    ):  # Pillow shows 0 as white; as stored it is 0. Deeper values it leaves alone
        values = (2**header.bits - 1 - values).astype(values.dtype)
    return values.astype(header.dtype, copy=False)


def _open_by_pillow(file: BinaryIO, page: Any) -> TiffImagePlugin.TiffImageFile | None:
    """Open the page; None where Pillow does not know its layout, or would complain of its size."""
    if int(page.imagelength) * int(page.imagewidth) > (Image.MAX_IMAGE_PIXELS or sys.maxsize):
        return None
    file.seek(0)
    try:
        image = TiffImagePlugin.TiffImageFile(file)
        image.seek(int(page.index))
    except (SyntaxError, OSError, KeyError):
        return None
    return image


def _keeps_all(image: TiffImagePlugin.TiffImageFile, header: Header) -> bool:
    """Tell whether Pillow gives every sample, and every bit of it."""
    if image.mode in ("I", "F", "I;16", "I;16B"):
        return header.samples == 1
    known = MODES.get("RGB" if image.mode == "YCbCr" else image.mode)
    splits = image.mode in ("RGB", "RGBA") and header.bits == 16 and image.tile[0][0] == "libtiff"
    return known is not None and known[1] == header.samples and (header.bits <= 8 or splits)


def _needs_imagecodecs(page: Any, header: Header) -> Refused:
    name = getattr(page.compression, "name", str(page.compression))
    return Refused(
        "a TIFF that can be unpacked without further packages",
        f"{name} compression of {header.samples} × {header.bits} bits",
        "Install imagecodecs (pip install imagecodecs), or save the file without compression or with deflate.",
    )


def _palette(page: Any) -> NDArray[np.uint8]:
    """Give the palette as (N, 4); its 16-bit values are cut to 8 bits, unless they are 8-bit values already."""
    colours = np.asarray(page.colormap).T
    colours = colours >> 8 if colours.size and colours.max() > 255 else colours
    return np.concatenate([colours, np.full((len(colours), 1), 255)], axis=1).astype(np.uint8)
