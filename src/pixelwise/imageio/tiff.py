"""TIFF files, decoded by tifffile and imagecodecs: the header first, the pixels on demand.

Pixels are returned as they are stored, with any number of bands, chunky or planar. No second file is ever opened, whatever
names the first one holds.
"""

from __future__ import annotations

from typing import Any, BinaryIO

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from pixelwise.imageio.georeference import has_position, read_grid, read_nodata
from pixelwise.imageio.raster import Decoder, Header, Kind, Raster, Refused, apply_orientation, as_samples

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
    stored = page.asarray(squeeze=False, maxworkers=1)[:, 0]  # (planes, H, W, samples of a plane)
    values = stored[0] if stored.shape[0] == 1 else np.moveaxis(stored[..., 0], 0, -1)
    if convert:
        values = np.asarray(Image.fromarray(np.ascontiguousarray(values), "YCbCr").convert("RGB"))
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def _require_complete(page: Any, file: BinaryIO) -> None:
    """Raise if strips or tiles are outside the file or were never written; tifffile fills those with zeros."""
    pieces = list(zip(page.dataoffsets, page.databytecounts, strict=False))
    end = file.seek(0, 2)
    if any(offset + count > end for offset, count in pieces):
        raise EOFError("truncated")
    absent = sum(offset == 0 or count == 0 for offset, count in pieces)
    if absent or not pieces:
        raise Refused(
            "every strip or tile of the image",
            f"{absent} of {len(pieces)} never written",
            "Write the file again completely (GDAL: without SPARSE_OK).",
        )


def _opaque(tif: Any, page: Any, file: BinaryIO, orientation: int) -> NDArray[np.bool_] | None:
    """Read the transparency mask (H, W) that GDAL calls an internal mask; None if the file has none."""
    for other in tif.pages:
        kind = int(other.subfiletype)
        if kind & _TRANSPARENCY and not kind & _REDUCED and other.shape == (page.imagelength, page.imagewidth):
            return apply_orientation(_decode(other, file)[..., 0] != 0, orientation)
    return None


def _palette(page: Any) -> NDArray[np.uint8]:
    """Return the palette as (N, 4); 16-bit values are reduced to 8 bits, unless they are 8-bit values already."""
    colours = np.asarray(page.colormap).T
    colours = colours >> 8 if colours.size and colours.max() > 255 else colours
    return np.concatenate([colours, np.full((len(colours), 1), 255)], axis=1).astype(np.uint8)
