"""Open anything that a model can predict: raster images, GeoTIFFs and NIfTI volumes, with their geometry.

Opening reads the header only. What is predicted on a source is written by `writing.write_prediction`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import ImageError
from pixelwise.grid import Grid
from pixelwise.imageio import nifti
from pixelwise.imageio.images import Limits, read_header, read_with_validity, require_finite, valid_voxels
from pixelwise.imageio.safe_reading import reading
from pixelwise.imageio.volumes import Across, VolumeHeader, coarsest, require_within, scaled
from pixelwise.tiles import Window


class Source(Protocol):
    """An image file that was opened: *S is (H, W), or (D, H, W) for a volume."""

    @property
    def path(self) -> Path:
        """The file."""

    @property
    def format(self) -> str:
        """Its format: "PNG", "JPEG", "TIFF", "GeoTIFF", "WebP" or "NIfTI"."""

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
    """

    path: Path
    format: str
    channels: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    grid: Grid
    nodata: float | None = None
    limits: Limits = field(default_factory=Limits)

    def read(self, window: Window | None = None) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
        """Decode a window, or everything; see `Source.read`."""
        _slices(self.shape, window)
        image, _, valid = read_with_validity(self.path, self.nodata, self.limits, window)
        return image, valid


@dataclass(frozen=True, eq=False)
class VolumeSource:
    """A volume, arranged as the stack of slices (D, H, W) that training reads (see `volumes`).

    Args:
        header: of the file, in the order of its own axes.
        across: the direction in which the slices are stacked.
        limits: the largest slice, and volume, to read.
        nodata: value of voxels without data.
    """

    header: VolumeHeader
    across: Across
    limits: Limits = field(default_factory=Limits)
    format: str = "NIfTI"
    nodata: float | None = None

    @property
    def path(self) -> Path:
        """The file."""
        return self.header.path

    @property
    def channels(self) -> int:
        """C, the number of bands."""
        return self.header.bands

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the values after scaling."""
        return self.header.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """(D, H, W)."""
        return self.header.size(self.across)

    @property
    def grid(self) -> Grid:
        """Where the voxels are in the body, with three axes."""
        return self.header.grid(self.across)

    def read(self, window: Window | None = None) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
        """Read a window, or the whole volume; see `Source.read`."""
        box = _slices(self.shape, window)
        with reading(self.path, ImageError, "NIfTI file"):
            require_within(self.header, self.across, self.limits)
            stored, slope, intercept = nifti.read_stored(self.path)
            cut = self.header.arrange(stored, self.across)[:, *box]
            image = np.ascontiguousarray(scaled(cut, self.dtype, slope, intercept))
            valid = valid_voxels(image, self.nodata)
            require_finite(np.moveaxis(image, 0, -1), valid)
        return image, valid

    def slices(self) -> Iterator[tuple[int, NDArray[Any], Grid]]:
        """Yield (index, image (C, H, W), grid) for each of the D slices, in order."""
        grid = self.header.plane_grid(self.across)
        _, height, width = self.shape
        for index in range(self.shape[0]):
            yield index, self.read(Window((index, 0, 0), (index + 1, height, width)))[0][:, 0], grid

    def in_file_axes(self, stack: NDArray[Any]) -> NDArray[Any]:
        """Return a stack of masks (D, H, W) in the order and direction of the file's axes (i, j, k)."""
        return self.header.restore(stack, self.across)


def open_source(
    path: Path | str, across: Across | None = None, limits: Limits = Limits(), nodata: float | None = None
) -> RasterSource | VolumeSource:
    """Open an image file by its header.

    Args:
        path: a PNG, JPEG, TIFF, GeoTIFF, WebP, or a NIfTI volume (.nii, .nii.gz).
        across: the direction in which the slices of a volume are stacked; None for that of the coarsest spacing.
        limits: the largest image to decode; checked when pixels are read.
        nodata: stored value of pixels without data, besides the value that the file defines.

    Raises:
        ImageError: no readable header.
    """
    path = Path(path)
    if nifti.is_nifti(path):
        volume = nifti.read_header(path)
        return VolumeSource(volume, across or coarsest([volume]), limits, nodata=nodata)
    header = read_header(path)
    name = "GeoTIFF" if header.georeferenced else header.format
    grid = header.grid or Grid()
    known = header.nodata if nodata is None else nodata
    return RasterSource(path, name, header.bands, header.read_dtype, header.oriented_size, grid, known, limits)


def _slices(shape: tuple[int, ...], window: Window | None) -> tuple[slice, ...]:
    if window is None:
        return (slice(None),) * len(shape)
    limits = zip(window.start, window.stop, shape, strict=True)
    if not all(0 <= start < stop <= size for start, stop, size in limits):
        raise ValueError(f"expected a window inside {shape}, found {window}")
    return window.slices
