"""Decode the frames of DICOM files to real units (HU for CT) or to RGB.

A frame is one image of a file; most files hold one. Of a file with several, only the frames that are needed are read.

| Transfer syntax | Decoded by |
|---|---|
| uncompressed, RLE | pydicom |
| JPEG (baseline, lossless), JPEG-LS | GDCM; Pillow decodes baseline without it |
| JPEG 2000 | GDCM, or Pillow |
| JPEG with 12 bits, high-throughput JPEG 2000 | imagecodecs |

Source: DICOM PS3.3, C.7.6.3 (Image Pixel), C.11.1 (Modality LUT), and PS3.5, annex A (transfer syntaxes).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from pixelwise.imageio.extras import need
from pixelwise.imageio.raster import Refused
from pixelwise.imageio.volumes import scaled, scaled_type

_GREY = ("MONOCHROME1", "MONOCHROME2")
_COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT", "PALETTE COLOR")
# Never pylibjpeg, whose decoder of JPEG is under the GPL, even if it is installed.
_PLUGINS = ("gdcm", "pillow", "pyjpegls", "pydicom")
_EXTENDED = "1.2.840.10008.1.2.4.51"
_HIGH_THROUGHPUT = ("1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.4.202", "1.2.840.10008.1.2.4.203")


@dataclass(frozen=True)
class Frame:
    """One image of a DICOM file, and how its values are stored.

    Args:
        path: of the file.
        index: of the frame in the file.
        count: frames in the file.
        size: (H, W).
        bits: that are stored of a value.
        signed: whether stored values are signed.
        slope, intercept: from stored values to real ones.
        kind: photometric interpretation.
        syntax: unique identifier of the transfer syntax.
        lookup: bits of the values of a table that replaces slope and intercept; 0 without.
        shift: unused bits below the stored ones, which old devices wrote.
    """

    path: Path
    index: int
    count: int
    size: tuple[int, int]
    bits: int
    signed: bool
    slope: float
    intercept: float
    kind: str
    syntax: str
    lookup: int = 0
    shift: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 32:
            raise Refused("1 to 32 bits per pixel", str(self.bits), "Export the series again.")
        if self.kind not in (*_GREY, *_COLOURS):
            raise Refused("grey values or RGB", f"photometric interpretation {self.kind}", "Remove the file.")

    @property
    def bands(self) -> int:
        """Values per pixel: 1, or 3 for colours."""
        return 1 if self.kind in _GREY else 3

    @property
    def ends(self) -> tuple[int, int]:
        """Smallest and largest value that can be stored."""
        low = -(2 ** (self.bits - 1)) if self.signed else 0
        return low, low + 2**self.bits - 1

    @property
    def stored(self) -> np.dtype[Any]:
        """Type of the stored values."""
        width = 8 if self.bits <= 8 else 16 if self.bits <= 16 else 32
        return np.dtype(f"{'int' if self.signed else 'uint'}{width}")

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the values in real units; a palette becomes 8-bit colours."""
        if self.kind == "PALETTE COLOR":
            return np.dtype(np.uint8)
        if self.lookup:
            return np.dtype(np.uint8 if self.lookup <= 8 else np.uint16)
        return self.stored if self.bands == 3 else scaled_type(self.stored, self.ends, self.slope, self.intercept)


def decode(frames: Sequence[Frame]) -> Iterator[NDArray[Any]]:
    """Yield the values of frames of one file, in real units: (H, W), or (H, W, 3) of colours.

    Raises:
        Refused: a compression that needs a further package, or other pixels than the header describes.
    """
    for frame, stored in zip(frames, _stored(frames), strict=True):
        if stored.shape[:2] != frame.size:
            raise Refused("as many pixels as in the header", f"shape {stored.shape}", "Export the series again.")
        yield _palette(frame, stored) if frame.kind == "PALETTE COLOR" else _real(frame, stored)


def _real(frame: Frame, stored: NDArray[Any]) -> NDArray[Any]:
    low, high = frame.ends
    stored = stored >> frame.shift if frame.shift else stored
    if frame.signed and stored.min() >= 0 and stored.max() > high:  # some decoders do not extend the sign
        stored = (((stored.astype(np.int64) & (2 * high + 1)) ^ (high + 1)) - high - 1).astype(frame.stored)
    if stored.min() < low or stored.max() > high:
        found = f"{stored.min()} to {stored.max()}"
        raise Refused(f"values {low} to {high}, by the bits in the header", found, "Export the series again.")
    if frame.bands == 3:
        return stored
    if frame.kind == "MONOCHROME1":  # the lowest value is white
        stored = (low + high - stored.astype(np.int64)).astype(stored.dtype)
    if frame.lookup:
        return _looked_up(frame, stored)
    return scaled(stored, frame.dtype, frame.slope, frame.intercept)


def _looked_up(frame: Frame, stored: NDArray[Any]) -> NDArray[Any]:
    """Return the entries of the table of the modality; values before and behind it have its ends."""
    plain = _without_pixels(frame)
    table = plain.ModalityLUTSequence[0]
    entries = table.LUTData
    if isinstance(entries, bytes):
        entries = np.frombuffer(entries, "<u2" if plain.original_encoding[1] else ">u2")
    count, first, _ = table.LUTDescriptor
    places = np.clip(stored.astype(np.int64) - first, 0, (count or 1 << 16) - 1)
    return np.asarray(entries, frame.dtype)[places]


def _without_pixels(frame: Frame) -> Any:
    return need("pydicom", "volumes", frame.path).dcmread(frame.path, stop_before_pixels=True, force=True)


def _palette(frame: Frame, stored: NDArray[Any]) -> NDArray[np.uint8]:
    colours = need("pydicom.pixels", "volumes", frame.path).apply_color_lut(stored, _without_pixels(frame))
    return (colours >> 8 if colours.dtype == np.uint16 else colours).astype(np.uint8)


def _stored(frames: Sequence[Frame]) -> Iterator[NDArray[Any]]:
    """Yield stored values (H, W) or (H, W, 3), colours as RGB."""
    first = frames[0]
    if first.syntax in _HIGH_THROUGHPUT or (first.syntax == _EXTENDED and first.bits > 8):
        yield from _with_imagecodecs(frames)
        return
    pydicom = need("pydicom", "volumes", first.path)
    syntax = pydicom.uid.UID(first.syntax)
    plugins = _plugins(pydicom, syntax)
    for number, plugin in enumerate(plugins):
        done = 0
        try:
            for values in _with_pydicom(pydicom, frames, syntax, plugin):
                done += 1
                yield values
            return
        except RuntimeError:  # this decoder cannot read the file, another one may
            if done or number + 1 == len(plugins):
                raise


def _with_pydicom(pydicom: Any, frames: Sequence[Frame], syntax: Any, plugin: str) -> Iterator[NDArray[Any]]:
    """Decode with pydicom and one of its plugins; of several frames, only those are read."""
    first = frames[0]
    options: dict[str, Any] = {"decoding_plugin": plugin}
    if first.shift:
        options["bits_stored"] = first.bits + first.shift
    if first.count == 1:  # whole, since pydicom corrects more faults of the header then
        plain = pydicom.dcmread(first.path, force=True)
        plain.file_meta.TransferSyntaxUID = syntax
        yield pydicom.pixels.pixel_array(plain, **options)
        return
    options["transfer_syntax_uid"] = syntax
    indices = [frame.index for frame in frames]
    done = 0
    try:
        for values in pydicom.pixels.iter_pixels(first.path, indices=indices, **options):
            done += 1
            yield values
    except ValueError:  # pydicom 3.0 cannot correct the sign of a frame of JPEG 2000 in this way
        for index in indices[done:]:
            yield pydicom.pixels.pixel_array(first.path, index=index, **options)


def _plugins(pydicom: Any, syntax: Any) -> list[str]:
    """Return the decoders to try in order; [""] without compression.

    Raises:
        Refused: none is installed.
    """
    if not syntax.is_compressed:
        return [""]
    try:
        available = pydicom.pixels.get_decoder(syntax).available_plugins
    except NotImplementedError as error:
        do = "Export the images uncompressed, or with JPEG compression."
        raise Refused("a compression of images", syntax.name, do) from error
    plugins = [name for name in _PLUGINS if name in available]
    if not plugins:
        do = "Run: pip install 'pixelwise[volumes]'; or export the series uncompressed."
        raise Refused("pixels that can be decompressed", f"{syntax.name}, for which a package is missing", do)
    return plugins


def _with_imagecodecs(frames: Sequence[Frame]) -> Iterator[NDArray[Any]]:
    first = frames[0]
    pydicom = need("pydicom", "volumes", first.path)
    decompress = imagecodecs.jpeg_decode if first.syntax == _EXTENDED else imagecodecs.jpeg2k_decode
    content = pydicom.dcmread(first.path, force=True).PixelData
    for frame in frames:
        data = pydicom.encaps.get_frame(content, frame.index, number_of_frames=frame.count)
        yield decompress(data).astype(frame.stored, copy=False)
