"""Arrange the axes of a volume as slices, rows and columns.

World coordinates are millimetres to the patient's right, front and head (RAS+, as in NIfTI). Whatever the order and direction of
the axes in the file, slices are oriented as radiologists view them. Axes are only exchanged and reversed, so no value is
resampled. Each axis is assigned to the nearest direction of the body.

    across      slices run to    rows run to    columns run to
    axial       the head         the back       the patient's left
    coronal     the back         the feet       the patient's left
    sagittal    the left         the feet       the back
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import permutations, product
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import GridMismatchError, SizeMismatchError
from pixelwise.grid import Grid
from pixelwise.imageio.images import Limits
from pixelwise.imageio.raster import Refused

Across = Literal["axial", "coronal", "sagittal"]

# Of slices, rows and columns: the world axis (0 right, 1 front, 2 head), and the direction along it.
_ORIENTATIONS: dict[Across, tuple[tuple[int, int], ...]] = {
    "axial": ((2, 1), (1, -1), (0, -1)),
    "coronal": ((1, -1), (2, -1), (0, -1)),
    "sagittal": ((0, -1), (2, -1), (1, -1)),
}
_SIDES = (("L", "R"), ("P", "A"), ("I", "S"))
_MUCH_COARSER = 1.05
_TOLERANCE = 0.05  # of a voxel: programs round the same header differently
_INTEGERS = ("uint8", "uint16", "int16", "int32", "int64")


@dataclass(frozen=True)
class Plane:
    """One slice of a volume.

    Args:
        index: its number along `across`; ignored for a file with a single slice.
        across: the direction in which the slices are stacked.
        dtype: numpy name of the type to convert values to, if the volumes of a set differ; None for the file's own.
        more: further volumes with the next bands.
        beside: file and index of each slice whose bands follow one another, in the order of the volume, this one among them; () for this
            one only.
    """

    index: int
    across: Across = "axial"
    dtype: str | None = None
    more: tuple[Path, ...] = ()
    beside: tuple[tuple[Path, int], ...] = ()


@dataclass(frozen=True, eq=False)
class VolumeHeader:
    """The header of a volume.

    Args:
        path: the file.
        shape: voxels along the file's axes i, j, k.
        bands: values per voxel.
        dtype: type of the values after scaling.
        affine: (4, 4) from (i, j, k) to millimetres right, front, head.
        calibration: what the spacing was taken from.
        bytes: memory for all stored values.
        timed: whether the bands are points in time.
        unit: of the world coordinates; "px" if the file has no spacing.

    Raises:
        Refused: an affine without an inverse.
    """

    path: Path
    shape: tuple[int, int, int]
    bands: int
    dtype: np.dtype[Any]
    affine: NDArray[np.float64]
    calibration: str
    bytes: int = 0
    timed: bool = False
    unit: str = "mm"

    def __post_init__(self) -> None:
        linear = self.affine[:3, :3]
        if not np.isfinite(self.affine).all() or abs(np.linalg.det(linear)) < 1e-12:
            found = np.array2string(linear, precision=4, separator=", ").replace("\n", "")
            raise Refused("an affine with an inverse", found, "Correct the header, or export the volume again.")

    @property
    def spacing(self) -> NDArray[np.float64]:
        """Distance between neighbouring voxels along i, j, k, in millimetres."""
        return np.asarray(np.linalg.norm(self.affine[:3, :3], axis=0))

    @property
    def orientation(self) -> str:
        """Directions of i, j and k as letters, such as "RAS" or "LPS"."""
        axes = self._axes()
        return "".join(
            _SIDES[body][int(self.affine[body, axis] > 0)] for axis, body in sorted(zip(axes, range(3), strict=True))
        )

    def _axes(self) -> tuple[int, ...]:
        """Return the file's axis along each axis of the world."""
        along = np.abs(self.affine[:3, :3] / self.spacing)
        return max(permutations(range(3)), key=lambda order: sum(along[body, axis] for body, axis in enumerate(order)))

    def layout(self, across: Across) -> tuple[tuple[int, bool], ...]:
        """Return the file's axis of slices, rows and columns, and whether each is reversed."""
        axes = self._axes()
        return tuple(
            (axes[body], self.affine[body, axes[body]] * direction < 0) for body, direction in _ORIENTATIONS[across]
        )

    def size(self, across: Across) -> tuple[int, int, int]:
        """Return the number of slices, rows and columns."""
        slices, rows, columns = (self.shape[axis] for axis, _ in self.layout(across))
        return slices, rows, columns

    def across(self) -> Across:
        """Return the direction of the body along the file's last axis."""
        return next(name for name in _ORIENTATIONS if self.layout(name)[0][0] == 2)

    def grid(self, across: Across) -> Grid:
        """Return the grid of the volume as slices, rows and columns."""
        layout = self.layout(across)
        matrix = np.eye(4)
        for column, (axis, reverse) in zip((2, 1, 0), layout, strict=True):  # an affine takes x, y, z
            matrix[:3, column] = self.affine[:3, axis] * (-1 if reverse else 1)
        first = [self.shape[axis] - 1 if (axis, True) in layout else 0 for axis in range(3)]
        matrix[:3, 3] = self.affine[:3, :3] @ first + self.affine[:3, 3]
        spacing = tuple(float(self.spacing[axis]) for axis, _ in layout)
        return Grid(spacing, self.unit, tuple(map(tuple, matrix.tolist())), calibration=self.calibration)

    def plane_grid(self, across: Across) -> Grid:
        """Return the grid of one slice: spacing and unit, without its position."""
        return Grid(self.grid(across).spacing[1:], self.unit, calibration=self.calibration)

    def plane_box(self, plane: Plane) -> tuple[slice, ...]:
        """Return the box along the file's axes i, j, k that a slice covers.

        Raises:
            Refused: no slice of that number.
        """
        count = self.size(plane.across)[0]
        index = plane.index if count > 1 else 0
        if not 0 <= index < count:
            raise Refused(f"slice {plane.index}", f"{count} slices", "Check whether the file was changed.")
        return self.file_box((slice(index, index + 1), slice(None), slice(None)), plane.across)

    def arrange(self, stored: NDArray[Any], across: Across) -> NDArray[Any]:
        """Return stored values (i, j, k) or (i, j, k, C) as slices, rows and columns: (C, D, H, W), a view."""
        layout = self.layout(across)
        bands = stored if stored.ndim == 4 else stored[..., np.newaxis]
        directions = (slice(None, None, -1 if reverse else 1) for _, reverse in layout)
        return bands.transpose(3, *(axis for axis, _ in layout))[:, *directions]

    def file_box(self, window: tuple[slice, ...], across: Across) -> tuple[slice, ...]:
        """Return the box along the file's axes i, j, k that a window of slices, rows and columns covers.

        `arrange` of the values in the box gives those of the window.
        """
        box = [slice(0, 0)] * 3
        for side, (axis, reverse) in zip(window, self.layout(across), strict=True):
            start, stop, _ = side.indices(self.shape[axis])
            box[axis] = slice(self.shape[axis] - stop, self.shape[axis] - start) if reverse else slice(start, stop)
        return tuple(box)

    def restore(self, stack: NDArray[Any], across: Across) -> NDArray[Any]:
        """Return slices, rows and columns (D, H, W) in the file's axes (i, j, k): the inverse of `arrange`, a view."""
        layout = self.layout(across)
        directions = tuple(slice(None, None, -1 if reverse else 1) for _, reverse in layout)
        return stack[directions].transpose(np.argsort([axis for axis, _ in layout]))


def require_within(header: VolumeHeader, across: Across, limits: Limits) -> None:
    """Raise if a volume is beyond the limits, before anything is decoded.

    Raises:
        Refused: more pixels per slice, bands or bytes than allowed.
    """
    _, height, width = header.size(across)
    require_limits(height * width, header.bands, header.bytes, limits)


def require_limits(pixels: int, bands: int, size: int, limits: Limits) -> None:
    """Raise if an image is beyond the limits, before anything is decoded.

    Args:
        pixels: of one slice.
        bands: values per pixel.
        size: bytes of the whole volume, or image, once unpacked.
        limits: the largest to read.

    Raises:
        Refused: it is.
    """
    for what, found, most in (
        ("pixels per slice", pixels, limits.pixels),
        ("bands", bands, limits.bands),
        ("bytes once unpacked", size, limits.bytes),
    ):
        if found > most:
            do = "Split the volume, or read it with larger Limits."
            raise Refused(f"at most {most:,} {what}", f"{found:,} in the header", do)


def scaled_type(dtype: np.dtype[Any], ends: tuple[int, int], slope: float, intercept: float) -> np.dtype[Any]:
    """Return the type of values · slope + intercept: integers if both are integers, else floats; floats stay as stored.

    Args:
        dtype: as stored.
        ends: smallest and largest integer that can be stored.
        slope: of the scaling.
        intercept: of the scaling.
    """
    if dtype.kind == "f" or (slope, intercept) == (1, 0):
        return dtype
    if slope == int(slope) and intercept == int(intercept):
        scaled_ends = sorted(int(end) * int(slope) + int(intercept) for end in ends)
        for name in _INTEGERS:
            if np.iinfo(name).min <= scaled_ends[0] and scaled_ends[1] <= np.iinfo(name).max:
                return np.dtype(name)
    return np.dtype(np.float32 if dtype.itemsize <= 2 else np.float64)


def scaled(values: NDArray[Any], dtype: np.dtype[Any], slope: float, intercept: float) -> NDArray[Any]:
    """Return values · slope + intercept in the type from `scaled_type`."""
    if (slope, intercept) == (1, 0):
        return values.astype(dtype, copy=False)
    if dtype.kind in "iu":
        return (values.astype(np.int64) * int(slope) + int(intercept)).astype(dtype)
    return (values.astype(np.float64) * slope + intercept).astype(dtype)


def coarsest(headers: Iterable[VolumeHeader]) -> Across:
    """Return the direction of the coarsest spacing, by the median of all volumes; axial if none is clearly coarser."""
    rows = [[header.grid(across).spacing[0] for across in _ORIENTATIONS] for header in headers]
    typical = dict(zip(_ORIENTATIONS, np.median(rows, axis=0), strict=True))
    first, second = sorted(typical.values(), reverse=True)[:2]
    return max(typical, key=lambda across: typical[across]) if first > _MUCH_COARSER * second else "axial"


def require_same_place(image: VolumeHeader, mask: VolumeHeader) -> None:
    """Raise if a mask differs from its image in the number or the position of its voxels, by more than 1/20 voxel.

    The order and direction of the axes may differ.

    Raises:
        PairingError: it does.
    """
    if image.shape == mask.shape and np.array_equal(image.affine, mask.affine):
        return
    across = image.across()
    size = image.size(across)
    other = mask.size(across)
    resample = "Resample the mask to the image's grid by nearest neighbour, or export both again."
    if size != other:
        expected = f"{'×'.join(map(str, size))} voxels (slices, rows, columns), as {image.path.name} has"
        raise SizeMismatchError(mask.path, expected=expected, found="×".join(map(str, other)), do=resample)
    corners = np.array(list(product(*((0, count - 1) for count in size))), float)
    offsets = image.grid(across).to_world(corners) - mask.grid(across).to_world(corners)
    distance = float(np.linalg.norm(offsets, axis=1).max())
    if distance > _TOLERANCE * float(image.spacing.min()):
        axes = f"; its axes are {mask.orientation}, the image's {image.orientation}"
        raise GridMismatchError(
            mask.path,
            expected=f"voxels at the positions of those of {image.path.name}",
            found=f"some {distance:.4g} mm away{axes if mask.orientation != image.orientation else ''}",
            do=f"{resample} If the voxels correspond one by one and only the header is wrong, use the image's affine:"
            " nibabel.Nifti1Image(mask.dataobj, image.affine).",
        )
