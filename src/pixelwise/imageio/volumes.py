"""Volumes as stacks of slices: how a file's axes lie in the body, and how a slice of them is laid out as an image.

Comes in: what a header says (`VolumeHeader`), and values as they are stored. Goes out: images (C, H, W), and the `Grid` of
slices and volumes. Knows nothing of files, classes or data sets.

World coordinates are millimetres to the patient's right, front and head (RAS+, as NIfTI has them). Whatever the order and
direction of the axes in the file, slices are laid out as a radiologist sees them; only axes are exchanged and turned round, so
no value is resampled. An axis belongs to the direction of the body that it is nearest to.

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

from pixelwise.errors import PairingError
from pixelwise.grid import Grid
from pixelwise.imageio.images import Limits
from pixelwise.imageio.raster import Refused

Across = Literal["axial", "coronal", "sagittal"]

# Slices, rows, columns: the axis of the world (0 right, 1 front, 2 head), and the sense along it.
_LAID: dict[Across, tuple[tuple[int, int], ...]] = {
    "axial": ((2, 1), (1, -1), (0, -1)),
    "coronal": ((1, -1), (2, -1), (0, -1)),
    "sagittal": ((0, -1), (2, -1), (1, -1)),
}
_SIDES = (("L", "R"), ("P", "A"), ("I", "S"))
_MUCH_COARSER = 1.05
_FORGIVEN = 0.05  # of a voxel: what two programs make of the same header
_WHOLE = ("uint8", "uint16", "int16", "int32", "int64")


@dataclass(frozen=True)
class Plane:
    """Name one slice of a volume.

    Args:
        index: its number; see `volumes` for where it begins. A file that holds one slice is read as a whole.
        across: the direction that the slices are stacked along: "axial" from the feet up, say.
        dtype: numpy name of the pixel type to read as, where the volumes of a set differ; None: the file's own.
        more: further volumes whose values are the next bands.
    """

    index: int
    across: Across = "axial"
    dtype: str | None = None
    more: tuple[Path, ...] = ()


@dataclass(frozen=True, eq=False)
class VolumeHeader:
    """Hold what a file says of its voxels before they are read.

    Args:
        path: the file.
        shape: voxels along the file's axes i, j, k.
        bands: values per voxel.
        dtype: type of the values after scaling.
        affine: (4, 4) from (i, j, k) to millimetres right, front, head.
        calibration: what the spacing was taken from.
        bytes: memory that all values take as they are stored.
        timed: whether the bands are said to be points in time.
    """

    path: Path
    shape: tuple[int, int, int]
    bands: int
    dtype: np.dtype[Any]
    affine: NDArray[np.float64]
    calibration: str
    bytes: int = 0
    timed: bool = False

    def __post_init__(self) -> None:
        linear = self.affine[:3, :3]
        if not np.isfinite(self.affine).all() or abs(np.linalg.det(linear)) < 1e-12:
            found = f"one that puts them {np.array2string(linear, precision=4, separator=', ')}".replace("\n", "")
            raise Refused("an affine that tells the voxels apart", found, "Correct the header, or export it again.")

    @property
    def spacing(self) -> NDArray[np.float64]:
        """Give the distance between neighbouring voxels along i, j, k, in millimetres."""
        return np.asarray(np.linalg.norm(self.affine[:3, :3], axis=0))

    @property
    def orientation(self) -> str:
        """Give the letters of where i, j and k run to, such as "RAS" or "LPS"."""
        axes = self._axes()
        return "".join(
            _SIDES[body][int(self.affine[body, axis] > 0)] for axis, body in sorted(zip(axes, range(3), strict=True))
        )

    def _axes(self) -> tuple[int, ...]:
        """Give the file's axis that runs along each axis of the world."""
        along = np.abs(self.affine[:3, :3] / self.spacing)
        return max(permutations(range(3)), key=lambda order: sum(along[body, axis] for body, axis in enumerate(order)))

    def laid(self, across: Across) -> tuple[tuple[int, bool], ...]:
        """Give the file's axis of the slices, the rows and the columns, and whether each is turned round."""
        axes = self._axes()
        return tuple((axes[body], self.affine[body, axes[body]] * sense < 0) for body, sense in _LAID[across])

    def size(self, across: Across) -> tuple[int, int, int]:
        """Count slices, rows and columns."""
        slices, rows, columns = (self.shape[axis] for axis, _ in self.laid(across))
        return slices, rows, columns

    def across(self) -> Across:
        """Give the direction of the body that the file's last axis runs along."""
        return next(name for name in _LAID if self.laid(name)[0][0] == 2)

    def grid(self, across: Across) -> Grid:
        """Place the volume, laid out as slices, rows and columns."""
        laid = self.laid(across)
        matrix = np.eye(4)
        for place, (axis, turned) in zip((2, 1, 0), laid, strict=True):  # an affine takes x, y, z
            matrix[:3, place] = self.affine[:3, axis] * (-1 if turned else 1)
        first = [self.shape[axis] - 1 if (axis, True) in laid else 0 for axis in range(3)]
        matrix[:3, 3] = self.affine[:3, :3] @ first + self.affine[:3, 3]
        spacing = tuple(float(self.spacing[axis]) for axis, _ in laid)
        return Grid(spacing, "mm", tuple(map(tuple, matrix.tolist())), calibration=self.calibration)

    def plane_grid(self, across: Across) -> Grid:
        """Give spacing and unit of one slice; its place in space is the volume's."""
        return Grid(self.grid(across).spacing[1:], "mm", calibration=self.calibration)

    def take(self, stored: NDArray[Any], plane: Plane) -> NDArray[Any]:
        """Cut a slice out of the stored values (i, j, k) or (i, j, k, C), and lay it out: (C, H, W), a view.

        Raises:
            Refused: no slice of that number.
        """
        count = self.size(plane.across)[0]
        index = plane.index if count > 1 else 0
        if not 0 <= index < count:
            raise Refused(f"slice {plane.index}", f"{count} slices", "Check whether the file was changed.")
        return self.arrange(stored, plane.across)[:, index]

    def arrange(self, stored: NDArray[Any], across: Across) -> NDArray[Any]:
        """Return stored values (i, j, k) or (i, j, k, C) as slices, rows and columns: (C, D, H, W), a view."""
        laid = self.laid(across)
        bands = stored if stored.ndim == 4 else stored[..., np.newaxis]
        turns = (slice(None, None, -1 if turned else 1) for _, turned in laid)
        return bands.transpose(3, *(axis for axis, _ in laid))[:, *turns]

    def restore(self, stack: NDArray[Any], across: Across) -> NDArray[Any]:
        """Return slices, rows and columns (D, H, W) in the file's axes (i, j, k): the inverse of `arrange`, a view."""
        laid = self.laid(across)
        turns = tuple(slice(None, None, -1 if turned else 1) for _, turned in laid)
        return stack[turns].transpose(np.argsort([axis for axis, _ in laid]))


def require_within(header: VolumeHeader, across: Across, limits: Limits) -> None:
    """Hold the limits against a header, before anything is decoded.

    Raises:
        Refused: more pixels a slice, bands or bytes than allowed.
    """
    _, height, width = header.size(across)
    for what, found, most in (
        ("pixels a slice", height * width, limits.pixels),
        ("bands", header.bands, limits.bands),
        ("bytes once unpacked", header.bytes, limits.bytes),
    ):
        if found > most:
            do = "Cut the volume into parts, or read it with larger Limits."
            raise Refused(f"at most {most:,} {what}", f"{found:,} in the header", do)


def scaled_type(dtype: np.dtype[Any], ends: tuple[int, int], slope: float, intercept: float) -> np.dtype[Any]:
    """Choose the type of values · slope + intercept: whole numbers where both are whole, else floats; floats stay as stored.

    Args:
        dtype: as stored.
        ends: smallest and largest value that whole numbers can have there.
        slope: of the scaling.
        intercept: of the scaling.
    """
    if dtype.kind == "f" or (slope, intercept) == (1, 0):
        return dtype
    if slope == int(slope) and intercept == int(intercept):
        reach = sorted(int(end) * int(slope) + int(intercept) for end in ends)
        for name in _WHOLE:
            if np.iinfo(name).min <= reach[0] and reach[1] <= np.iinfo(name).max:
                return np.dtype(name)
    return np.dtype(np.float32 if dtype.itemsize <= 2 else np.float64)


def scaled(values: NDArray[Any], dtype: np.dtype[Any], slope: float, intercept: float) -> NDArray[Any]:
    """Give values · slope + intercept in the type that `scaled_type` chose."""
    if (slope, intercept) == (1, 0):
        return values.astype(dtype, copy=False)
    if dtype.kind in "iu":
        return (values.astype(np.int64) * int(slope) + int(intercept)).astype(dtype)
    return (values.astype(np.float64) * slope + intercept).astype(dtype)


def coarsest(headers: Iterable[VolumeHeader]) -> Across:
    """Choose the direction that most volumes have the fewest slices along: that of the coarsest spacing, else axial."""
    rows = [[header.grid(across).spacing[0] for across in _LAID] for header in headers]
    typical = dict(zip(_LAID, np.median(rows, axis=0), strict=True))
    first, second = sorted(typical.values(), reverse=True)[:2]
    return max(typical, key=lambda across: typical[across]) if first > _MUCH_COARSER * second else "axial"


def require_same_place(image: VolumeHeader, mask: VolumeHeader) -> None:
    """Raise where the voxels of a mask do not lie on those of its image, by number or by place (1/20 voxel is forgiven).

    The order and direction of the axes may differ from file to file.

    Raises:
        PairingError: they do not.
    """
    if image.shape == mask.shape and np.array_equal(image.affine, mask.affine):
        return
    across = image.across()
    size, other = image.size(across), mask.size(across)
    resample = "Resample the mask to the image's grid by nearest neighbour, or export both again."
    if size != other:
        expected = f"{'×'.join(map(str, size))} voxels (slices, rows, columns), as {image.path.name} has"
        raise PairingError(mask.path, expected=expected, found="×".join(map(str, other)), do=resample)
    corners = np.array(list(product(*((0, count - 1) for count in size))), float)
    apart = image.grid(across).to_world(corners) - mask.grid(across).to_world(corners)
    far = float(np.linalg.norm(apart, axis=1).max())
    if far > _FORGIVEN * float(image.spacing.min()):
        turned = f"; its axes run {mask.orientation}, the image's {image.orientation}"
        raise PairingError(
            mask.path,
            expected=f"voxels where those of {image.path.name} lie",
            found=f"some {far:.4g} mm away{turned if mask.orientation != image.orientation else ''}",
            do=f"{resample} Where the values belong together one by one, and only the header is wrong, give the mask the"
            " image's affine: nibabel.Nifti1Image(mask.dataobj, image.affine).",
        )
