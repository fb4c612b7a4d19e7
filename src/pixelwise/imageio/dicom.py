"""Read DICOM files of one slice each (CT, MR, PET), and order the slices of a series by position.

Values are converted to real units (HU for CT). Files are recognised by the magic bytes at offset 128, or without preamble by
their first data elements. No second file is opened, whatever names the first one holds.

Source: DICOM PS3.3, C.7.6.2 (Image Plane), C.7.6.3 (Image Pixel), C.11.1 (Modality LUT): the position of a pixel is that of the
slice, plus its column along the first direction, plus its row along the second, in millimetres left, back and head.
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
_DEFLATED = "1.2.840.10008.1.2.1.99"  # the header is compressed too: a few kilobytes could become gigabytes
_CONVERTERS = {"SEG": "dcmqi's segimage2itkimage", "RTSTRUCT": "plastimatch"}
_START = 2048  # bytes from which DICOM is recognised; the first elements are short
_ELEMENTS = 3
_UNDEFINED = 0xFFFFFFFF
_SHORT_VRS = b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split()
_LONG_VRS = b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split()
_TOLERANCE = 0.02  # of the slice distance: deviation of a slice from its expected position
_TO_RAS = np.diag([-1.0, -1.0, 1.0])


@dataclass(frozen=True, eq=False)
class Slice:
    """The header of a file with one slice.

    Args:
        header: of a volume with this slice only.
        series: the key of its series: identifier, modality, shape, orientation and spacing.
        height: its position along the normal of its series, in millimetres.
        ends: smallest and largest value that can be stored.
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
    """Whether a file is DICOM, by its content: the magic bytes, or without these a plausible start of a data set."""
    try:
        with path.open("rb") as file:
            start = file.read(_START)
    except OSError:
        return False
    return start[128:132] == b"DICM" or _is_data_set(start)


def _is_data_set(start: bytes) -> bool:
    """Whether bytes begin with three data elements of ascending tags, the first in group 2 or 8 (DICOM PS3.5, 7.1).

    Files without preamble are either in implicit or in explicit little endian; the VR of an element, two letters, tells.
    """
    place, last = 0, (0, 0)
    for number in range(_ELEMENTS):
        head = start[place : place + 12]
        tag = (int.from_bytes(head[:2], "little"), int.from_bytes(head[2:4], "little"))
        if len(head) < 12 or tag <= last or tag[0] > 0x28 or (number == 0 and tag[0] not in (2, 8)):
            return False
        size, at = 8, slice(4, 8)
        if head[4:6] in _LONG_VRS:
            size, at = 12, slice(8, 12)
        elif head[4:6] in _SHORT_VRS:
            at = slice(6, 8)
        length = int.from_bytes(head[at], "little")
        if head[4:6] == b"SQ" and length == _UNDEFINED:
            return number > 0
        if length % 2 or length > _START:
            return False
        place, last = place + size + length, tag
    return True


def read_slice(path: Path) -> Slice:
    """Read the header of a slice.

    Raises:
        ImageError: no DICOM, no slice with a position in space, several frames, colours, or a broken file.
    """
    with reading(path, ImageError, "DICOM file"):
        require_file(path, "a DICOM file")
        status = path.stat()
        return _slice(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=8192)
def _slice(path: Path, changed: int, size: int) -> Slice:
    pydicom = need("pydicom", "volumes", path)
    if not is_dicom(path):
        raise Refused("a DICOM file", "something else", "Remove the file.")
    if _is_deflated(pydicom, path):
        do = "Export the series uncompressed, or with JPEG compression."
        raise Refused("an uncompressed header", "a deflated file", do)
    plain = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=_TAGS, force=True)
    _require_supported(plain)
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
        raise Refused("1 to 32 bits per pixel", str(bits), "Export the series again.")
    ends = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    slope, intercept = (
        float(default if plain.get(name) is None else plain.get(name))
        for name, default in (("RescaleSlope", 1), ("RescaleIntercept", 0))
    )
    stored = np.dtype(f"{'int' if signed else 'uint'}{8 if bits <= 8 else 16 if bits <= 16 else 32}")
    dtype = scaled_type(stored, ends, slope, intercept)
    header = VolumeHeader(path, shape, 1, dtype, affine, "PixelSpacing", shape[0] * shape[1] * stored.itemsize)
    geometry = tuple(np.round([*directions.ravel(), rows, columns], 4).tolist())
    series = (str(plain.get("SeriesInstanceUID") or ""), str(plain.get("Modality") or ""), shape[:2], geometry)
    inverted = plain.PhotometricInterpretation == "MONOCHROME1"
    return Slice(header, series, float(normal @ position), ends, slope, intercept, inverted)


def _is_deflated(pydicom: Any, path: Path) -> bool:
    """Whether everything behind the first elements is compressed; without preamble, pydicom does not read them alone."""
    with path.open("rb") as file:
        start = file.read(_START)
    if start[128:132] != b"DICM":
        return _DEFLATED.encode() in start
    return bool(pydicom.filereader.read_file_meta_info(path).get("TransferSyntaxUID") == _DEFLATED)


def _require_supported(plain: Any) -> None:
    """Raise unless the file is one slice at a known position, with one grey value per pixel."""
    converter = _CONVERTERS.get(str(plain.get("Modality")))
    if converter is not None:
        do = f"Convert it to NIfTI with {converter}, and remove it from the folder."
        raise Refused("a slice of a scan", f"a segmentation ({plain.Modality})", do)
    frames = int(plain.get("NumberOfFrames") or 1)
    if frames > 1:
        do = "Export it as one file per slice (classic CT or MR), or convert it to NIfTI with dcm2niix."
        raise Refused("one slice per file", f"{frames} frames", do)
    required = ("Rows", "Columns", "BitsStored", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
    missing = [name for name in required if not plain.get(name)]
    if missing:
        do = "Remove files that are not slices of a scan (reports, scouts, projections)."
        raise Refused("a slice with its position in space", f"none of {', '.join(missing)}", do)
    kind = str(plain.get("PhotometricInterpretation") or "none")
    if kind not in ("MONOCHROME1", "MONOCHROME2"):
        raise Refused("one grey value per pixel", f"photometric interpretation {kind}", "Remove the file.")
    if plain.get("ModalityLUTSequence"):
        raise Refused("a rescale slope and intercept", "a lookup table", "Convert the series to NIfTI with dcm2niix.")


def read_pixels(path: Path, limits: Limits = Limits()) -> tuple[VolumeHeader, NDArray[Any]]:
    """Read a slice: its header, and its values in real units (columns, rows, 1), in the order of the header's axes.

    Raises:
        ImageError: beyond the limits, broken, or compressed in a way that needs a further package.
    """
    slice_ = read_slice(path)
    with reading(path, ImageError, "DICOM file"):
        header = slice_.header
        require_within(header, header.across(), limits)
        pydicom = need("pydicom", "volumes", path)
        plain = pydicom.dcmread(path, force=True)
        if "TransferSyntaxUID" not in plain.file_meta:  # files without preamble
            uids = pydicom.uid
            implicit, _ = plain.original_encoding
            plain.file_meta.TransferSyntaxUID = uids.ImplicitVRLittleEndian if implicit else uids.ExplicitVRLittleEndian
        try:
            stored = plain.pixel_array
        except (RuntimeError, ImportError, NotImplementedError) as error:
            if "missing" not in str(error) and "plugin" not in str(error) and "decompress" not in str(error):
                raise
            name = plain.file_meta.TransferSyntaxUID.name
            do = "Run: pip install python-gdcm; or export the series uncompressed."
            raise Refused("pixels that can be decompressed", f"{name}, for which a package is missing", do) from error
        low, high = slice_.ends
        if stored.shape != (header.shape[1], header.shape[0]):
            raise Refused("as many pixels as in the header", f"shape {stored.shape}", "Export the series again.")
        if stored.min() < low or stored.max() > high:
            found = f"{stored.min()} to {stored.max()}"
            raise Refused(f"values {low} to {high}, by the bits in the header", found, "Export the series again.")
        if slice_.inverted:
            stored = (low + high - stored.astype(np.int64)).astype(stored.dtype)
        values = scaled(stored, header.dtype, slice_.slope, slice_.intercept)
        return header, values.T[..., np.newaxis]


def read_series(paths: Sequence[Path]) -> tuple[VolumeHeader, tuple[Path, ...]]:
    """Order the files of one series by position.

    Args:
        paths: the DICOM files of a folder.

    Returns:
        The header of the volume (its path is the folder), and the files from the first slice to the last.

    Raises:
        ImageError: a file that is no slice; slices of several series; two at one position; a gap.
    """
    slices = sorted((read_slice(path) for path in paths), key=lambda each: (each.height, each.header.path.name))
    folder = slices[0].header.path.parent
    kinds = {each.series for each in slices}
    if len(kinds) > 1:
        found = "; ".join(sorted(_described([s for s in slices if s.series == kind]) for kind in kinds))
        raise ImageError(folder, expected="one series", found=found, do="Move each series to a separate folder.")
    dtype = np.result_type(*(each.header.dtype for each in slices))
    affine = slices[0].header.affine.copy()
    if len(slices) > 1:
        affine[:3, 2] = _step(slices, folder)
    first = slices[0].header
    shape = (first.shape[0], first.shape[1], len(slices))
    header = replace(first, path=folder, shape=shape, dtype=dtype, affine=affine, bytes=first.bytes * len(slices))
    return header, tuple(each.header.path for each in slices)


def _step(slices: Sequence[Slice], folder: Path) -> NDArray[np.float64]:
    """Return the vector from each slice to the next, which must be the same for all."""
    positions = np.array([each.header.affine[:3, 3] for each in slices])
    gaps = np.diff([each.height for each in slices])
    distance = float(np.median(gaps))
    same = int(np.count_nonzero(gaps < _TOLERANCE * max(distance, 1e-6)))
    if same:
        found = f"{same} at the position of another (several phases or echoes)"
        do = "Move each phase or echo to a separate folder."
        raise ImageError(folder, expected="one slice at each position", found=found, do=do)
    step: NDArray[np.float64] = (positions[-1] - positions[0]) / (len(positions) - 1)
    deviation = np.linalg.norm(positions - positions[0] - np.arange(len(positions))[:, np.newaxis] * step, axis=1)
    if deviation.max() > _TOLERANCE * distance:
        widest = int(np.argmax(gaps))
        found = f"{gaps.min():.4g} to {gaps.max():.4g} mm, the widest after {slices[widest].header.path.name}"
        do = "Check whether a slice is missing, and export the series again."
        raise ImageError(folder, expected="slices at equal distances", found=found, do=do)
    return step


def _described(slices: Sequence[Slice]) -> str:
    columns, rows, _ = slices[0].header.shape
    kind = slices[0].series[1] or "slices"
    return f"{len(slices)} {kind} of {columns}×{rows} ({slices[0].header.path.name}{', …' if len(slices) > 1 else ''})"
