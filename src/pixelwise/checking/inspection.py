"""Inspect one image and its mask: files are read and decoded once and reduced to about 1 kB of statistics."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.checking.alignment import LENGTH, alignment_profiles
from pixelwise.checking.far_values import FarValue, far_values
from pixelwise.checking.image_signature import image_signature
from pixelwise.checking.regions import COLUMNS, Column, find_runs, region_table
from pixelwise.datasets.dataset import Dataset
from pixelwise.errors import DataError, MaskError
from pixelwise.formats.reading import image_digest, image_orientation, mask_header, mask_orientation, window_of
from pixelwise.formats.records import Record
from pixelwise.grid import Grid
from pixelwise.imageio.images import fill_invalid, read_header, read_mask_values
from pixelwise.imageio.volume_files import format_of
from pixelwise.imageio.volume_files import read_header as read_volume_header
from pixelwise.labels import Labels
from pixelwise.types import Sample

_DIGEST = 16
_LISTED_IDS = 16
_LARGEST_KEPT = 32_000_000  # bytes
_NO_TABLE = np.zeros((0, COLUMNS), np.uint32)
_NO_PROFILES = np.zeros((2, LENGTH), np.float16)


@dataclass(frozen=True, slots=True)
class UnknownIds:
    """Ids of a mask that the labels do not define.

    Args:
        ids: (id, pixels), the most frequent first; at most 16.
        others: number of further ids.
        pixels: pixels of all unknown ids.
        thin_pixels: those in regions less than 2 pixels thick, as along anti-aliased edges.
        lowest: the lowest id in the mask, known or not.
    """

    ids: tuple[tuple[int, int], ...]
    others: int
    pixels: int
    thin_pixels: int
    lowest: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Inspection:
    """Statistics of one image and its mask; if `error` is set, the files are unusable and most other fields empty.

    Args:
        split: "train", "val" or "test".
        index: position of the image in the `Dataset` of that split.
        error: why the image or the mask cannot be used.
        notices: decisions made while the mask was read.
        size: (H, W) of the image; (0, 0) if it cannot be read.
        bands: number of bands.
        dtype: numpy name of the pixel type.
        digest: first 16 bytes of the SHA-256 of the image file; empty if it cannot be opened.
        signature: see `image_signature`; empty if the image is flat.
        spread: standard deviation of the pixels, in stored values.
        grey: whether the image has three identical bands.
        depth: for 16-bit images, "low" if no value exceeds 255, "high" if all are multiples of 256, "copied" if all are
            multiples of 257; otherwise "".
        exif_mismatch: whether EXIF orients image and mask differently and their sizes do not show which is right.
        mask_digest: 8 bytes of a hash of the mask's class indices; empty without a mask.
        table: (P, `COLUMNS`) uint32, one row per class that occurs, ignored pixels as class K last (see `Column`).
        profiles: (2, 17) float16, see `alignment_profiles`; 0 if not computed.
        unknown: ids that the labels do not define, if they are the error.
        far: values of the image far outside of all others, see `far_values`.
        mask_nodata: the nodata value that the mask file defines.
        spacing: metres between neighbouring pixels, (row, column), or (slice, row, column) for a slice of a volume file; () if
            unknown.
    """

    split: str
    index: int
    error: DataError | None = None
    notices: tuple[str, ...] = ()
    size: tuple[int, int] = (0, 0)
    bands: int = 0
    dtype: str = ""
    digest: bytes = b""
    signature: bytes = b""
    spread: float = 0.0
    grey: bool = False
    depth: str = ""
    exif_mismatch: bool = False
    mask_digest: bytes = b""
    table: NDArray[np.uint32] = field(default_factory=lambda: _NO_TABLE)
    profiles: NDArray[np.float16] = field(default_factory=lambda: _NO_PROFILES)
    unknown: UnknownIds | None = None
    far: tuple[FarValue, ...] = ()
    mask_nodata: float | None = None
    spacing: tuple[float, ...] = ()

    @property
    def example(self) -> tuple[str, int]:
        """Return (split, index)."""
        return self.split, self.index

    @property
    def form(self) -> str:
        """Describe bands and pixel type."""
        return f"{self.bands} band{'s' * (self.bands != 1)} of {self.dtype}"

    @property
    def classes(self) -> frozenset[int]:
        """Return the class indices that occur, K for ignored pixels."""
        return frozenset(self.table[:, Column.CLASS].tolist())


def inspect_image(
    dataset: Dataset,
    index: int,
    place: int | None = None,
    *,
    align: bool = True,
    recent: deque[Sample] | None = None,
) -> Inspection:
    """Inspect one image and its mask.

    Args:
        dataset: the split, or a subset of it.
        index: position of the image in `dataset`.
        place: position in the split, if `dataset` is a subset.
        align: whether to compute alignment profiles, which takes half as long as everything else.
        recent: receives the sample. Holding on to the last two lets the allocator reuse their memory; otherwise pages
            are returned and requested again for every image, which takes longer than decoding a small one.
    """
    record, place = dataset.records[index], index if place is None else place
    try:
        digest = bytes.fromhex(image_digest(record))[:_DIGEST]
    except OSError:
        digest = b""
    try:
        sample, notices = dataset.inspect(index)
        header = mask_header(record)
        exif_mismatch = _exif_mismatch(record, mask_orientation(record, header), sample.image.shape[1:])
    except DataError as error:
        unknown = _unknown_ids(record, dataset) if isinstance(error, MaskError) else None
        nodata = read_header(record.mask).nodata if unknown is not None and record.mask is not None else None
        return Inspection(dataset.name, place, error, digest=digest, unknown=unknown, mask_nodata=nodata)
    if recent is not None and sample.image.nbytes <= _LARGEST_KEPT:
        recent.append(sample)
    image = fill_invalid(sample.image, sample.valid)
    mask = sample.truth(dataset.labels.ignore_index)
    signature = image_signature(image)
    inspection = Inspection(
        split=dataset.name,
        index=place,
        notices=notices,
        size=(image.shape[1], image.shape[2]),
        bands=len(image),
        dtype=image.dtype.name,
        digest=digest,
        signature=signature.coefficients,
        spread=signature.spread,
        grey=_equal_bands(image),
        depth=_depth(image),
        exif_mismatch=exif_mismatch,
        far=far_values(sample.image, sample.valid),
        mask_nodata=None if header is None else header.nodata,
        spacing=_spacing(record, sample.grid, image.shape[1:]),
    )
    if mask is None:
        return inspection
    labels = dataset.labels
    runs = find_runs(mask)
    table = region_table(runs, labels.num_classes, _file_ids(labels), min(mask.shape))
    profiles = alignment_profiles(image, mask, labels.ignore_index) if align else _NO_PROFILES
    return replace(inspection, mask_digest=runs.digest(), table=table, profiles=profiles)


def _spacing(record: Record, grid: Grid, size: Sequence[int]) -> tuple[float, ...]:
    """Return the metres between neighbouring pixels, and between slices if the file holds them all; () if unknown."""
    if record.plane is not None and format_of(record.image) != "DICOM":  # a file of DICOM names its thickness only
        grid = read_volume_header(record.image).grid(record.plane.across)
    return grid.metres(size) or ()


def _exif_mismatch(record: Record, mask: int, size: Sequence[int]) -> bool:
    """Whether EXIF orients the image differently from the mask (`mask`, 1–8) although their sizes agree."""
    if record.mask is None:
        return False
    image = image_orientation(record)
    return image != mask and ((image >= 5) == (mask >= 5) or size[0] == size[1])


def _file_ids(labels: Labels) -> NDArray[np.int64]:
    """Return the id of every class in the files, and of ignored pixels (-1 if there is none)."""
    return np.array([*labels.ids, *(labels.ignore_ids or (-1,))[:1]], np.int64)


def _equal_bands(image: NDArray[Any]) -> bool:
    """Whether an image has three identical bands; a sample is compared first, which is fast."""
    if len(image) != 3:
        return False
    return all(
        np.array_equal(image[0, ::16, ::16], band[::16, ::16]) and np.array_equal(image[0], band) for band in image[1:]
    )


def _depth(image: NDArray[Any]) -> str:
    """Return how 8-bit values were stored in 16 bits, "" if they were not."""
    if image.dtype != np.uint16 or not image.any():
        return ""
    if image.max() < 256:
        return "low"
    for depth, factor in (("high", 256), ("copied", 257)):
        if not (image[..., ::16] % factor).any() and not (image % factor).any():
            return depth
    return ""


def _unknown_ids(record: Record, dataset: Dataset) -> UnknownIds | None:
    """Count the ids that the labels do not define; None if the values are no ids or all are known."""
    rule, labels = dataset.rule, dataset.labels
    if record.mask is None or record.source is not None or record.plane is not None:
        return None
    if not rule.stored and rule.values is None:
        return None
    try:
        raw = read_mask_values(record.mask, dataset.limits, window_of(record)).single_band()
    except DataError:
        return None
    if raw.kind not in ("index", "palette", "binary") or raw.values.dtype.kind not in "iu":
        return None
    known = set(rule.values) if rule.values is not None else {*labels.ids, *(labels.ignore_ids or ())}
    values, numbers, counts = np.unique(raw.values, return_inverse=True, return_counts=True)
    unknown = [k for k, value in enumerate(values.tolist()) if value not in known]
    if not unknown:
        return None
    ids = numbers.reshape(raw.values.shape)
    table = region_table(find_runs(ids), len(values), np.append(values.astype(np.int64), -1), min(ids.shape))
    order = sorted(unknown, key=lambda k: (-counts[k], k))
    listed = tuple((int(values[k]), int(counts[k])) for k in order[:_LISTED_IDS])
    pixels, thin_pixels = int(counts[unknown].sum()), int(table[unknown, Column.LINES].sum())
    return UnknownIds(listed, len(unknown) - len(listed), pixels, thin_pixels, int(values[0]))
