"""Read the contours of structures in DICOM (RTSTRUCT), on the slices of the series that they refer to.

Only closed contours in the planes of the slices are areas; points and open lines are skipped.

Source: DICOM PS3.3, C.8.8.5 (Structure Set) and C.8.8.6 (ROI Contour): points in millimetres left, back and head.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import GridMismatchError, MaskError
from pixelwise.imageio.dicom_seg_header import Segment, SegmentationHeader, read_data_set, references
from pixelwise.imageio.raster import Refused
from pixelwise.imageio.safe_reading import reading, require_file
from pixelwise.imageio.volumes import Across, VolumeHeader
from pixelwise.labels import Colour

Ring = NDArray[np.float64]

_CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")
_TO_RAS = np.array([-1.0, -1.0, 1.0])
_TOLERANCE = 0.1  # of the distance between slices: programs round positions differently


def read_contour_header(path: Path) -> SegmentationHeader:
    """Read which structures a file has, and which series it refers to.

    Raises:
        MaskError: a broken file, or one without areas.
    """
    with reading(path, MaskError, "DICOM structure set"):
        require_file(path, "a DICOM structure set")
        plain = read_data_set(path, specific_tags=["StudyInstanceUID", *_SEQUENCES])
        names = _names(plain)
        segments = []
        for roi in plain.get("ROIContourSequence") or ():
            if any(True for _ in _areas(roi)):
                number = int(roi.ReferencedROINumber)
                segments.append(Segment(number, names.get(number, f"structure {number}"), _colour(roi)))
        if not segments:
            raise Refused("closed contours", "none", "Export the structures again, or remove the file.")
        series: set[str] = set()
        images: set[str] = set()
        for each in _referenced_series(plain):
            series.add(str(each.get("SeriesInstanceUID") or ""))
            images.update(references(each.get("ContourImageSequence") or ()))
        study = str(plain.get("StudyInstanceUID") or "")
        return SegmentationHeader(
            path, "CONTOURS", tuple(segments), study, frozenset(series - {""}), frozenset(images - {""})
        )


_SEQUENCES = ("StructureSetROISequence", "ROIContourSequence", "ReferencedFrameOfReferenceSequence")


def _referenced_series(plain: Any) -> Iterator[Any]:
    for reference in plain.get("ReferencedFrameOfReferenceSequence") or ():
        for study in reference.get("RTReferencedStudySequence") or ():
            yield from study.get("RTReferencedSeriesSequence") or ()


def _names(plain: Any) -> dict[int, str]:
    rois = plain.get("StructureSetROISequence") or ()
    names = {int(roi.ROINumber): str(roi.get("ROIName") or "").strip() for roi in rois}
    return {number: name for number, name in names.items() if name}


def _colour(roi: Any) -> Colour | None:
    values = roi.get("ROIDisplayColor") or ()
    red, green, blue = (int(value) for value in values) if len(values) == 3 else (-1, -1, -1)
    return (red, green, blue) if all(0 <= value <= 255 for value in (red, green, blue)) else None


def _areas(roi: Any) -> Iterator[Any]:
    contours = roi.get("ContourSequence") or ()
    return (contour for contour in contours if str(contour.get("ContourGeometricType", "")) in _CLOSED)


def read_contours(path: Path, header: VolumeHeader, across: Across) -> dict[str, dict[int, list[Ring]]]:
    """Read contours in the pixels of slices.

    Args:
        path: the structure set.
        header: the voxels of the series.
        across: the direction of its slices.

    Returns:
        Rings (N, 2) of points x, y in pixels by the name of their structure, then by slice (see `geometry.contours`).

    Raises:
        MaskError: a broken file.
        GridMismatchError: contours that are in no slice of the series.
    """
    found: dict[str, dict[int, list[Ring]]] = defaultdict(lambda: defaultdict(list))
    inverse = np.linalg.inv(header.affine)
    size = header.size(across)
    with reading(path, MaskError, "DICOM structure set"):
        plain = read_data_set(path, specific_tags=list(_SEQUENCES))
        names = _names(plain)
        for roi in plain.get("ROIContourSequence") or ():
            number = int(roi.ReferencedROINumber)
            name = names.get(number, f"structure {number}")
            for contour in _areas(roi):
                voxels = (_points(contour) * _TO_RAS) @ inverse[:3, :3].T + inverse[:3, 3]
                slices, rows, columns = _oriented(voxels, header, across)
                index = round(float(np.median(slices)))
                if np.abs(slices - index).max() > _TOLERANCE or not 0 <= index < size[0]:
                    raise _not_in_a_slice(path, name, header, slices)
                # Pixel centres are at whole numbers in the series, and at halves in `geometry.contours`.
                found[name][index].append(np.stack([columns, rows], axis=1) + 0.5)
    return {name: dict(slices) for name, slices in found.items()}


def _points(contour: Any) -> Ring:
    """Return the points of a contour (N, 3), from the bytes of the file if pydicom has not converted them yet."""
    element = contour.get_item("ContourData")
    values = element.value.split(b"\\") if isinstance(element.value, bytes) else element.value
    return np.array(values, np.float64).reshape(-1, 3)


def _oriented(voxels: Ring, header: VolumeHeader, across: Across) -> Sequence[NDArray[np.float64]]:
    """Return positions (N, 3) in the file's axes as slices, rows and columns of the stack."""
    return [
        header.shape[axis] - 1 - voxels[:, axis] if reverse else voxels[:, axis]
        for axis, reverse in header.layout(across)
    ]


def _not_in_a_slice(path: Path, name: str, header: VolumeHeader, slices: NDArray[np.float64]) -> GridMismatchError:
    low, high = float(slices.min()), float(slices.max())
    place = f"at slice {low:.4g}" if high - low < _TOLERANCE else f"from slice {low:.4g} to {high:.4g}"
    return GridMismatchError(
        path,
        expected=f"contours in the {header.size(header.across())[0]} slices of {header.path.name}",
        found=f"one of {name!r} {place}, counted from 0",
        do="Export the structures on this series, or convert them to a label volume in NIfTI with plastimatch.",
    )


def total_area(slices: Mapping[int, Sequence[Ring]]) -> float:
    """Return the sum of the areas of rings, in pixels."""
    rings = (ring for rings in slices.values() for ring in rings)
    return sum(abs(float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y))) / 2 for x, y in (ring.T for ring in rings))
