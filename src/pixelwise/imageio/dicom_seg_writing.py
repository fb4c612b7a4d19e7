"""Write masks as DICOM segmentation objects (SEG) that refer to the series they were predicted on.

Every class but the background is a segment; ignored pixels are in no segment. The file is reproducible: its identifiers are hashes
of the source, the mask, the classes and the model, and its dates are those of the source. Patient and study are copied from the source.

Source: DICOM PS3.3, A.51 (Segmentation IOD), C.8.20 (Segmentation), A.86 (Label Map Segmentation); PS3.5, B.2 (UIDs of UUIDs).
"""

from __future__ import annotations

import hashlib
import re
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import ImageError, LabelsError, OutOfMemoryError, SizeMismatchError
from pixelwise.imageio.extras import need
from pixelwise.imageio.masks import require_indices
from pixelwise.imageio.raster import Refused
from pixelwise.imageio.safe_reading import reading, require_file
from pixelwise.labels import Labels
from pixelwise.machine import free_memory
from pixelwise.storage import atomic_path

SegmentationType = Literal["binary", "labelmap"]

_PROGRAM = "pixelwise"
_PLACE = ("PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient", "SliceThickness")
_UIDS = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
_TAGS = [*_UIDS, *_PLACE, "Rows", "Columns", "Modality"]  # of slices after the first
# Attributes of type 2, which may be empty but not missing.
_EMPTY = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "ReferringPhysicianName"),
    *("AccessionNumber", "StudyID", "StudyDate", "StudyTime"),
)
_SEX = ("M", "F", "O")
_DATES = ("Content", "Acquisition", "Series", "Study")
_NO_DATE = "19000101"
_SERIES_STEP = 1000  # the number of a segmentation's series is that of its source plus this
_LONGEST_LABEL = 64
_COPIES = 3
_MOST_SEGMENTS = 65535
# As 3D Slicer writes segments without a term: class names are no codes, and guessing a meaning could be wrong.
_TISSUE = ("85756007", "SCT", "Tissue")


def write_dicom_seg(
    path: Path,
    mask: NDArray[Any],
    labels: Labels,
    files: Sequence[Path],
    *,
    segmentation_type: SegmentationType = "binary",
    generate_uids: bool = False,
    model: str = _PROGRAM,
) -> dict[str, str]:
    """Write a mask as a DICOM segmentation object.

    Args:
        path: of the new file.
        mask: (D, H, W) class indices, or `labels.ignore_index`, in the rows and columns of the files: one plane per file, or per
            frame of the only file.
        labels: the classes.
        files: of a series, in the order of the mask; or one file of D frames, however often it is named.
        segmentation_type: "binary", one bit per pixel and segment, which every viewer reads; or "labelmap", one number per
            pixel, compressed with RLE.
        generate_uids: whether to replace missing identifiers of study, series and frame of reference.
        model: the name of the algorithm in the file.

    Returns:
        The identifiers that were generated, by their DICOM keyword.

    Raises:
        MaskError: a mask that is not class indices.
        SizeMismatchError: a mask in another size than the files.
        LabelsError: no class but background, or too many.
        ImageError: an unreadable file, one without a required identifier, or the extra "volumes" is not installed.
        ResourceError: the disk does not take the file.
    """
    require_indices(path, mask, labels)
    files = tuple(dict.fromkeys(map(Path, files)))
    numbers = segment_numbers(labels)
    sources = _read_sources(files)
    _require_size(path, mask, sources)
    generated = _complete_uids(files[0], sources, generate_uids)
    if segmentation_type == "binary":
        _require_memory(path, len(numbers) * mask.size // 8)
    table = np.zeros(labels.ignore_index + 1, np.uint8 if len(numbers) < 256 else np.uint16)
    for name, number in numbers.items():
        table[labels.names.index(name)] = number
    stored = np.ascontiguousarray(table[mask])  # its bytes are hashed
    identity = repr((segmentation_type, model, version(_PROGRAM), labels.names, labels.colours, stored.shape))
    parts: list[bytes | memoryview] = [
        identity.encode(),
        *(str(source.SOPInstanceUID).encode() for source in sources),
        stored.data,
    ]
    highdicom = need("highdicom", "volumes", path)
    with reading(files[0], ImageError, "DICOM image"):
        file = _segmentation(highdicom, sources, stored, labels, numbers, segmentation_type, model, parts, generated)
        with atomic_path(path) as temporary:
            file.save_as(temporary, enforce_file_format=True)
    return generated


def require_identifiers(files: Sequence[Path], generate_uids: bool = False) -> None:
    """Raise as `write_dicom_seg` would if the files cannot be referred to, before anything is predicted.

    Raises:
        ImageError: an unreadable file, or one without a required identifier.
    """
    files = tuple(dict.fromkeys(map(Path, files)))
    _complete_uids(files[0], _read_sources(files), generate_uids)


def segment_numbers(labels: Labels) -> dict[str, int]:
    """Return the segment number, from 1, of every class but the background.

    Raises:
        LabelsError: no class but background, or too many.
    """
    names = [name for name in labels.names if name != labels.background]
    if not 1 <= len(names) <= _MOST_SEGMENTS:
        expected = f"1 to {_MOST_SEGMENTS} classes besides the background"
        raise LabelsError("labels.names", expected=expected, found=str(len(names)), do="Write NIfTI instead.")
    return {name: number for number, name in enumerate(names, 1)}


# Source files --------------------------------------------------------------------------------------------------------


def _read_sources(files: Sequence[Path]) -> list[Any]:
    """Read the headers of source files, repaired; all of the first, what identifies and places a slice of the others.

    Raises:
        ImageError: an unreadable file, one that is not identified, or several files of several frames.
    """
    sources = []
    for number, path in enumerate(files):
        pydicom = need("pydicom", "volumes", path)
        with reading(path, ImageError, "DICOM file"):
            require_file(path, "a DICOM file")
            tags = {"specific_tags": _TAGS} if number else {}
            source = pydicom.dcmread(path, stop_before_pixels=True, force=True, **tags)
            _repair(pydicom, source)
        sources.append(source)
    if len(sources) > 1 and any(int(source.get("NumberOfFrames") or 1) > 1 for source in sources):
        raise ImageError(
            files[0],
            expected="files of one slice each, or one file of all frames",
            found=f"{len(sources)} files, of several frames",
            do="Write NIfTI instead: a DICOM segmentation of several such files is not supported.",
        )
    _complete_places(sources)
    return sources


def _repair(pydicom: Any, source: Any) -> None:
    """Complete a header so that it can be referred to: identifiers from the file meta group, and empty attributes.

    Raises:
        Refused: no identifier of the image or of its kind.
    """
    for name in ("SOPClassUID", "SOPInstanceUID"):
        if not source.get(name):
            found = source.file_meta.get(f"MediaStorage{name}")
            if not found:
                do = "Export the series again, or write NIfTI instead."
                raise Refused(f"the identifier {name}", "none", do)
            setattr(source, name, found)
    for name in _UIDS[2:]:
        if name in source and not source.get(name):
            delattr(source, name)
    for name in _PLACE:
        values = source.get(name)
        if values is None or values == "":
            source.pop(name, None)
        else:
            several = isinstance(values, pydicom.multival.MultiValue)
            exact = [pydicom.valuerep.DSfloat(float(v), auto_format=True) for v in (values if several else [values])]
            setattr(source, name, exact if several else exact[0])
    for name in _EMPTY:
        if source.get(name) is None:
            setattr(source, name, "")
    for name in ("PatientName", "ReferringPhysicianName"):
        setattr(source, name, str(source.get(name)))  # so that it is encoded anew
    for name in ("PatientBirthDate", "StudyDate"):
        setattr(source, name, _matching(source, name, r"\d{8}"))
    source.StudyTime = _matching(source, "StudyTime", r"\d{2}(\d{2}(\d{2}(\.\d{1,6})?)?)?")
    if int(source.get("NumberOfFrames") or 1) > 1:
        _share_groups(source)
    source.PatientSex = source.PatientSex if source.PatientSex in _SEX else ""
    source.SpecificCharacterSet = "ISO_IR 192"


def _share_groups(source: Any) -> None:
    """Move orientation and spacing of the frames to where highdicom expects them, since they are those of all frames.

    Raises:
        Refused: frames without positions.
    """
    frames = source.get("PerFrameFunctionalGroupsSequence") or ()
    if not frames or "PlanePositionSequence" not in frames[0]:
        raise Refused("frames with their position", "frames without", "Write NIfTI instead.")
    if not source.get("SharedFunctionalGroupsSequence"):
        source.SharedFunctionalGroupsSequence = [type(frames[0])()]
    for name in ("PlaneOrientationSequence", "PixelMeasuresSequence"):
        if name in frames[0] and name not in source.SharedFunctionalGroupsSequence[0]:
            setattr(source.SharedFunctionalGroupsSequence[0], name, frames[0][name].value)


def _matching(source: Any, name: str, pattern: str) -> str:
    """Return the value of an attribute if it has a form, otherwise "" (a date in another form cannot be written)."""
    value = str(source.get(name) or "").strip()
    return value if re.fullmatch(pattern, value) else ""


def _complete_places(sources: Sequence[Any]) -> None:
    """Complete what highdicom requires of the places of slices."""
    first = sources[0]
    if "ImagePositionPatient" not in first:
        first.pop("PixelSpacing", None)  # highdicom cannot read a spacing without a thickness, which projections lack
        return
    places = [np.array(source.ImagePositionPatient, float) for source in sources[:2]]
    distance = float(np.linalg.norm(places[-1] - places[0])) or 1.0
    for source in sources:
        source.ImageOrientationPatient = first.ImageOrientationPatient  # directions may differ in the last digit
        if "SliceThickness" not in source:
            source.SliceThickness = round(distance, 6)


def _require_size(path: Path, mask: NDArray[Any], sources: Sequence[Any]) -> None:
    first = sources[0]
    count = int(first.get("NumberOfFrames") or 1) if len(sources) == 1 else len(sources)
    expected = (count, int(first.Rows), int(first.Columns))
    if mask.shape != expected:
        size = "×".join(map(str, expected))
        found = "×".join(map(str, mask.shape))
        do = "Write the mask of the whole series, in the rows and columns of its files."
        raise SizeMismatchError(path, expected=f"{size} pixels, as the source has", found=found, do=do)


def _require_memory(path: Path, size: int) -> None:
    """Raise OutOfMemoryError if the pixels of a file, in bytes, do not fit into memory as often as highdicom copies them."""
    free = free_memory()
    if free is not None and _COPIES * size > free:
        raise OutOfMemoryError(
            path,
            expected=f"{_COPIES * size / 1e9:.1f} GB of memory, for one bit per voxel and class",
            found=f"{free / 1e9:.1f} GB",
            do="Write a label map instead, which needs less; or NIfTI.",
        )


def _complete_uids(path: Path, sources: Sequence[Any], generate: bool) -> dict[str, str]:
    """Generate the identifiers that all files lack, and return them by keyword.

    Raises:
        ImageError: some are missing, and none may be generated.
    """
    placed = "ImagePositionPatient" in sources[0] or "SharedFunctionalGroupsSequence" in sources[0]
    required = _UIDS[2:] if placed else _UIDS[2:4]
    missing = [name for name in required if any(name not in source for source in sources)]
    if missing and not generate:
        raise ImageError(
            path,
            expected="the identifiers of study and series, which a DICOM segmentation refers to",
            found=f"no {', '.join(missing)}",
            do="Export the series again with its identifiers; or let new ones be generated: --set predict.generate_uids=true"
            " (viewers then show the segmentation apart from the series); or write NIfTI instead.",
        )
    images = [str(source.SOPInstanceUID).encode() for source in sources]
    generated = {name: _uid(name.encode(), *images) for name in missing}
    for source in sources:
        for name, uid in generated.items():
            setattr(source, name, uid)
    return generated


def _uid(*parts: bytes | memoryview) -> str:
    """Return a UID from the SHA-256 of parts, as a UUID of version 8 (RFC 9562) in decimal."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    raw = bytearray(digest.digest()[:16])
    raw[6], raw[8] = 0x80 | raw[6] & 0x0F, 0x80 | raw[8] & 0x3F
    return f"2.25.{uuid.UUID(bytes=bytes(raw)).int}"


# The segmentation ----------------------------------------------------------------------------------------------------


def _segmentation(
    highdicom: Any,
    sources: Sequence[Any],
    stored: NDArray[Any],
    labels: Labels,
    numbers: Mapping[str, int],
    kind: SegmentationType,
    model: str,
    parts: Sequence[bytes | memoryview],
    generated: Mapping[str, str],
) -> Any:
    pydicom = need("pydicom", "volumes", _PROGRAM)
    first = sources[0]
    number = int(first.get("SeriesNumber") or 0) + _SERIES_STEP
    date, time = _moment(first)
    text = f"generated: {', '.join(generated)}" if generated else "Segmentation"
    file = highdicom.seg.Segmentation(
        source_images=sources,
        pixel_array=stored,
        segmentation_type=kind.upper(),
        segment_descriptions=_descriptions(highdicom, labels, numbers, model),
        series_instance_uid=_uid(b"series", *parts),
        series_number=number if number > 0 else _SERIES_STEP,
        sop_instance_uid=_uid(b"instance", *parts),
        instance_number=1,
        manufacturer=_PROGRAM,
        manufacturer_model_name=_PROGRAM,
        software_versions=version(_PROGRAM),
        device_serial_number=version(_PROGRAM),
        content_label="SEGMENTATION",
        content_description=text,
        content_date=date,
        content_time=time,
        series_description=f"Segmentation by {_PROGRAM}",
        specific_character_set="ISO_IR 192",
        transfer_syntax_uid=pydicom.uid.ExplicitVRLittleEndian,
        omit_empty_frames=False,  # some viewers place frames by their number
    )
    # Times of writing, and an identifier that highdicom draws at random, would differ each time.
    del file.InstanceCreationDate, file.InstanceCreationTime
    for item in file.ContributingEquipmentSequence:
        item.pop("ContributionDateTime", None)
    for item in (*file.DimensionOrganizationSequence, *file.DimensionIndexSequence):
        item.DimensionOrganizationUID = _uid(b"dimensions", *parts)
    if kind == "labelmap":  # GDCM, which highdicom would use, ends the process on some sizes
        file.compress(pydicom.uid.RLELossless, encoding_plugin="pydicom", generate_instance_uid=False)
    return file


def _moment(source: Any) -> tuple[str, str]:
    """Return date and time of an image, which are required; 1900-01-01 if it has none."""
    for kind in _DATES:
        if date := _matching(source, f"{kind}Date", r"\d{8}"):
            return date, _matching(source, f"{kind}Time", r"\d{6}(\.\d{1,6})?") or "000000"
    return _NO_DATE, "000000"


def _descriptions(highdicom: Any, labels: Labels, numbers: Mapping[str, int], model: str) -> list[Any]:
    """Describe every segment: name, colour, algorithm."""
    pydicom = need("pydicom", "volumes", _PROGRAM)
    tissue = highdicom.sr.CodedConcept(_TISSUE[0], _TISSUE[1], _TISSUE[2])
    family = pydicom.sr.codedict.codes.DCM.ArtificialIntelligence
    algorithm = highdicom.AlgorithmIdentificationSequence(_text(model), family, version(_PROGRAM))
    texts = _unique_texts(numbers)
    return [
        highdicom.seg.SegmentDescription(
            segment_number=number,
            segment_label=texts[name],
            segmented_property_category=tissue,
            segmented_property_type=tissue,
            algorithm_type="AUTOMATIC",
            algorithm_identification=algorithm,
            display_color=highdicom.color.CIELabColor.from_rgb(*labels.colours[labels.names.index(name)]),
        )
        for name, number in numbers.items()
    ]


def _text(name: str) -> str:
    """Return a name as DICOM can hold it: at most 64 characters, no control characters, and no separator of values."""
    return re.sub(r"[\\\x00-\x1f\x7f]", "/", name).strip()[:_LONGEST_LABEL].strip() or "unnamed"


def _unique_texts(numbers: Mapping[str, int]) -> dict[str, str]:
    """Return the texts of names; those that would be equal get their segment number."""
    counts = Counter(map(_text, numbers))
    return {
        name: _text(name) if counts[_text(name)] == 1 else f"{_text(name)[: _LONGEST_LABEL - 6]} {number}"
        for name, number in numbers.items()
    }
