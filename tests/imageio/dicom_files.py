"""Small DICOM files, made from scratch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, ExplicitVRLittleEndian, generate_uid

ROWS, COLUMNS = 5, 7
SPACING = (0.8, 0.6)  # between rows, between columns
AXIAL = (1.0, 0, 0, 0, 1, 0)
ORIGIN = np.array([-30.0, -20, 100])
STEP = np.array([0.0, 0, 2.5])


def values_of(k: int, high: int = 4096) -> np.ndarray:
    return np.random.default_rng(k).integers(0, high, (ROWS, COLUMNS)).astype(np.uint16)


def dataset(pixels: np.ndarray, **tags: Any) -> FileDataset:
    """Return an image (H, W), (H, W, 3) or (N, H, W) of 12 stored bits, without a position; None removes a tag."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    one = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    one.SOPClassUID, one.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    one.Modality, one.SeriesInstanceUID = "CT", "1.2.3"
    colour = pixels.ndim == 3 and pixels.shape[-1] == 3
    one.Rows, one.Columns = pixels.shape[:2] if colour else pixels.shape[-2:]
    one.SamplesPerPixel, one.PhotometricInterpretation = (3, "RGB") if colour else (1, "MONOCHROME2")
    if colour:
        one.PlanarConfiguration = 0
    if pixels.ndim == 3 and not colour:
        one.NumberOfFrames = len(pixels)
    bits = pixels.dtype.itemsize * 8
    one.BitsAllocated, one.BitsStored, one.HighBit = bits, min(bits, 12), min(bits, 12) - 1
    one.PixelRepresentation = int(pixels.dtype.kind == "i")
    one.PixelData = pixels.tobytes()
    for name, value in tags.items():
        if value is None:
            delattr(one, name)
        else:
            setattr(one, name, value)
    return one


def save(path: Path, one: FileDataset) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    one.save_as(path, enforce_file_format=True)
    return path


def slice_file(path: Path, pixels: np.ndarray, position: Any, directions: Any = AXIAL, **tags: Any) -> Path:
    """Write a slice of a CT series in HU."""
    place = {
        "ImagePositionPatient": [round(float(v), 6) for v in position],
        "ImageOrientationPatient": list(directions),
        "PixelSpacing": list(SPACING),
        "SliceThickness": 9.0,
        "RescaleSlope": 1,
        "RescaleIntercept": -1024,
    }
    return save(path, dataset(pixels, **place | tags))


def series(folder: Path, count: int = 4, directions: Any = AXIAL, step: Any = STEP, **tags: Any) -> list[Path]:
    """Write a series whose file names do not follow the order of slices."""
    order = np.random.default_rng(count).permutation(count)
    return [
        slice_file(folder / f"IM{order[k]}", values_of(k), ORIGIN + k * np.array(step), directions, **tags)
        for k in range(count)
    ]


def item(**tags: Any) -> Items:
    """Return a sequence of one item."""
    one = Dataset()
    for name, value in tags.items():
        setattr(one, name, value)
    return Items([one])


def enhanced_file(
    path: Path, heights: Sequence[float], scaling: Sequence[tuple[float, float]] = (), **tags: Any
) -> Path:
    """Write an enhanced CT file whose k-th frame holds `values_of(k)` and lies at a height in steps of 2.5 mm."""
    one = dataset(np.stack([values_of(k) for k in range(len(heights))]), **tags)
    one.file_meta.MediaStorageSOPClassUID = one.SOPClassUID = EnhancedCTImageStorage
    shared = Dataset()
    shared.PlaneOrientationSequence = item(ImageOrientationPatient=list(AXIAL))
    shared.PixelMeasuresSequence = item(PixelSpacing=list(SPACING), SliceThickness=9.0)
    if not scaling:
        shared.PixelValueTransformationSequence = item(RescaleSlope=1, RescaleIntercept=-1024, RescaleType="HU")
    one.SharedFunctionalGroupsSequence = Items([shared])
    frames = []
    for k, height in enumerate(heights):
        frame = Dataset()
        frame.PlanePositionSequence = item(ImagePositionPatient=(ORIGIN + height * STEP).tolist())
        if scaling:
            slope, intercept = scaling[k]
            frame.PixelValueTransformationSequence = item(
                RescaleSlope=slope, RescaleIntercept=intercept, RescaleType="US"
            )
        frames.append(frame)
    one.PerFrameFunctionalGroupsSequence = Items(frames)
    return save(path, one)


def affine_of(directions: Any = AXIAL, step: Any = STEP, origin: Any = ORIGIN) -> np.ndarray:
    """Return, by hand from the standard, the matrix from (column, row, slice) to right, front, head."""
    along, down = np.array(directions[:3]), np.array(directions[3:])
    matrix = np.eye(4)
    matrix[:3, 0], matrix[:3, 1], matrix[:3, 2], matrix[:3, 3] = along * SPACING[1], down * SPACING[0], step, origin
    return np.diag([-1.0, -1, 1, 1]) @ matrix
