"""Slices in DICOM files, and the series that they make.

Comes in: the paths of files that hold one slice each (CT, MR, PET as scanners write them). Goes out: a `VolumeHeader` of a
slice or of a whole series in the order of space, and values in real units (HU where the scanner says so). Knows nothing of
masks, classes or data sets.

Files are told by their content, DICOM's mark at byte 128. Nothing else is opened, whatever names a file holds.

Source: DICOM PS3.3, C.7.6.2 (Image Plane), C.7.6.3 (Image Pixel), C.11.1 (Modality LUT): a pixel's place is the slice's
position, plus its column along the first direction, plus its row along the second, in millimetres left, back and head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import ImageError
from pixelwise.imageio.extras import need
from pixelwise.imageio.images import Limits
from pixelwise.imageio.raster import Refused
from pixelwise.imageio.safe_reading import reading, require_file
from pixelwise.imageio.volumes import VolumeHeader, require_within, scaled, scaled_type

_TAGS = [
    "SeriesInstanceUID", "SeriesNumber", "Modality", "Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation",
    "BitsAllocated", "BitsStored", "PixelRepresentation", "NumberOfFrames", "RescaleSlope", "RescaleIntercept",
    "ModalityLUTSequence", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness",
]  # fmt: skip
_DEFLATED = "1.2.840.10008.1.2.1.99"  # a few kilobytes could become gigabytes, header and all
_DRAWN = {"SEG": "dcmqi's segimage2itkimage", "RTSTRUCT": "plastimatch"}
_EVEN = 0.02  # of a slice's distance: how far a slice may be from where it should be
_TO_RAS = np.diag([-1.0, -1.0, 1.0])


@dataclass(frozen=True, eq=False)
class Slice:
    """Hold what the file of one slice says.

    Args:
        header: of a volume of this one slice.
        series: what tells its series from others: the identifier, shape, orientation and spacing.
        height: its place along the normal of its series, in millimetres.
        ends: smallest and largest stored value.
        slope, intercept: from stored values to real ones.
        inverted: whether the lowest value is white.
    """

    header: VolumeHeader
    series: tuple[Any, ...]
    height: float
    ends: tuple[int, int]
    slope: float
    intercept: float
    inverted: bool


def is_dicom(path: Path) -> bool:
    """Tell by its content whether a file is DICOM."""
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def read_slice(path: Path) -> Slice:
    """Read what a file says of its slice.

    Raises:
        ImageError: no DICOM, no slice with a place in space, several frames, colours, or a broken file.
    """
    with reading(path, ImageError, "DICOM file"):
        require_file(path, "a DICOM file")
        status = path.stat()
        return _slice(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=8192)
def _slice(path: Path, changed: int, size: int) -> Slice:
    pydicom = need("pydicom", "volumes", path)
    if pydicom.filereader.read_file_meta_info(path).get("TransferSyntaxUID") == _DEFLATED:
        do = "Export the series uncompressed, or with JPEG compression."
        raise Refused("a file that tells its size before it is unpacked", "a deflated one", do)
    plain = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=_TAGS)
    _require_understood(plain)
    shape = (int(plain.Columns), int(plain.Rows), 1)
    directions = np.array([float(v) for v in plain.ImageOrientationPatient]).reshape(2, 3)
    position = np.array([float(v) for v in plain.ImagePositionPatient]).reshape(3)
    rows, columns = (float(v) for v in plain.PixelSpacing)
    normal = np.cross(*directions)
    thickness = float(plain.get("SliceThickness") or 0) or 1.0
    affine = np.eye(4)
    affine[:3, :3] = np.stack([directions[0] * columns, directions[1] * rows, normal * thickness], axis=1)
    affine[:3, 3] = position
    affine[:3] = _TO_RAS @ affine[:3]
    bits, signed = int(plain.BitsStored), bool(int(plain.get("PixelRepresentation", 0)))
    if not 1 <= bits <= 32:
        raise Refused("1 to 32 bits a pixel", str(bits), "Export the series again.")
    ends = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    slope, intercept = (
        float(default if plain.get(name) is None else plain.get(name))
        for name, default in (("RescaleSlope", 1), ("RescaleIntercept", 0))
    )
    stored = np.dtype(f"{'int' if signed else 'uint'}{8 if bits <= 8 else 16 if bits <= 16 else 32}")
    dtype = scaled_type(stored, ends, slope, intercept)
    header = VolumeHeader(path, shape, 1, dtype, affine, "PixelSpacing", shape[0] * shape[1] * stored.itemsize)
    told = tuple(np.round([*directions.ravel(), rows, columns], 4).tolist())
    series = (str(plain.get("SeriesInstanceUID") or ""), str(plain.get("Modality") or ""), shape[:2], told)
    inverted = plain.PhotometricInterpretation == "MONOCHROME1"
    return Slice(header, series, float(normal @ position), ends, slope, intercept, inverted)


def _require_understood(plain: Any) -> None:
    """Refuse what is no slice of one grey value a pixel at a known place."""
    drawn = _DRAWN.get(str(plain.get("Modality")))
    if drawn is not None:
        do = f"Convert it to NIfTI with {drawn}, and take it out of the place."
        raise Refused("a slice of a scan", f"a segmentation ({plain.Modality})", do)
    frames = int(plain.get("NumberOfFrames") or 1)
    if frames > 1:
        do = "Export it as one file a slice (classic CT or MR), or convert it to NIfTI with dcm2niix."
        raise Refused("one slice a file", f"{frames} frames", do)
    wanted = ("Rows", "Columns", "BitsStored", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
    absent = [name for name in wanted if not plain.get(name)]
    if absent:
        do = "Take files out that are no slices of a scan (reports, scouts, projections)."
        raise Refused("a slice with its place in space", f"none of {', '.join(absent)}", do)
    kind = str(plain.get("PhotometricInterpretation") or "none")
    if kind not in ("MONOCHROME1", "MONOCHROME2"):
        raise Refused("one grey value a pixel", f"photometric interpretation {kind}", "Take the file out.")
    if plain.get("ModalityLUTSequence"):
        raise Refused("a rescale slope and intercept", "a lookup table", "Convert the series to NIfTI with dcm2niix.")


def read_pixels(path: Path, limits: Limits = Limits()) -> tuple[VolumeHeader, NDArray[Any]]:
    """Read a slice: its header, and its values in real units (columns, rows, 1), in the order of the header's axes.

    Raises:
        ImageError: beyond the limits, broken, or packed in a way that needs a further package.
    """
    one = read_slice(path)
    with reading(path, ImageError, "DICOM file"):
        require_within(one.header, one.header.across(), limits)
        pydicom = need("pydicom", "volumes", path)
        plain = pydicom.dcmread(path)
        try:
            stored = plain.pixel_array
        except (RuntimeError, ImportError, NotImplementedError) as error:
            if "missing" not in str(error) and "plugin" not in str(error) and "decompress" not in str(error):
                raise
            name = plain.file_meta.TransferSyntaxUID.name
            do = "Say: pip install pylibjpeg pylibjpeg-libjpeg pylibjpeg-openjpeg; or export the series uncompressed."
            raise Refused("pixels that can be unpacked", f"{name}, for which a package is missing", do) from error
        low, high = one.ends
        if stored.shape != (one.header.shape[1], one.header.shape[0]):
            raise Refused("as many pixels as the header says", f"shape {stored.shape}", "Export the series again.")
        if stored.min() < low or stored.max() > high:
            found = f"{stored.min()} to {stored.max()}"
            raise Refused(f"values {low} to {high}, which its bits can hold", found, "Export the series again.")
        if one.inverted:
            stored = (low + high - stored.astype(np.int64)).astype(stored.dtype)
        values = scaled(stored, one.header.dtype, one.slope, one.intercept)
        return one.header, values.T[..., np.newaxis]


def read_series(paths: Sequence[Path]) -> tuple[VolumeHeader, tuple[Path, ...]]:
    """Put the files of one series in the order of space.

    Args:
        paths: the DICOM files of a folder.

    Returns:
        The header of the volume (its path is the folder), and the files from its first slice to its last.

    Raises:
        ImageError: a file that is no slice; slices of several series; two at one place; a gap.
    """
    slices = sorted((read_slice(path) for path in paths), key=lambda one: (one.height, one.header.path.name))
    folder = slices[0].header.path.parent
    kinds = {one.series for one in slices}
    if len(kinds) > 1:
        found = "; ".join(sorted(_described([s for s in slices if s.series == kind]) for kind in kinds))
        raise ImageError(folder, expected="one series", found=found, do="Move each series to a folder of its own.")
    dtype = np.result_type(*(one.header.dtype for one in slices))
    affine = slices[0].header.affine.copy()
    if len(slices) > 1:
        affine[:3, 2] = _step(slices, folder)
    first = slices[0].header
    shape = (first.shape[0], first.shape[1], len(slices))
    whole = replace(first, path=folder, shape=shape, dtype=dtype, affine=affine, bytes=first.bytes * len(slices))
    return whole, tuple(one.header.path for one in slices)


def _step(slices: Sequence[Slice], folder: Path) -> NDArray[np.float64]:
    """Give the vector from each slice to the next, which all must share."""
    places = np.array([one.header.affine[:3, 3] for one in slices])
    gaps = np.diff([one.height for one in slices])
    usual = float(np.median(gaps))
    same = int(np.count_nonzero(gaps < _EVEN * max(usual, 1e-6)))
    if same:
        found = f"{same} at the height of another (several phases or echoes)"
        do = "Move each of them to a folder of its own."
        raise ImageError(folder, expected="one slice at each place", found=found, do=do)
    step: NDArray[np.float64] = (places[-1] - places[0]) / (len(places) - 1)
    off = np.linalg.norm(places - places[0] - np.arange(len(places))[:, np.newaxis] * step, axis=1)
    if off.max() > _EVEN * usual:
        wide = int(np.argmax(gaps))
        found = f"{gaps.min():.4g} to {gaps.max():.4g} mm, the widest after {slices[wide].header.path.name}"
        do = "Look whether a slice is missing, and export the series again."
        raise ImageError(folder, expected="slices at equal distances", found=found, do=do)
    return step


def _described(slices: Sequence[Slice]) -> str:
    columns, rows, _ = slices[0].header.shape
    kind = slices[0].series[1] or "slices"
    return f"{len(slices)} {kind} of {columns}×{rows} ({slices[0].header.path.name}{', …' if len(slices) > 1 else ''})"
