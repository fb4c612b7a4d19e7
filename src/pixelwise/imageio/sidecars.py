"""What GDAL stores beside an image about its valid pixels: a mask (NAME.msk) and a nodata value (NAME.aux.xml).

Source: GDAL's RFC 15 (masks) and its class GDALPamDataset (.aux.xml).
"""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import ImageError
from pixelwise.imageio.georeference import parse_nodata
from pixelwise.imageio.raster import Header, Refused, apply_orientation, require_mask_size, stored_window
from pixelwise.imageio.safe_reading import reading, require_file
from pixelwise.imageio.windows import open_windows
from pixelwise.tiles import Window

_LARGEST = 16_000_000  # bytes; statistics and attribute tables take far less


def mask_file(image: Path) -> Path:
    """Return the path of the mask of valid pixels that may lie beside an image."""
    return image.with_name(f"{image.name}.msk")


def has_sidecar(image: Path) -> bool:
    """Whether a file beside an image marks invalid pixels."""
    return mask_file(image).is_file() or read_nodata_file(image) is not None


def read_mask_file(image: Path, header: Header, most: int, window: Window | None = None) -> NDArray[np.bool_] | None:
    """Read the mask (H, W) beside an image, false where it is zero in any band; None if there is none.

    Args:
        image: path of the image.
        header: of the image.
        most: pixels of a strip or tile that may be decoded for a window.
        window: of the image with its orientation applied; None for the whole mask.

    Raises:
        ImageError: it cannot be read, or has another size than the image.
    """
    path = mask_file(image)
    if not path.exists():
        return None
    from pixelwise.imageio.tiff import open_tiff

    with reading(path, ImageError, "TIFF with the mask of an image"):
        require_file(path, "a TIFF with the mask of an image")
        with path.open("rb") as file:
            if window is None:
                found, decode = open_tiff(file)
                require_mask_size(found.size, header.size, "a mask")
                values = decode().values
            else:
                found, reader = open_windows(file, "TIFF")
                require_mask_size(found.size, header.size, "a mask")
                values = reader.read(stored_window(window, header), most).values
            return apply_orientation((values != 0).all(axis=-1), header.orientation)


def read_nodata_file(image: Path) -> float | None:
    """Read the nodata value beside an image; None if there is none, or no readable file.

    Raises:
        ImageError: bands have different values.
    """
    path = image.with_name(f"{image.name}.aux.xml")
    if not path.is_file() or path.stat().st_size > _LARGEST:
        return None
    data = path.read_bytes()
    if b"<NoDataValue" not in data or b"<!DOCTYPE" in data:
        return None
    try:
        texts = {element.text or "" for element in ElementTree.fromstring(data).iter("NoDataValue")}
    except ElementTree.ParseError:
        return None
    if len(texts) > 1:
        with reading(path, ImageError, "nodata value"):
            found = f"{len(texts)}: {', '.join(sorted(texts)[:4])}"
            raise Refused(
                "one nodata value for all bands", found, "Write bands of one nodata value, or remove this file."
            )
    return parse_nodata(texts.pop()) if texts else None
