"""Volumes, and single DICOM images, as sources that a model can predict (see `sources.Source`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import ImageError
from pixelwise.grid import Grid
from pixelwise.imageio import volume_files
from pixelwise.imageio.dicom_pixels import decode
from pixelwise.imageio.dicom_series import FlatImage, LeftOut, Series, series_in, series_of
from pixelwise.imageio.images import Limits, require_finite, valid_voxels
from pixelwise.imageio.safe_reading import reading
from pixelwise.imageio.volumes import Across, VolumeHeader, coarsest, require_limits, require_within
from pixelwise.tiles import Window, window_slices


@dataclass(frozen=True, eq=False)
class VolumeSource:
    """A volume, arranged as the stack of slices (D, H, W) that training reads (see `volumes`).

    Args:
        header: of the file, in the order of its own axes.
        across: the direction in which the slices are stacked.
        read_box: returns the real values of a box along the file's axes, (i, j, k) or (i, j, k, C).
        limits: the largest slice, and volume, to read.
        format: "NIfTI", "NRRD" or "DICOM".
        nodata: value of voxels without data.
        frames: of a DICOM series: file and number of the frame, from 0, of each slice along the file's third axis.
    """

    header: VolumeHeader
    across: Across
    read_box: Callable[[tuple[slice, ...]], NDArray[Any]]
    limits: Limits = field(default_factory=Limits)
    format: str = "NIfTI"
    nodata: float | None = None
    frames: tuple[tuple[Path, int], ...] = ()

    @property
    def path(self) -> Path:
        """The file; of a DICOM series, the folder."""
        return self.header.path

    @property
    def files(self) -> tuple[Path, ...]:
        """The files: those of a DICOM series in the order of slices, each once."""
        return tuple(dict.fromkeys(path for path, _ in self.frames)) or (self.path,)

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
        """Read a window, or the whole volume; see `Source.read`. Of a DICOM series, only the files of the window."""
        box = self.header.file_box(window_slices(self.shape, window), self.across)
        with reading(self.path, ImageError, f"{self.format} file"):
            require_within(self.header, self.across, self.limits)
            image = np.ascontiguousarray(self.header.arrange(self.read_box(box), self.across))
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

    def in_frame_order(self, stack: NDArray[Any]) -> NDArray[Any]:
        """Return a stack of masks (D, H, W) of a DICOM series as its frames are stored: (frame, row, column).

        The frames are those of `files`, one after the other, each file's in its own order.
        """
        order = {path: place for place, path in enumerate(self.files)}
        places = sorted(range(len(self.frames)), key=lambda k: (order[self.frames[k][0]], self.frames[k][1]))
        return self.in_file_axes(stack).transpose(2, 1, 0)[places]


@dataclass(frozen=True, eq=False)
class DicomImage:
    """A DICOM image without a position in space, such as a projection or an ultrasound image.

    Args:
        image: the frame and its grid.
        limits: the largest image to read.
        nodata: value of pixels without data.
    """

    image: FlatImage
    limits: Limits = field(default_factory=Limits)
    nodata: float | None = None
    format: str = "DICOM"

    @property
    def path(self) -> Path:
        """The file."""
        return self.image.frame.path

    @property
    def channels(self) -> int:
        """C: 1, or 3 for colours."""
        return self.image.frame.bands

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the values after scaling."""
        return self.image.frame.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """(H, W)."""
        return self.image.frame.size

    @property
    def grid(self) -> Grid:
        """The spacing, in millimetres if the file has one, and what it was taken from."""
        return self.image.grid

    def read(self, window: Window | None = None) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
        """Decode the image and return a window of it, or everything; see `Source.read`."""
        box = window_slices(self.shape, window)
        with reading(self.path, ImageError, "DICOM file"):
            height, width = self.shape
            size = height * width * self.channels * self.dtype.itemsize
            require_limits(height * width, self.channels, size, self.limits)
            (values,) = decode([self.image.frame])
            bands = values if values.ndim == 3 else values[..., np.newaxis]
            image = np.ascontiguousarray(np.moveaxis(bands[box], -1, 0))
            valid = valid_voxels(image, self.nodata)
            require_finite(np.moveaxis(image, 0, -1), valid)
        return image, valid


def open_volume(
    path: Path, across: Across | None = None, limits: Limits = Limits(), nodata: float | None = None
) -> VolumeSource:
    """Open a NIfTI or NRRD file; see `sources.open_source`."""
    header = volume_files.read_header(path)
    read_box = partial(volume_files.read_box, path)
    name = volume_files.format_of(path)
    return VolumeSource(header, across or coarsest([header]), read_box, limits, name, nodata)


def open_dicom(
    path: Path, across: Across | None = None, limits: Limits = Limits(), nodata: float | None = None
) -> VolumeSource | DicomImage:
    """Open a DICOM series by its folder or one of its files, or a single image.

    Raises:
        ImageError: no series in the folder, or several.
    """
    if not path.is_dir():
        return _source(series_of(path), across, limits, nodata)
    sources, left_out = dicom_sources(path, across, limits, nodata)
    if len(sources) == 1:
        return next(iter(sources.values()))
    if not sources and left_out:
        raise left_out[0].error
    found = f"{len(sources)} ({', '.join(sources)})" if sources else "no DICOM files"
    do = "Move each series to a separate folder." if sources else "Check the path."
    raise ImageError(path, expected="one DICOM series", found=found, do=do)


def dicom_sources(
    folder: Path, across: Across | None = None, limits: Limits = Limits(), nodata: float | None = None
) -> tuple[dict[str, VolumeSource | DicomImage], tuple[LeftOut, ...]]:
    """Open every DICOM series and image in a folder, but not in its subfolders.

    Returns:
        Sources by name, which is a safe and unique file name; and what is left out, with the reasons.
    """
    contents = series_in(folder)
    found: list[Series | FlatImage] = [*contents.series, *contents.images]
    return {each.name: _source(each, across, limits, nodata) for each in found}, contents.left_out


def _source(
    found: Series | FlatImage, across: Across | None, limits: Limits, nodata: float | None
) -> VolumeSource | DicomImage:
    if isinstance(found, FlatImage):
        return DicomImage(found, limits, nodata)
    header = found.header
    frames = tuple((each.frame.path, each.frame.index) for each in found.slices)
    # Each slice is a file of its own, so that reading along another axis would decode all files for each slice.
    return VolumeSource(header, across or header.across(), found.read_box, limits, "DICOM", nodata, frames)
