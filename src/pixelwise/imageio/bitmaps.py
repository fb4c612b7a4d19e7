"""BMP, GIF and AVIF files, decoded by Pillow: the header first, the pixels on demand.

- BMP: 1-bit pixels are 0 (black) and 1 (white) whatever the order of the palette; other palettes are kept, as in PNG.
- GIF: programs that write GIF renumber the palette, so the colours are the values: read as grey if all colours of the
  palette are grey. Only the first frame of a file is read, and more than one is refused.
- AVIF: always regarded as lossy, since the header does not tell. 10 and 12 bits are kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import BmpImagePlugin, GifImagePlugin, Image, ImagePalette, features

from pixelwise.imageio.raster import (
    Decoder,
    Header,
    Kind,
    Raster,
    Refused,
    animated,
    apply_orientation,
    as_samples,
    orientation_in,
)

_UINT8 = np.dtype(np.uint8)
_BLACK, _WHITE = (0, 0, 0), (255, 255, 255)
# Pillow's mode: kind, samples, index of alpha.
_MODES: dict[str, tuple[Kind, int, int | None]] = {
    "1": ("bit", 1, None),
    "L": ("grey", 1, None),
    "LA": ("grey", 2, 1),
    "P": ("palette", 1, None),
    "RGB": ("rgb", 3, None),
    "RGBA": ("rgb", 4, 3),
}


def open_bmp(file: BinaryIO) -> tuple[Header, Decoder]:
    """Read the header of a BMP.

    Raises:
        Refused: unsupported pixels. Pillow's own exceptions if the file is broken.
    """
    image = BmpImagePlugin.BmpImageFile(file)
    bits = _bmp_bits(file)
    if bits in (4, 8) and (image.mode == "1" or (image.mode == "L" and bits == 4)):
        _restore_palette(image, bits)
    palette = (
        _raw_palette(image.palette.palette, image.palette.rawmode) if image.mode == "P" and image.palette else None
    )
    white_first = bits == 1 and palette is not None and [*map(tuple, palette[:2].tolist())] == [_WHITE, _BLACK]
    kind, samples, alpha = ("bit", 1, None) if white_first else _MODES[image.mode]
    header = Header(
        "BMP",
        (image.height, image.width),
        samples,
        kind,
        _UINT8,
        1 if kind == "bit" else 8,
        alpha,
        inverted=white_first,
    )

    def decode() -> Raster:
        image.load()
        values = as_samples(np.asarray(image))
        if alpha is not None and not values[..., alpha].any():  # many programs leave the fourth byte at zero
            values = values.copy()
            values[..., alpha] = 255
        return Raster(header, values, _opaque(palette) if kind == "palette" and palette is not None else None)

    return header, decode


def _bmp_bits(file: BinaryIO) -> int:
    """Return the bits per pixel; the first header of BMP has shorter fields than all later ones."""
    file.seek(14)
    start = file.read(16)
    place = 10 if int.from_bytes(start[:4], "little") == 12 else 14
    return int.from_bytes(start[place : place + 2], "little")


def _restore_palette(image: Image.Image, bits: int) -> None:
    """Correct the layout that Pillow assumes for grey palettes of 2 or 16 entries: that of 1-bit or 8-bit pixels."""
    assert isinstance(image, BmpImagePlugin.BmpImageFile)
    greys = (0, 255) if image.mode == "1" else range(16)
    tile = image.tile[0]
    assert isinstance(tile.args, tuple)
    raw = "P;4" if bits == 4 and tile.codec_name == "raw" else "P"
    image.tile = [tile._replace(args=(raw, *tile.args[1:]))]
    image._mode = "P"
    image.palette = ImagePalette.raw("RGB", bytes(grey for grey in greys for _ in range(3)))


def open_gif(file: BinaryIO) -> tuple[Header, Decoder]:
    """Read the header of a GIF.

    Raises:
        Refused: an animation. Pillow's own exceptions if the file is broken.
    """
    image = GifImagePlugin.GifImageFile(file)
    if image.is_animated:
        raise animated("several frames")
    colours = _raw_palette(image.palette.palette, "RGB") if image.mode == "P" and image.palette else None
    if colours is None:
        colours = np.arange(256, dtype=np.uint8)[:, np.newaxis].repeat(3, axis=1)
    palette = _opaque(colours)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int) and transparent < len(palette):
        palette[transparent, 3] = 0
    grey = not np.ptp(colours, axis=1).any() and transparent is None
    header = Header("GIF", (image.height, image.width), 1, "grey" if grey else "palette", _UINT8)

    def decode() -> Raster:
        image.load()
        values = as_samples(np.asarray(image))
        if not grey:
            return Raster(header, values, palette)
        if values.max() >= len(colours):
            raise ValueError(f"index {values.max()} in a palette of {len(colours)} colours")
        return Raster(header, colours[values[..., 0], :1])

    return header, decode


def open_avif(file: BinaryIO) -> tuple[Header, Decoder]:
    """Read the header of an AVIF.

    Raises:
        Refused: an animation, or Pillow without AVIF. Pillow's own exceptions if the file is broken.
    """
    if not features.check("avif"):
        do = "Install a newer Pillow: pip install --upgrade pillow; or save the image as PNG."
        raise Refused("a format that the installed Pillow can read", "AVIF", do)
    from PIL import AvifImagePlugin  # not in Pillow 11.0

    image = AvifImagePlugin.AvifImageFile(file)
    if image.n_frames > 1:
        raise animated(f"{image.n_frames} frames")
    kind, samples, alpha = _MODES[image.mode]
    bits = _avif_bits(file)
    dtype = np.dtype(np.uint16) if bits > 8 else _UINT8
    orientation = orientation_in(lambda: Image.Image.getexif(image))
    size = (image.height, image.width)
    header = Header("AVIF", size, samples, kind, dtype, bits, alpha, orientation=orientation, lossy=True)

    def decode() -> Raster:
        if bits == 8:
            image.load()
            values = np.asarray(image)
        else:  # Pillow reduces these to 8 bits
            import imagecodecs

            file.seek(0)
            values = np.asarray(imagecodecs.avif_decode(file.read()))
        return Raster(header, apply_orientation(as_samples(values), orientation))

    return header, decode


def _avif_bits(file: BinaryIO) -> int:
    """Return the bits per sample (AV1 Codec ISO Media File Format Binding, 2.3.3)."""
    file.seek(0)
    start = file.read(1 << 16)
    place = start.find(b"av1C")
    flags = start[place + 6] if 0 <= place < len(start) - 6 else 0
    return (12 if flags & 0x20 else 10) if flags & 0x40 else 8


def _raw_palette(palette: Sequence[int] | None, mode: str | None) -> NDArray[np.uint8]:
    """Return Pillow's palette, as it is stored in the file, as red, green and blue per index (N, 3)."""
    table = np.frombuffer(bytes(palette or b""), np.uint8)
    table = table.reshape(-1, 4 if mode == "BGRX" else 3)[:, :3]
    return np.ascontiguousarray(table if mode == "RGB" else table[:, ::-1])


def _opaque(colours: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Add opaque alpha to a palette: (N, 4)."""
    return np.concatenate([colours, np.full((len(colours), 1), 255, np.uint8)], axis=1)
