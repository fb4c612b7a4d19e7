"""One look at one image and its mask: every file is read and decoded once, and a few numbers are kept.

Comes in: a `Dataset` and an index. Goes out: a `Seen` of about 1 kB, fit to be sent between processes. Knows nothing of
other images, nor of what the numbers will be held against.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.checking.alignment import LENGTH, drift_profiles
from pixelwise.checking.image_signature import sketch
from pixelwise.checking.regions import COLUMNS, Column, runs_of, tabulate
from pixelwise.datasets.dataset import Dataset
from pixelwise.errors import DataError, MaskError
from pixelwise.formats.reading import image_digest, image_orientation, mask_orientation
from pixelwise.formats.records import Record
from pixelwise.imageio.images import fill_invalid, read_mask_values
from pixelwise.labels import Labels
from pixelwise.types import Sample

_DIGEST = 16
_UNKNOWN = 16
_KEPT = 32_000_000  # bytes
_NO_TABLE = np.zeros((0, COLUMNS), np.uint32)
_NO_PROFILES = np.zeros((2, LENGTH), np.float16)


@dataclass(frozen=True, slots=True)
class Unknown:
    """Hold what a mask holds that the labels do not name.

    Args:
        ids: ids with their pixels, the most frequent first; at most 16.
        others: how many ids more there are.
        pixels: pixels of all of them.
        lines: those of them that lie in regions less than 2 pixels thick, as along soft edges.
        least: the lowest id that the mask holds, known or not.
    """

    ids: tuple[tuple[int, int], ...]
    others: int
    pixels: int
    lines: int
    least: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """Hold what one look gave; where `error` is set the files cannot be used and most other fields are empty.

    Args:
        part: "train", "val" or "test".
        index: place of the image in that part's `Dataset`.
        error: why image or mask cannot be used.
        notices: what was noticed while the mask was read.
        size: (H, W) of the image; (0, 0) where it cannot be read.
        bands: bands of light.
        dtype: numpy name of the pixel type.
        digest: 16 bytes of the SHA-256 of the image's file; empty where it cannot be opened.
        waves: what the image looks like from afar (see `sketch`); empty where it is too flat to be told from others.
        spread: standard deviation of the pixels, in stored values.
        grey: three bands that are equal everywhere.
        depth: for 16-bit images, "low" where no value is above 255, "high" where all are multiples of 256, "copied"
            where all are of 257; else "".
        turned: the image is turned by EXIF and the mask by none, or by another, and their sizes do not tell whether
            that is right.
        mask_digest: 8 bytes of a hash of the mask's class indices; empty where there is none.
        table: (P, `COLUMNS`) uint32, one row per class that occurs, ignored pixels as class K last (see `Column`).
        profiles: (2, 17) float16, how well the mask would fit if it were moved (see `drift`); 0 where nobody looked.
        unknown: ids that the labels do not name, where that is the error.
    """

    split: str
    index: int
    error: DataError | None = None
    notices: tuple[str, ...] = ()
    size: tuple[int, int] = (0, 0)
    bands: int = 0
    dtype: str = ""
    digest: bytes = b""
    waves: bytes = b""
    spread: float = 0.0
    grey: bool = False
    depth: str = ""
    turned: bool = False
    mask_digest: bytes = b""
    table: NDArray[np.uint32] = field(default_factory=lambda: _NO_TABLE)
    profiles: NDArray[np.float16] = field(default_factory=lambda: _NO_PROFILES)
    unknown: Unknown | None = None

    @property
    def example(self) -> tuple[str, int]:
        """Give (part, index)."""
        return self.split, self.index

    @property
    def form(self) -> str:
        """Give bands and pixel type, in words."""
        return f"{self.bands} band{'s' * (self.bands != 1)} of {self.dtype}"

    def pixels(self, num_classes: int) -> NDArray[np.int64]:
        """Count the pixels per class, the ignored ones last: (K + 1,)."""
        counts = np.zeros(num_classes + 1, np.int64)
        counts[self.table[:, Column.CLASS]] = self.table[:, Column.PIXELS]
        return counts


def look(
    dataset: Dataset, index: int, place: int | None = None, *, drift: bool = True, kept: deque[Sample] | None = None
) -> Seen:
    """Look at one image and its mask.

    Args:
        dataset: the part, or a piece of it.
        index: which image of it.
        place: where that lies in the whole part, if the data set is a piece.
        drift: whether to see if the mask lies where its image does, which takes as long as half of all else.
        kept: is given the image to hold on to. While the last two are held, the memory of those before them is used
            again; else it is given back to the system after every image and asked for anew, page by page, which takes
            longer than decoding a small one.
    """
    record, place = dataset.records[index], index if place is None else place
    try:
        digest = bytes.fromhex(image_digest(record))[:_DIGEST]
    except OSError:
        digest = b""
    try:
        sample, notices = dataset.inspect(index)
        turned = _turned(record, sample.image.shape[1:])
    except DataError as error:
        unknown = _unknown(record, dataset) if isinstance(error, MaskError) else None
        return Seen(dataset.name, place, error, digest=digest, unknown=unknown)
    if kept is not None and sample.image.nbytes <= _KEPT:
        kept.append(sample)
    seen = _see(sample, dataset.labels, drift=drift)
    return replace(seen, split=dataset.name, index=place, notices=notices, digest=digest, turned=turned)


def _see(sample: Sample, labels: Labels, *, drift: bool) -> Seen:
    """Sum up the pixels of an image and its mask."""
    image = fill_invalid(sample.image, sample.valid)
    mask = sample.truth(labels.ignore_index)
    drawn = sketch(image)
    seen = Seen(
        split="",
        index=0,
        size=(image.shape[1], image.shape[2]),
        bands=len(image),
        dtype=image.dtype.name,
        waves=drawn.waves,
        spread=drawn.spread,
        grey=_equal_bands(image),
        depth=_depth(image),
    )
    if mask is None:
        return seen
    runs = runs_of(mask)
    table = tabulate(runs, labels.num_classes, _file_ids(labels), min(mask.shape))
    profiles = drift_profiles(image, mask, labels.ignore_index) if drift else _NO_PROFILES
    return replace(seen, mask_digest=runs.digest(), table=table, profiles=profiles)


def _turned(record: Record, size: Sequence[int]) -> bool:
    """Tell whether EXIF turns the image and not the mask, where their sizes do not give it away."""
    if record.mask is None:
        return False
    image, mask = image_orientation(record), mask_orientation(record)
    return image != mask and ((image >= 5) == (mask >= 5) or size[0] == size[1])


def _file_ids(labels: Labels) -> NDArray[np.int64]:
    """Give the id of every class in the files, and of ignored pixels (-1 where none is)."""
    return np.array([*labels.ids, *(labels.ignore_ids or (-1,))[:1]], np.int64)


def _equal_bands(image: NDArray[Any]) -> bool:
    """Tell whether an image of three bands is grey: some pixels are compared before all."""
    if len(image) != 3:
        return False
    return all(
        np.array_equal(image[0, ::16, ::16], band[::16, ::16]) and np.array_equal(image[0], band) for band in image[1:]
    )


def _depth(image: NDArray[Any]) -> str:
    """Tell how 8 bits were made 16, if they were."""
    if image.dtype != np.uint16 or not image.any():
        return ""
    if image.max() < 256:
        return "low"
    for word, factor in (("high", 256), ("copied", 257)):
        if not (image[..., ::16] % factor).any() and not (image % factor).any():
            return word
    return ""


def _unknown(record: Record, dataset: Dataset) -> Unknown | None:
    """Count what the labels do not name, where the mask's values are ids; None where they are not, or all are known."""
    rule, labels = dataset.rule, dataset.labels
    if record.mask is None or record.source is not None or record.plane is not None:
        return None
    if not rule.stored and rule.values is None:
        return None
    try:
        raw = read_mask_values(record.mask, dataset.limits)
    except DataError:
        return None
    if raw.kind not in ("index", "palette", "binary") or raw.values.dtype.kind != "u":
        return None
    known = set(rule.values) if rule.values is not None else {*labels.ids, *(labels.ignore_ids or ())}
    values, numbers, counts = np.unique(raw.values, return_inverse=True, return_counts=True)
    odd = [k for k, value in enumerate(values.tolist()) if value not in known]
    if not odd:
        return None
    ids = numbers.reshape(raw.values.shape)
    table = tabulate(runs_of(ids), len(values), np.append(values.astype(np.int64), -1), min(ids.shape))
    order = sorted(odd, key=lambda k: (-counts[k], k))
    listed = tuple((int(values[k]), int(counts[k])) for k in order[:_UNKNOWN])
    pixels, lines = int(counts[odd].sum()), int(table[odd, Column.LINES].sum())
    return Unknown(listed, len(odd) - len(listed), pixels, lines, int(values[0]))
