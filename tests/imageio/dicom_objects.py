"""Draw small DICOM series and segmentation objects for tests, with pydicom alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
    RTStructureSetStorage,
    SegmentationStorage,
    generate_uid,
)

AXIAL = (1.0, 0, 0, 0, 1, 0)
SPACING = (0.8, 0.6)  # between rows, between columns
ORIGIN = np.array([-30.0, -20, 100])
STEP = 2.5


def empty(path: Path, kind: str) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = kind, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    one = FileDataset(str(path), {}, file_meta=meta, preamble=bytes(128))
    one.SOPClassUID, one.SOPInstanceUID = kind, meta.MediaStorageSOPInstanceUID
    return one


def normal(directions: Sequence[float]) -> np.ndarray:
    return np.cross(directions[:3], directions[3:])


def positions(count: int, directions: Sequence[float] = AXIAL, step: float = STEP) -> list[list[float]]:
    """Return the positions of slices, as a DICOM file holds them."""
    return [[round(float(v), 8) for v in ORIGIN + k * step * normal(directions)] for k in range(count)]


def write(one: FileDataset, path: Path, tags: dict[str, Any]) -> Path:
    for name, value in tags.items():
        if value is None:
            one.pop(name, None)
        else:
            setattr(one, name, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    one.save_as(path, enforce_file_format=True)
    return path


def image_pixels(one: Dataset, pixels: np.ndarray) -> None:
    one.Rows, one.Columns = pixels.shape[-2:]
    one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
    one.BitsAllocated, one.BitsStored, one.HighBit, one.PixelRepresentation = 16, 12, 11, 0
    one.PixelData = pixels.astype(np.uint16).tobytes()


def identify(one: Dataset, study: str, series: str, frame_of_reference: str) -> None:
    one.StudyInstanceUID, one.SeriesInstanceUID, one.FrameOfReferenceUID = study, series, frame_of_reference
    one.Modality, one.SeriesNumber, one.PatientID = "CT", 3, "p1"
    one.StudyDate, one.StudyTime = "20240131", "101500"


def write_series(
    folder: Path,
    shape: tuple[int, int, int],
    directions: Sequence[float] = AXIAL,
    *,
    study: str | None = None,
    **tags: Any,
) -> list[Path]:
    """Write a series of single slices (D, H, W), the values drawn; return its files from the first slice to the last."""
    study, series, reference = study or generate_uid(), generate_uid(), generate_uid()
    files = []
    for k, place in enumerate(positions(shape[0], directions)):
        path = folder / f"{(k * 7 + 3) % 101:03}.dcm"  # names do not follow the order of slices
        one = empty(path, CTImageStorage)
        identify(one, study, series, reference)
        one.ImagePositionPatient, one.ImageOrientationPatient = place, list(directions)
        one.PixelSpacing, one.SliceThickness = list(SPACING), 5.0
        one.RescaleSlope, one.RescaleIntercept = 1, -1024
        image_pixels(one, np.random.default_rng(k).integers(0, 4096, shape[1:]))
        files.append(write(one, path, tags))
    return files


def write_enhanced(
    path: Path, shape: tuple[int, int, int], order: Sequence[int], shares: bool = True, **tags: Any
) -> Path:
    """Write an enhanced CT: frame number n is the slice order[n] of D; with `shares`, frames share orientation and spacing."""
    one = empty(path, EnhancedCTImageStorage)
    identify(one, generate_uid(), generate_uid(), generate_uid())
    shared, measures, orientation = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = list(SPACING), STEP
    orientation.ImageOrientationPatient = list(AXIAL)
    if shares:
        shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
    one.SharedFunctionalGroupsSequence, one.PerFrameFunctionalGroupsSequence = [shared], []
    places = positions(shape[0])
    for number in order:
        item, place = Dataset(), Dataset()
        place.ImagePositionPatient = places[number]
        item.PlanePositionSequence = [place]
        if not shares:
            item.PixelMeasuresSequence, item.PlaneOrientationSequence = [measures], [orientation]
        one.PerFrameFunctionalGroupsSequence.append(item)
    one.NumberOfFrames = shape[0]
    image_pixels(one, np.zeros(shape))
    return write(one, path, tags)


def write_seg(
    path: Path,
    frames: Sequence[tuple[int, Sequence[float], np.ndarray]],
    names: dict[int, str],
    *,
    series: str,
    kind: str = "BINARY",
    directions: Sequence[float] = AXIAL,
    spacing: Sequence[float] = SPACING,
    **tags: Any,
) -> Path:
    """Write a segmentation object frame by frame: (segment number, position, pixels), each with its own groups."""
    one = empty(path, SegmentationStorage)
    identify(one, generate_uid(), generate_uid(), generate_uid())
    one.Modality, one.SegmentationType, one.NumberOfFrames = "SEG", kind, len(frames)
    referenced = Dataset()
    referenced.SeriesInstanceUID, referenced.ReferencedInstanceSequence = series, []
    one.ReferencedSeriesSequence = [referenced]
    one.SegmentSequence, one.PerFrameFunctionalGroupsSequence = [], []
    for number, name in names.items():
        segment = Dataset()
        segment.SegmentNumber, segment.SegmentLabel = number, name
        one.SegmentSequence.append(segment)
    for number, place, _ in frames:
        item, group, orientation, measures, segment = (Dataset() for _ in range(5))
        group.ImagePositionPatient, orientation.ImageOrientationPatient = list(place), list(directions)
        measures.PixelSpacing, segment.ReferencedSegmentNumber = list(spacing), number
        item.PlanePositionSequence, item.PlaneOrientationSequence = [group], [orientation]
        item.PixelMeasuresSequence = [measures]
        if kind != "LABELMAP":
            item.SegmentIdentificationSequence = [segment]
        one.PerFrameFunctionalGroupsSequence.append(item)
    pixels = np.stack([pixels for _, _, pixels in frames])
    image_pixels(one, pixels)
    bits = 1 if kind == "BINARY" else 8
    one.BitsAllocated, one.BitsStored, one.HighBit = bits, bits, bits - 1
    one.PixelData = (
        np.packbits(pixels.ravel(), bitorder="little").tobytes() if bits == 1 else pixels.astype(np.uint8).tobytes()
    )
    one.PixelData += bytes(len(one.PixelData) % 2)
    return write(one, path, tags)


def write_contours(
    path: Path,
    contours: Sequence[tuple[int, np.ndarray]],
    names: dict[int, str],
    *,
    series: str,
    geometry: str = "CLOSED_PLANAR",
    **tags: Any,
) -> Path:
    """Write a structure set: (structure number, points (N, 3) in millimetres left, back, head)."""
    one = empty(path, RTStructureSetStorage)
    identify(one, generate_uid(), generate_uid(), generate_uid())
    one.Modality = "RTSTRUCT"
    reference, study, referenced = Dataset(), Dataset(), Dataset()
    referenced.SeriesInstanceUID = series
    study.RTReferencedSeriesSequence, reference.RTReferencedStudySequence = [referenced], [study]
    one.ReferencedFrameOfReferenceSequence = [reference]
    one.StructureSetROISequence, one.ROIContourSequence = [], []
    for number, name in names.items():
        structure, roi = Dataset(), Dataset()
        structure.ROINumber, structure.ROIName = number, name
        roi.ReferencedROINumber, roi.ROIDisplayColor, roi.ContourSequence = number, [200, 10 * number, 0], []
        for own, points in contours:
            if own == number:
                contour = Dataset()
                contour.ContourGeometricType, contour.NumberOfContourPoints = geometry, len(points)
                contour.ContourData = [f"{value:.6g}" for value in points.ravel()]
                roi.ContourSequence.append(contour)
        one.StructureSetROISequence.append(structure)
        one.ROIContourSequence.append(roi)
    return write(one, path, tags)
