"""Read the image and the mask of a `Record`: files, slices of volumes, and windows of rasters."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise import tiles
from pixelwise.errors import DataError, GridMismatchError, ImageError, MaskError, SizeMismatchError
from pixelwise.formats.drawing_windows import DrawnWindow
from pixelwise.formats.records import Record, StackedMask, Window
from pixelwise.formats.shapes import Drawing, draw_upright
from pixelwise.grid import Grid
from pixelwise.imageio import volume_files
from pixelwise.imageio.dicom_series import volume_of
from pixelwise.imageio.images import (
    Limits,
    RawMask,
    as_integers,
    read_header,
    read_orientation,
    read_size,
    read_with_validity,
    require_finite,
    valid_voxels,
)
from pixelwise.imageio.masks import MaskRule, encode_values, read_ids, read_mask, values_as_ids
from pixelwise.imageio.raster import Header, Refused
from pixelwise.imageio.safe_reading import reading
from pixelwise.imageio.volume_values import key_of
from pixelwise.imageio.volumes import Plane, require_within
from pixelwise.labels import Labels

ReadImage = tuple[NDArray[Any], Grid, NDArray[np.bool_] | None]


def read_record_image(record: Record, limits: Limits = Limits()) -> ReadImage:
    """Read an image.

    Returns:
        The image (C, *S), its grid, and valid (*S), or None if all pixels are valid; *S is (D, H, W) for a whole volume.

    Raises:
        ImageError: it cannot be read, is beyond the limits, or has NaN or infinite values in valid pixels.
    """
    if record.plane is not None:
        places = record.plane.beside or ((record.image, record.plane.index),)
        files = [
            (paths, replace(record.plane, index=index))
            for path, index in places
            for paths in (record.stack or (path,), *((other,) for other in record.plane.more))
        ]
        read = _stack_of if record.stack else _slice_of
        bands = [read(paths, plane, limits) for paths, plane in files]
        image = np.concatenate([values for values, _ in bands])
        valid = valid_voxels(image, record.nodata)
        with reading(record.image, ImageError, "volume"):
            require_finite(np.moveaxis(image, 0, -1), valid)
        return image, bands[0][1], valid
    if record.window is None:
        return read_with_validity(record.image, record.nodata, limits)
    image, grid, valid = read_with_validity(record.image, record.nodata, limits, window_of(record))
    return image, _grid_of(grid, record.window), valid


def window_of(record: Record) -> tiles.Window | None:
    """Return the window (H, W) that a record is; None for a whole image."""
    if record.window is None:
        return None
    top, left, height, width = record.window
    return tiles.Window((top, left), (top + height, left + width))


def as_bands(image: NDArray[Any], bands: str | None) -> NDArray[Any]:
    """Convert an image of one or three bands to grey or RGB; others are returned unchanged.

    Args:
        image: (C, *S).
        bands: "rgb" repeats grey three times; "grey" is the luma of ITU-R BT.601; None changes nothing.
    """
    if bands == "rgb" and len(image) == 1:
        return np.repeat(image, 3, axis=0)
    if bands == "grey" and len(image) == 3:
        with np.errstate(invalid="ignore"):  # pixels without data may be infinite
            luma = np.tensordot(np.array([0.299, 0.587, 0.114]), image.astype(np.float64), 1)[None]
        return (np.rint(luma) if image.dtype.kind in "ui" else luma).astype(image.dtype)
    return image


def mixed_forms(forms: Collection[tuple[int, str]]) -> str:
    """Return advice for images that differ in form: number of bands, and numpy name of the pixel type."""
    if {bands for bands, _ in forms} == {1, 3} and len(set(forms)) == 2 and len({dtype for _, dtype in forms}) == 1:
        return "Convert them: --set data.bands=rgb (grey is repeated) or --set data.bands=grey."
    return "Save all images with the same bands and pixel type, or split the data set."


def image_size(record: Record) -> tuple[int, ...]:
    """Return (bands, *S) as `read_record_image` would, from the header alone.

    Raises:
        ImageError: no readable header.
    """
    if record.plane is not None:
        headers = [volume_files.read_header(path) for path in (record.image, *record.plane.more)]
        slices, *size = headers[0].size(record.plane.across)
        depth = [max(slices, len(record.stack))] if record.stack else []
        stacked = max(len(record.plane.beside), 1)
        return (stacked * sum(header.bands for header in headers), *depth, *size)
    bands, *whole = read_size(record.image)
    return (bands, *(whole if record.window is None else record.window[2:]))


def image_orientation(record: Record) -> int:
    """Return the EXIF orientation, 1–8, that is applied to the image; 1 if there is none.

    Raises:
        ImageError: no readable header.
    """
    return 1 if record.plane is not None else read_orientation(record.image)


def mask_header(record: Record) -> Header | None:
    """Return the header of the mask file; None if there is no such file.

    Raises:
        ImageError: no readable header.
    """
    if record.mask is None or record.source is not None or record.plane is not None:
        return None
    return read_header(record.mask)


def mask_orientation(record: Record, header: Header | None) -> int:
    """Return the EXIF orientation, 1–8, that is applied to the mask; `header` is that of the mask file, if there is one."""
    if isinstance(record.source, Drawing) and record.source.stored:
        return record.source.orientation
    return 1 if header is None else header.orientation


def image_digest(record: Record) -> str:
    """Return the SHA-256, in hex, over the files of an image and its plane or window.

    Raises:
        OSError: a file cannot be opened.
    """
    if record.plane is None and record.window is None:
        return file_hash(record.image)
    paths = (*(record.stack or (record.image,)), *(record.plane.more if record.plane else ()))
    files = [file_hash(path) for path in paths]
    plane: tuple[Any, ...] | None = None
    if record.plane is not None:
        plane = (record.plane.across, record.plane.index, record.plane.dtype)
        plane += (len(record.plane.beside),) if record.plane.beside else ()
    return hashlib.sha256(repr((files, plane, record.window)).encode()).hexdigest()


def read_truth(
    record: Record, labels: Labels, rule: MaskRule = MaskRule(), limits: Limits = Limits()
) -> tuple[NDArray[Any], tuple[str, ...]]:
    """Read the mask of a record, or draw it from its annotation.

    Returns:
        Class indices (*S), and notices of what was assumed.

    Raises:
        MaskError: it cannot be interpreted. PairingError: its size differs from the image's.
    """
    assert record.mask is not None
    notices: Sequence[str]
    if record.plane is not None and record.source is None:
        raw = _ids_of(record, limits)
        # One slice below the other, since three axes would be those of an image with colours.
        flat = replace(raw, values=raw.values.reshape(-1, raw.values.shape[-1]))
        mask, notices = encode_values(record.mask, flat, labels, rule)
        return mask.reshape(raw.values.shape), tuple(notices)
    if record.source is None:
        mask, notices = read_mask(record.mask, labels, rule, limits, window_of(record))
        return mask, tuple(notices)
    if isinstance(record.source, DrawnWindow):
        return record.source.draw(labels, record.source.size), ()
    _, *sides = read_size(record.image) if record.plane is None else image_size(record)
    size = (sides[-2], sides[-1])
    if isinstance(record.source, StackedMask):
        mask = record.source.draw(labels, size)
        require_size(record.mask, mask.shape, record.image, tuple(sides))
        return mask, ()
    mask, notices = draw_upright(record, labels, size)
    require_size(record.mask, mask.shape[:2], record.image, size)
    window = window_of(record)
    return mask if window is None else np.ascontiguousarray(mask[window.slices]), tuple(notices)


def read_truth_ids(record: Record, rule: MaskRule) -> NDArray[Any]:
    """Read the mask of a record as class ids (H, W), without labels; of a whole volume, slices below each other.

    Raises:
        MaskError: it cannot be interpreted, or has colours, which need labels.
    """
    assert record.mask is not None
    if record.plane is not None:
        raw = _ids_of(record, Limits())
        return values_as_ids(record.mask, replace(raw, values=raw.values.reshape(-1, raw.values.shape[-1])), rule)[0]
    return read_ids(record.mask, rule, window=window_of(record))[0]


def require_pair(record: Record) -> tuple[Record, Header | None]:
    """Raise unless image and masks have the same size and georeference, by their headers.

    Returns:
        The record; its drawing, if it has one, with size and orientation of the image. And the header of the image, None for a slice
        of a volume.

    Raises:
        PairingError: they differ.
        ImageError, MaskError: no readable header.
    """
    if record.plane is not None:
        return record, None  # volumes were compared when they were found
    header = read_header(record.image)
    size = header.oriented_size
    for path in (record.mask if record.source is None else None, record.valid):
        if path is not None:
            other = read_header(path)
            require_size(path, other.oriented_size, record.image, size)
            _require_same_grid(header.grid, other.grid, path, record.image)
    annotated = record.source.size if record.source is not None else None
    if annotated is not None and annotated != size and (annotated != size[::-1] or header.orientation < 5):
        assert record.mask is not None
        require_size(record.mask, annotated, record.image, size)
    if isinstance(record.source, Drawing):
        record = replace(record, source=replace(record.source, image_size=size, orientation=header.orientation))
    return record, header


def require_size(path: Path, size: tuple[int, ...], image: Path, expected: tuple[int, ...]) -> None:
    """Raise if a mask differs in size (H, W) from its image.

    Raises:
        PairingError: it does.
    """
    if size == expected:
        return
    do = "Export the mask again at the image's size; scale it by nearest neighbour only."
    if size == expected[::-1]:
        do = (
            "Height and width are swapped: only one of the two files has an EXIF orientation. Save the image upright,"
            " without the EXIF tag, and draw the mask on that."
        )
    raise SizeMismatchError(
        path,
        expected=f"{expected[0]}×{expected[1]} pixels, the height and width of {image.name}",
        found=f"{size[0]}×{size[1]}",
        do=do,
    )


def _require_same_grid(image_grid: Grid | None, mask: Grid | None, path: Path, image: Path) -> None:
    """Raise if both have a georeference and these differ."""
    if image_grid is None or mask is None:
        return
    try:
        image_grid.require_same(mask, path)
    except DataError as error:
        expected = error.expected.replace("the image's", f"{image.name}'s", 1)
        raise GridMismatchError(path, expected=expected, found=error.found, do=error.do) from error


def file_hash(path: Path) -> str:
    """Return the SHA-256, in hex, of a file and of the data file of a header (.nhdr); cached for files with many slices.

    Raises:
        OSError: it cannot be opened.
    """
    hashes = [_hash(*key_of(file)) for file in volume_files.files_of(path)]
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()


@lru_cache(maxsize=1 << 16)
def _hash(path: Path, changed: int, size: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _slice_of(paths: Sequence[Path], plane: Plane, limits: Limits) -> tuple[NDArray[Any], Grid]:
    """Read a slice (C, H, W) of a single file in the type of the plane, and its grid."""
    (path,) = paths
    values = _values_of(path, plane, limits, ImageError)
    grid = volume_files.read_header(path).plane_grid(plane.across)
    return np.ascontiguousarray(values, plane.dtype and np.dtype(plane.dtype)), grid


def _stack_of(paths: Sequence[Path], plane: Plane, limits: Limits) -> tuple[NDArray[Any], Grid]:
    """Read a volume (C, D, H, W), of a single file or of the files of its slices, in the type of the plane; and its grid."""
    if volume_files.format_of(paths[0]) == "DICOM":
        series = volume_of(paths)
        header = series.header
        with reading(header.path, ImageError, "DICOM file"):
            require_within(header, plane.across, limits)
        values = header.arrange(series.read_box((slice(None),) * 3), plane.across)
    else:
        header = volume_files.read_header(paths[0])
        values = _values_of(paths[0], plane, limits, ImageError, whole=True)
    return np.ascontiguousarray(values, plane.dtype and np.dtype(plane.dtype)), header.grid(plane.across)


def _values_of(path: Path, plane: Plane, limits: Limits, error: type[DataError], whole: bool = False) -> NDArray[Any]:
    """Read a slice (C, H, W), or the whole volume (C, D, H, W), of a file."""
    header = volume_files.read_header(path, error)
    with reading(path, error, "volume"):
        require_within(header, plane.across, limits)
        if error is MaskError and header.bands > 1:
            found, do = f"{header.bands} bands", "Save the labels as one volume of class ids."
            raise Refused("one band of class ids", found, do)
        box = (slice(None),) * 3 if whole else header.plane_box(plane)
        values = header.arrange(volume_files.read_box(path, box, error), plane.across)
        return values if whole else values[:, 0]


def _ids_of(record: Record, limits: Limits) -> RawMask:
    """Read the ids of a slice (H, W), or of a whole volume (D, H, W)."""
    path, plane = record.mask, record.plane
    assert path is not None
    assert plane is not None
    values = _values_of(path, plane, limits, MaskError, whole=bool(record.stack))[0]
    kind = volume_files.format_of(path)
    with reading(path, MaskError, f"{kind} file"):
        return RawMask(np.ascontiguousarray(as_integers(values)), "index", None, kind)


def _grid_of(grid: Grid, window: Window) -> Grid:
    """Return the grid of a window."""
    if grid.affine is None:
        return grid
    matrix = np.array(grid.affine)
    matrix[:2, 2] += matrix[:2, :2] @ (window[1], window[0])
    return Grid(grid.spacing, grid.unit, tuple(map(tuple, matrix.tolist())), grid.crs, grid.calibration)
