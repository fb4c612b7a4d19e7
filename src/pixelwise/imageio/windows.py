"""Read windows of an image file, in memory that depends on the window.

TIFFs are decoded strip by strip or tile by tile, JPEG 2000 by GDAL. Other files are decoded once as a whole and kept (see `pieces`). What is decided by
looking at all pixels of a file, which is only the meaning of alpha, is decided once per file.
"""

from __future__ import annotations

import itertools
from typing import BinaryIO

from pixelwise.imageio.alpha import AlphaCounts
from pixelwise.imageio.file_formats import open_as
from pixelwise.imageio.pieces import identity, keep, kept
from pixelwise.imageio.raster import Decoder, Header, Raster, WindowDecoder
from pixelwise.tiles import Window

LARGE = 1 << 25  # pixels; larger images are read by windows, where their format allows it
WINDOWED = ("TIFF", "JPEG 2000")
_SAMPLE = 256  # strips or tiles of a file beyond the limits that are looked at


class WindowReader:
    """Reads windows of an open file.

    Args:
        file: the open file.
        name: of its format; see `file_formats.detect`.

    Raises:
        Refused: a kind of image that is not supported. Exceptions of the decoder if the file is broken.
    """

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file, self._key = file, identity(file)
        self.header, self._decoder = self._open(name)

    def _open(self, name: str) -> tuple[Header, Decoder]:
        if name != "TIFF":  # the decoders of others are bound to this handle of the file
            return open_as(self._file, name)
        return keep(kept().files, self._key, "header", lambda: open_as(self._file, name))

    @property
    def decodes_windows(self) -> bool:
        """Whether a window can be decoded without the rest of the image."""
        return isinstance(self._decoder, WindowDecoder)

    def read(self, window: Window, most: int) -> Raster:
        """Decode a window of the image with its orientation applied.

        Args:
            window: inside the image.
            most: pixels that may be decoded at once; a file that is decoded as a whole must have been checked.

        Raises:
            Refused: it has a strip or tile of more pixels. Exceptions of the decoder if the file is broken.
        """
        if isinstance(self._decoder, WindowDecoder):
            return self._decoder.window(self._file, window, most, self._key)
        return self._whole(self._decoder).cut(window)

    def _whole(self, decode: Decoder) -> Raster:
        return keep(kept().pixels, self._key, "whole", decode)

    def alpha(self, most: int) -> AlphaCounts | None:
        """Count the values of alpha; None without it.

        All pixels of a file within the limits are counted, of a larger file those of some strips or tiles.
        """
        if self.header.alpha is None:
            return None
        height, width = self.header.size
        complete = height * width <= most
        return keep(kept().files, self._key, ("alpha", complete), lambda: self._count(most, complete))

    def _count(self, most: int, complete: bool) -> AlphaCounts:
        place = self.header.alpha
        if not isinstance(self._decoder, WindowDecoder):
            return AlphaCounts.of(self._whole(self._decoder).values[..., place], self.header)
        boxes = self._decoder.boxes()
        if not complete:
            count = sum(1 for _ in self._decoder.boxes())
            boxes = itertools.islice(boxes, 0, None, max(1, count // _SAMPLE))
        total: AlphaCounts | None = None
        for box in boxes:
            counts = AlphaCounts.of(self.read(box, most).values[..., place], self.header)
            total = counts if total is None else total + counts
        assert total is not None  # an image has pixels
        return total


def open_windows(file: BinaryIO, name: str) -> tuple[Header, WindowReader]:
    """Return the header of an open file, and a reader of its windows; see `WindowReader`."""
    reader = WindowReader(file, name)
    return reader.header, reader
