"""Recognise segmentations in DICOM, and read what they say about themselves: segments, and the images that they refer to.

Source: DICOM PS3.3, C.8.20 (Segmentation), C.12.1.2 (Common Instance Reference), C.10.7.1.1 (CIELab values).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np

from pixelwise.errors import ImageError, MaskError
from pixelwise.imageio.extras import need
from pixelwise.imageio.images import Limits
from pixelwise.imageio.raster import Refused
from pixelwise.imageio.safe_reading import reading, require_file
from pixelwise.labels import Colour

Kind = Literal["BINARY", "FRACTIONAL", "LABELMAP", "CONTOURS"]

_CLASSES: Mapping[bytes, Literal["SEG", "RTSTRUCT"]] = {
    b"1.2.840.10008.5.1.4.1.1.66.4": "SEG",
    b"1.2.840.10008.5.1.4.1.1.66.7": "SEG",
    b"1.2.840.10008.5.1.4.1.1.481.3": "RTSTRUCT",
}
_START = 4096  # bytes in which the class of an object is found
_DEFLATED = "1.2.840.10008.1.2.1.99"
_CHUNK = 1 << 20
_HEADER = ["StudyInstanceUID", "SegmentationType", "SegmentSequence", "ReferencedSeriesSequence", "SourceImageSequence"]
_RGB_FROM_XYZ = np.array([[3.2406, -1.5372, -0.4986], [-0.9689, 1.8758, 0.0415], [0.0557, -0.2040, 1.0570]])
_WHITE = np.array([0.9505, 1.0, 1.0889])  # D65

Key = tuple[Path, int, int]


@dataclass(frozen=True)
class Segment:
    """A segment: its number in the file, name, and recommended colour, None if there is none."""

    number: int
    name: str
    colour: Colour | None = None


@dataclass(frozen=True)
class SegmentationHeader:
    """What a segmentation object says about itself, without its frames.

    Args:
        path: the file.
        kind: how segments are stored; "CONTOURS" in a structure set (see `dicom_contours`).
        segments: in the order of the file, without the background of a label map.
        study: identifier of its study.
        series: identifiers of the series that it refers to.
        images: identifiers of the images that it refers to.
    """

    path: Path
    kind: Kind
    segments: tuple[Segment, ...]
    study: str
    series: frozenset[str]
    images: frozenset[str]


def segmentation_kind(path: Path) -> Literal["SEG", "RTSTRUCT"] | None:
    """Whether a file is a DICOM segmentation object or a set of contours, by its start; never raises."""
    try:
        with path.open("rb") as file:
            start = file.read(_START)
        if not any(name in start for name in _CLASSES):
            return None
        pydicom = need("pydicom", "volumes", path)
        with reading(path, ImageError, "DICOM file"):
            meta = pydicom.filereader.read_file_meta_info(path) if start[128:132] == b"DICM" else {}
            name = meta.get("MediaStorageSOPClassUID") or _first_elements(pydicom, path).get("SOPClassUID")
    except (OSError, ImageError):
        return None
    return _CLASSES.get(str(name).encode())


def is_dicom_seg(path: Path) -> bool:
    """Whether a file is a DICOM segmentation object, by its start; never raises."""
    return segmentation_kind(path) == "SEG"


def _first_elements(pydicom: Any, path: Path) -> Any:
    """Read a data set up to the class of its object, (0008,0016)."""
    with path.open("rb") as file:
        return pydicom.filereader.read_partial(file, lambda tag, _, __: tag > 0x00080016, force=True)


@dataclass(frozen=True)
class Identifiers:
    """The identifiers of an image, of its series and study; "" where there is none."""

    image: str
    series: str
    study: str


def read_identifiers(path: Path) -> Identifiers:
    """Read the identifiers of a DICOM image; that of the image from the file meta group if the data set lacks it.

    Raises:
        ImageError: it cannot be read.
    """
    with reading(path, ImageError, "DICOM file"):
        return _identifiers(key_of(path))


@lru_cache(maxsize=1 << 16)
def _identifiers(key: Key) -> Identifiers:
    path = key[0]
    pydicom = need("pydicom", "volumes", path)
    names = ["SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"]
    plain = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=names, force=True)
    image = plain.get(names[0]) or plain.file_meta.get("MediaStorageSOPInstanceUID")
    return Identifiers(*(str(value or "") for value in (image, plain.get(names[1]), plain.get(names[2]))))


# The header ----------------------------------------------------------------------------------------------------------


def read_segmentation_header(path: Path) -> SegmentationHeader:
    """Read what a segmentation object says about itself.

    Raises:
        MaskError: no segmentation object, or a broken one.
    """
    with reading(path, MaskError, "DICOM segmentation"):
        require_file(path, "a DICOM segmentation")
        return _read_header(key_of(path))


def key_of(path: Path) -> Key:
    """Return what identifies the content of a file, for caches."""
    status = path.stat()
    return path, status.st_mtime_ns, status.st_size


@lru_cache(maxsize=4096)
def _read_header(key: Key) -> SegmentationHeader:
    path = key[0]
    if not is_dicom_seg(path):
        raise Refused("a DICOM segmentation", "something else", "Name a file of modality SEG.")
    plain = read_data_set(path, stop_before_pixels=True, specific_tags=_HEADER)
    kind = str(plain.get("SegmentationType", ""))
    if kind not in ("BINARY", "FRACTIONAL", "LABELMAP"):
        raise Refused("the type BINARY, FRACTIONAL or LABELMAP", repr(kind), "Export the segmentation again.")
    segments = tuple(map(_segment, plain.get("SegmentSequence") or ()))
    if not segments or len({segment.number for segment in segments}) < len(segments):
        found = "several with one number" if segments else "none"
        raise Refused("segments, each with its own number", found, "Export the segmentation again.")
    images = set(references(plain.get("SourceImageSequence") or ()))
    series: set[str] = set()
    for each in plain.get("ReferencedSeriesSequence") or ():
        series.add(str(each.get("SeriesInstanceUID") or ""))
        images.update(references(each.get("ReferencedInstanceSequence") or ()))
    if not series and not images:
        images = _images_of_frames(path)
    return SegmentationHeader(
        path,
        cast(Kind, kind),
        tuple(segment for segment in segments if segment.number),
        str(plain.get("StudyInstanceUID") or ""),
        frozenset(series - {""}),
        frozenset(images - {""}),
    )


def _images_of_frames(path: Path) -> set[str]:
    """Return the identifiers of the images that single frames refer to, if nothing refers to images of the whole file."""
    sequences = ["SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"]
    plain = read_data_set(path, stop_before_pixels=True, specific_tags=sequences)
    groups = (group for name in sequences for group in plain.get(name) or ())
    derivations = (each for group in groups for each in group.get("DerivationImageSequence") or ())
    return {image for each in derivations for image in references(each.get("SourceImageSequence") or ())}


def references(items: Sequence[Any]) -> Iterator[str]:
    """Yield the identifiers of the objects that the items of a sequence refer to."""
    return (str(item.get("ReferencedSOPInstanceUID") or "") for item in items)


def _segment(item: Any) -> Segment:
    """Return number, name and colour of a segment; without a label, it is named after the term for its type."""
    number = int(item.SegmentNumber)
    terms = item.get("SegmentedPropertyTypeCodeSequence") or ()
    meaning = str(terms[0].get("CodeMeaning") or "") if terms else ""
    name = str(item.get("SegmentLabel") or "").strip() or meaning.strip() or f"segment {number}"
    lab = item.get("RecommendedDisplayCIELabValue") or ()
    return Segment(number, name, rgb_from_cielab([int(value) for value in lab]) if len(lab) == 3 else None)


def rgb_from_cielab(stored: Sequence[int]) -> Colour:
    """Convert L*, a*, b* as DICOM stores them, 0-65535, to sRGB for the white point D65, as other programs do."""
    lightness, a, b = np.asarray(stored, np.float64) * (100, 255, 255) / 65535 - (0, 128, 128)
    y = (lightness + 16) / 116
    roots = np.array([y + a / 500, y, y - b / 200])
    xyz = np.where(roots > 6 / 29, roots**3, (roots - 16 / 116) / 7.787) * _WHITE
    linear = np.clip(_RGB_FROM_XYZ @ xyz, 0, 1)
    rgb = np.where(linear > 0.0031308, 1.055 * linear ** (1 / 2.4) - 0.055, 12.92 * linear)
    red, green, blue = np.rint(rgb * 255).astype(int).tolist()
    return red, green, blue


def read_data_set(path: Path, **options: Any) -> Any:
    """Read a DICOM file; a deflated one only if what it holds is within the limits.

    Raises:
        Refused: it is not.
    """
    pydicom = need("pydicom", "volumes", path)
    with path.open("rb") as file:
        start = file.read(132)
    if start[128:] == b"DICM":
        meta = pydicom.filereader.read_file_meta_info(path)
        if meta.get("TransferSyntaxUID") == _DEFLATED:
            _require_inflated_size(path, 144 + int(meta.FileMetaInformationGroupLength), Limits().bytes)
    return pydicom.dcmread(path, force=True, **options)


def _require_inflated_size(path: Path, offset: int, most: int) -> None:
    """Inflate a file in chunks, to know its size before anything is kept."""
    inflater, size = zlib.decompressobj(-zlib.MAX_WBITS), 0
    with path.open("rb") as file:
        file.seek(offset)
        while not inflater.eof and (rest := inflater.unconsumed_tail or file.read(_CHUNK)):
            size += len(inflater.decompress(rest, _CHUNK))
            if size > most:
                raise Refused(f"at most {most:,} bytes once unpacked", "more", "Split the segmentation.")
