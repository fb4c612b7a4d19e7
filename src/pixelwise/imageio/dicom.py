"""Read the headers of DICOM files: where each frame is in the body, and how its values are stored.

Files are recognised by the magic bytes at offset 128, or without preamble by their first data elements. A file holds one slice of a
scan, all slices as frames (enhanced CT and MR), or images without a position in space: projections (CR, DX, MG), ultrasound,
secondary captures. No second file is opened, whatever names the first one holds.

Source: DICOM PS3.3, C.7.6.2 (Image Plane), C.7.6.16 (Multi-frame Functional Groups), 10.7.1 (spacing of projections): the position
of a pixel is that of the slice, plus its column along the first direction, plus its row along the second, in millimetres left,
back and head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import ImageError
from pixelwise.grid import Grid
from pixelwise.imageio.dicom_pixels import Frame, decode
from pixelwise.imageio.extras import need
from pixelwise.imageio.images import Limits
from pixelwise.imageio.raster import Refused
from pixelwise.imageio.safe_reading import reading, require_file
from pixelwise.imageio.volumes import VolumeHeader, require_within

_TAGS = [
    "SOPClassUID", "ImageType", "SeriesInstanceUID", "SeriesNumber", "SeriesDescription", "Modality", "Rows", "Columns",
    "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "NumberOfFrames",
    "RescaleSlope", "RescaleIntercept", "ModalityLUTSequence", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing",
    "SliceThickness", "ImagerPixelSpacing", "PixelSpacingCalibrationType", "EstimatedRadiographicMagnificationFactor",
    "NominalScannedPixelSpacing", "SequenceOfUltrasoundRegions", "TotalPixelMatrixColumns", "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
]  # fmt: skip
_DEFLATED = "1.2.840.10008.1.2.1.99"  # the header is compressed too: a few kilobytes could become gigabytes
_GROUND_TRUTH = ("SEG", "RTSTRUCT")
PROJECTIONS = {"CR", "DX", "MG", "IO", "PX", "RG", "XA", "RF"}  # a position in these is that of the detector
START = 2048  # bytes from which DICOM is recognised; the first elements are short
_ELEMENTS = 3
_UNDEFINED = 0xFFFFFFFF
_SHORT_VRS = b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split()
_LONG_VRS = b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split()
_TO_RAS = np.diag([-1.0, -1.0, 1.0])
_LEAST_FRAME = 8  # bytes that a frame takes in a file, at least if it is compressed
_CENTIMETRES, _TISSUE = 3, 1  # codes of a region of an ultrasound image: unit, and kind of its axes

# DICOM files may have any name, but not these suffixes.
_NOT_DICOM = {
    ".bmp", ".csv", ".gif", ".gz", ".html", ".jpeg", ".jpg", ".json", ".md", ".mha", ".nhdr", ".nii", ".npy", ".npz", ".nrrd",
    ".pdf", ".png", ".py", ".tif", ".tiff", ".txt", ".webp", ".xls", ".xlsx", ".xml", ".yaml", ".yml", ".zip",
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Slice:
    """A frame with its position in space.

    Args:
        frame: its values.
        header: of a volume with this slice only.
        geometry: directions of rows and columns, and the spacing between rows and between columns, (8,).
        height: its position along its normal, in millimetres.
    """

    frame: Frame
    header: VolumeHeader
    geometry: NDArray[np.float64]
    height: float


@dataclass(frozen=True, eq=False)
class DicomFile:
    """The header of a DICOM file.

    Args:
        path: of the file.
        series: identifier of its series; "" if it has none.
        number, description: of its series, as stored; "" without.
        modality: "CT", "MR", "DX", …; "" without.
        localizer: whether it serves to plan other scans.
        frames: its images; none in files without pixels.
        slices: its frames with their positions in space; none if it has none.
        grid: of its images as such, without a position in space.
        unusable: why it holds no image that can be read, as the parts of an error (expected, found, do); None if it does.
    """

    path: Path
    series: str = ""
    number: str = ""
    description: str = ""
    modality: str = ""
    localizer: bool = False
    frames: tuple[Frame, ...] = ()
    slices: tuple[Slice, ...] = ()
    grid: Grid = field(default_factory=Grid)
    unusable: tuple[str, str, str] | None = None


def may_be_dicom(path: Path) -> bool:
    """Whether the name of a file does not exclude that it is DICOM."""
    return path.suffix.lower() not in _NOT_DICOM and path.name.upper() != "DICOMDIR"


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM, by its content: the magic bytes, or without these a plausible start of a data set."""
    try:
        with path.open("rb") as file:
            return starts_dicom(file.read(START))
    except OSError:
        return False


def starts_dicom(start: bytes) -> bool:
    """Whether a file is DICOM, by its first `START` bytes; see `is_dicom`."""
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
        if length % 2 or length > START:
            return False
        place, last = place + size + length, tag
    return True


def read_file(path: Path) -> DicomFile:
    """Read the header of a DICOM file.

    Raises:
        ImageError: no DICOM, a broken file, or values that cannot be read.
    """
    with reading(path, ImageError, "DICOM file"):
        require_file(path, "a DICOM file")
        status = path.stat()
        return _file(path, status.st_mtime_ns, status.st_size)


def read_slices(path: Path) -> tuple[Slice, ...]:
    """Read the header of a file with one slice or several.

    Raises:
        ImageError: no DICOM, no slices with a position in space, or a broken file.
    """
    file = read_file(path)
    with reading(path, ImageError, "DICOM file"):
        if file.unusable is not None:
            raise Refused(*file.unusable)
        if not file.slices:
            raise _without_position(path)
        return file.slices


def read_slice(path: Path) -> Slice:
    """Read the header of a file with one slice; see `read_slices`.

    Raises:
        ImageError: several slices.
    """
    slices = read_slices(path)
    with reading(path, ImageError, "DICOM file"):
        if len(slices) > 1:
            raise Refused("one slice", f"{len(slices)} frames", "Open the file as a volume.")
        return slices[0]


def read_attributes(path: Path) -> Any:
    """Read the pydicom data set of a file without its pixels, with the identifiers of the instance.

    Some anonymisers empty SOPClassUID and SOPInstanceUID, but not their copies in the file meta group, which are used then.

    Raises:
        ImageError: no DICOM, or a broken file.
    """
    with reading(path, ImageError, "DICOM file"):
        plain = _open(path, None)
        for name in ("SOPClassUID", "SOPInstanceUID"):
            if not plain.get(name) and (copy := plain.file_meta.get(f"MediaStorage{name}")):
                setattr(plain, name, copy)
        return plain


def read_values(path: Path, attributes: Sequence[tuple[str, str]]) -> list[tuple[str, ...]]:
    """Read attributes of each frame as text; "" without.

    Args:
        path: of the file.
        attributes: the functional group that holds each in a file of several frames, "" for none, and its name.

    Raises:
        ImageError: no DICOM, or a broken file.
    """
    with reading(path, ImageError, "DICOM file"):
        names = [name for _, name in attributes]
        plain = _open(
            path, ["NumberOfFrames", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", *names]
        )
        found = [[_value(plain, index, *each) for each in attributes] for index in range(_count(plain))]
        return [tuple("" if value is None else str(value) for value in values) for values in found]


def read_pixels(path: Path, limits: Limits = Limits()) -> tuple[VolumeHeader, NDArray[Any]]:
    """Read a file of one slice: its header, and its values in real units (columns, rows, 1), in the order of the header's axes.

    Raises:
        ImageError: beyond the limits, broken, or compressed in a way that needs a further package.
    """
    slice_ = read_slice(path)
    with reading(path, ImageError, "DICOM file"):
        require_within(slice_.header, slice_.header.across(), limits)
        (values,) = decode([slice_.frame])
        return slice_.header, values.T[..., np.newaxis]


# Headers --------------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=8192)
def _file(path: Path, changed: int, size: int) -> DicomFile:
    plain = _open(path, _TAGS)
    file = DicomFile(
        path,
        str(plain.get("SeriesInstanceUID") or ""),
        "" if plain.get("SeriesNumber") is None else str(plain.SeriesNumber),
        str(plain.get("SeriesDescription") or ""),
        str(plain.get("Modality") or ""),
        localizer="LOCALIZER" in (plain.get("ImageType") or ()),
        unusable=_unusable(plain),
    )
    if file.unusable is not None:
        return file
    if _count(plain) > size // _LEAST_FRAME:
        raise EOFError("truncated")
    frames = tuple(_frame(path, plain, index) for index in range(_count(plain)))
    projection = len(frames) == 1 and file.modality in PROJECTIONS
    slices: tuple[Slice, ...] = ()
    if not projection and all(_position(plain, frame.index) for frame in frames):
        slices = tuple(_slice(plain, frame) for frame in frames)
    return replace(file, frames=frames, slices=slices, grid=Grid() if slices else _flat_grid(plain))


def _open(path: Path, tags: list[str] | None) -> Any:
    """Return the data set of a file without its pixels, with the transfer syntax that files without preamble lack.

    Raises:
        Refused: no DICOM, or one whose header is compressed.
    """
    pydicom = need("pydicom", "volumes", path)
    if not is_dicom(path):
        raise Refused("a DICOM file", "something else", "Remove the file.")
    if _is_deflated(pydicom, path):
        do = "Export the series uncompressed, or with JPEG compression."
        raise Refused("an uncompressed header", "a deflated file", do)
    plain = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=tags, force=True)
    if "TransferSyntaxUID" not in plain.file_meta:
        implicit, _ = plain.original_encoding
        uids = pydicom.uid
        plain.file_meta.TransferSyntaxUID = uids.ImplicitVRLittleEndian if implicit else uids.ExplicitVRLittleEndian
    return plain


def _is_deflated(pydicom: Any, path: Path) -> bool:
    """Whether everything behind the first elements is compressed; without preamble, pydicom does not read them alone."""
    with path.open("rb") as file:
        start = file.read(START)
    if start[128:132] != b"DICM":
        return _DEFLATED.encode() in start
    return bool(pydicom.filereader.read_file_meta_info(path).get("TransferSyntaxUID") == _DEFLATED)


def _unusable(plain: Any) -> tuple[str, str, str] | None:
    """Return why a file holds no image that can be read; None if it does.

    Raises:
        EOFError: it should hold one, but the header ends before it.
    """
    modality = str(plain.get("Modality") or "")
    if modality in _GROUND_TRUTH:
        do = "Name the series instead; train, check and evaluate read segmentations as ground truth."
        return ("a slice of a scan", f"a segmentation ({modality})", do)
    if modality == "RTDOSE":
        return ("a slice of a scan", "a dose distribution (RTDOSE)", "Remove the file.")
    if plain.get("TotalPixelMatrixColumns"):
        return ("an image", "the tiles of a whole slide", "Convert the slide to TIFF.")
    missing = [name for name in ("Rows", "Columns", "BitsStored") if not plain.get(name)]
    if missing:
        kind = plain.get("SOPClassUID") or plain.file_meta.get("MediaStorageSOPClassUID")
        if kind is None or "Image Storage" in kind.name:  # pydicom reads a header that ends early without an error
            raise EOFError("truncated")
        found = f"no pixels{f' ({modality})' if modality else ''}"
        return ("an image", found, "Remove files that are not images (reports, presentation states).")
    return None


def _count(plain: Any) -> int:
    return int(plain.get("NumberOfFrames") or 1)


def _without_position(path: Path) -> Refused:
    plain = _open(path, _TAGS)
    frames = _count(plain)
    if frames > 1:
        do = "Predict it as single images; for training, export the frames as PNG with their masks."
        return Refused("slices with their positions in space", f"{frames} frames without positions", do)
    missing = [
        name for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing") if not plain.get(name)
    ]
    found = f"none of {', '.join(missing)}" if missing else f"a projection ({plain.Modality})"
    do = "Remove files that are not slices of a scan (reports, scouts, projections)."
    return Refused("a slice with its position in space", found, do)


def _value(plain: Any, index: int, group: str, name: str) -> Any:
    """Return an attribute of a frame: its own, that of all frames, or that of the file; None without."""
    for sequence, place in (("PerFrameFunctionalGroupsSequence", index), ("SharedFunctionalGroupsSequence", 0)):
        groups = plain.get(sequence) or ()
        items = groups[place].get(group) if group and place < len(groups) else None
        if items and items[0].get(name) is not None:
            return items[0].get(name)
    return plain.get(name)


def _position(plain: Any, index: int) -> tuple[Any, Any, Any] | None:
    """Return position, orientation and spacing of a frame; None if one of them is missing."""
    groups = plain.get("PerFrameFunctionalGroupsSequence") or ()
    if _count(plain) > 1 and index >= len(groups):
        return None
    values = (
        _value(plain, index, "PlanePositionSequence", "ImagePositionPatient"),
        _value(plain, index, "PlaneOrientationSequence", "ImageOrientationPatient"),
        _value(plain, index, "PixelMeasuresSequence", "PixelSpacing"),
    )
    return values if all(values) else None


def _frame(path: Path, plain: Any, index: int) -> Frame:
    slope, intercept = (
        float(default if value is None or value == "" else value)
        for value, default in (
            (_value(plain, index, "PixelValueTransformationSequence", "RescaleSlope"), 1),
            (_value(plain, index, "PixelValueTransformationSequence", "RescaleIntercept"), 0),
        )
    )
    return Frame(
        path,
        index,
        _count(plain),
        (int(plain.Rows), int(plain.Columns)),
        int(plain.BitsStored),
        bool(int(plain.get("PixelRepresentation") or 0)),
        slope,
        intercept,
        str(plain.get("PhotometricInterpretation") or "none"),
        str(plain.file_meta.TransferSyntaxUID),
        int(table[0].LUTDescriptor[2]) if (table := plain.get("ModalityLUTSequence")) else 0,
        max(int(plain.get("HighBit") or 0) + 1 - int(plain.BitsStored), 0),
    )


def _slice(plain: Any, frame: Frame) -> Slice:
    """Return a frame with its position.

    Raises:
        Refused: colours, or a position without an inverse.
    """
    if frame.bands > 1:
        found = f"photometric interpretation {frame.kind}"
        raise Refused("one grey value per pixel", found, "Remove the file.")
    given = _position(plain, frame.index)
    assert given is not None
    position, orientation, spacing = (np.array([float(v) for v in values]) for values in given)
    directions = orientation.reshape(2, 3)
    normal = np.cross(*directions)
    rows, columns = spacing
    thickness = float(_value(plain, frame.index, "PixelMeasuresSequence", "SliceThickness") or 0) or 1.0
    affine = np.eye(4)
    affine[:3, :3] = np.stack([directions[0] * columns, directions[1] * rows, normal * thickness], axis=1)
    affine[:3, 3] = position
    affine[:3] = _TO_RAS @ affine[:3]
    height, width = frame.size
    size = height * width * frame.stored.itemsize
    header = VolumeHeader(frame.path, (width, height, 1), 1, frame.dtype, affine, "PixelSpacing", size)
    return Slice(frame, header, np.concatenate([orientation, spacing]), float(normal @ position))


# Spacing without a position -------------------------------------------------------------------------------------------


def _flat_grid(plain: Any) -> Grid:
    """Return the grid of an image without a position in space, whose calibration names what the spacing was taken from.

    PixelSpacing of a projection is calibrated to the body, unless it equals that of the detector and no calibration is named
    (PS3.3, 10.7.1.1). That of the detector is divided by the magnification, if it is known.
    """
    pixel = plain.get("PixelSpacing")
    detector = plain.get("ImagerPixelSpacing")
    if pixel and not (detector and list(pixel) == list(detector) and not plain.get("PixelSpacingCalibrationType")):
        return _grid(pixel, 1, "PixelSpacing")
    if detector:
        factor = float(plain.get("EstimatedRadiographicMagnificationFactor") or 0)
        if factor > 0:
            return _grid(detector, factor, "EstimatedRadiographicMagnificationFactor")
        return _grid(detector, 1, "ImagerPixelSpacing")
    if scanned := plain.get("NominalScannedPixelSpacing"):
        return _grid(scanned, 1, "NominalScannedPixelSpacing")
    return _ultrasound_grid(plain.get("SequenceOfUltrasoundRegions") or ())


def _grid(spacing: Any, factor: float, calibration: str) -> Grid:
    rows, columns = (float(value) / factor for value in spacing)
    if not (np.isfinite([rows, columns]).all() and min(rows, columns) > 0):
        return Grid()
    return Grid((rows, columns), "mm", calibration=calibration)


def _ultrasound_grid(regions: Any) -> Grid:
    """Return the grid of an ultrasound image whose regions of tissue all have one spacing; otherwise one without unit."""
    spacings = {
        (abs(float(region.PhysicalDeltaY)) * 10, abs(float(region.PhysicalDeltaX)) * 10)
        for region in regions
        if region.get("RegionSpatialFormat") == _TISSUE
        and region.get("PhysicalUnitsXDirection") == region.get("PhysicalUnitsYDirection") == _CENTIMETRES
    }
    return _grid(spacings.pop(), 1, "SequenceOfUltrasoundRegions") if len(spacings) == 1 else Grid()
