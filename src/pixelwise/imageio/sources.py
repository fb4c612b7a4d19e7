"""Open anything that a model can predict: raster images, GeoTIFFs, and volumes in NIfTI, NRRD and DICOM, with their geometry.

Opening reads the header only. What is predicted on a source is written by `writing.write_prediction`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pixelwise.grid import Grid
from pixelwise.imageio import dicom, volume_files
from pixelwise.imageio.images import Limits, read_header, read_with_validity
from pixelwise.imageio.volume_sources import DicomImage as DicomImage
from pixelwise.imageio.volume_sources import VolumeSource as VolumeSource
from pixelwise.imageio.volume_sources import open_dicom, open_volume
from pixelwise.imageio.volumes import Across
from pixelwise.tiles import Window, window_slices


class Readable(Protocol):
    """An image that is read window by window."""

    @property
    def shape(self) -> tuple[int, ...]:
        """*S."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the pixel values."""

    def read(self, window: Window, /) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
        """Read a window: the image (C, *S), and valid (*S), or None if all its pixels are valid."""


class Source(Protocol):
    """An image file that was opened: *S is (H, W), or (D, H, W) for a volume."""

    @property
    def path(self) -> Path:
        """The file."""

    @property
    def format(self) -> str:
        """Its format: "PNG", "JPEG", "TIFF", "GeoTIFF", "WebP", "NIfTI", "NRRD" or "DICOM"."""

    @property
    def channels(self) -> int:
        """C, the number of bands."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the pixel values that `read` returns."""

    @property
    def shape(self) -> tuple[int, ...]:
        """*S."""

    @property
    def grid(self) -> Grid:
        """Where the pixels are in the world: two axes, or three for a volume."""

    @property
    def nodata(self) -> float | None:
        """The stored value of pixels without data; None if it is unknown."""

    def read(self, window: Window | None = None) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
        """Read a window, or everything.

        Returns:
            The image (C, *S), and valid (*S), or None if all its pixels are valid.

        Raises:
            ImageError: the file cannot be decoded, is beyond the limits, or has NaN or infinite values in valid pixels.
            ValueError: a window that is not inside *S.
        """


@dataclass(frozen=True, eq=False)
class RasterSource:
    """A raster image (see `Source`).

    Args:
        path, format, channels, dtype, shape, grid: see `Source`.
        nodata: stored value of pixels without data, besides the value that the file defines.
        limits: the largest image, or window of a TIFF, to read.
        names: names of the bands; () if the file has none.
    """

    path: Path
    format: str
    channels: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    grid: Grid
    nodata: float | None = None
    limits: Limits = field(default_factory=Limits)
    names: tuple[str, ...] = ()

    def read(self, window: Window | None = None) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
        """Decode a window, or everything; see `Source.read`."""
        window_slices(self.shape, window)
        image, _, valid = read_with_validity(self.path, self.nodata, self.limits, window)
        return image, valid


def open_source(
    path: Path | str, across: Across | None = None, limits: Limits = Limits(), nodata: float | None = None
) -> RasterSource | VolumeSource | DicomImage:
    """Open an image file, or a DICOM series, by its header.

    Args:
        path: a PNG, JPEG, TIFF, GeoTIFF, WebP, a NIfTI (.nii, .nii.gz) or NRRD volume (.nrrd, .nhdr), a DICOM image, a folder with
            one DICOM series, or any file of it.
        across: the direction in which the slices of a volume are stacked; None for that of the coarsest spacing, or of a DICOM
            series that of its slices.
        limits: the largest image to decode; checked when pixels are read.
        nodata: stored value of pixels without data, besides the value that the file defines.

    Raises:
        ImageError: no readable header, or a series that is not complete.
    """
    path = Path(path)
    if volume_files.is_volume(path):
        return open_volume(path, across, limits, nodata)
    if path.is_dir() or (dicom.may_be_dicom(path) and dicom.is_dicom(path)):
        return open_dicom(path, across, limits, nodata)
    header = read_header(path)
    name = "GeoTIFF" if header.georeferenced else header.format
    grid = header.grid or Grid()
    known = header.nodata if nodata is None else nodata
    return RasterSource(
        path, name, header.bands, header.read_dtype, header.oriented_size, grid, known, limits, header.names
    )
