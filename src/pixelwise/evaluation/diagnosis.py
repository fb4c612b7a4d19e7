"""Where errors are: by object size, by distance to a border, and in regions that may be annotated wrongly."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pixelwise.evaluation.base import Meter, MeterOptions
from pixelwise.evaluation.results import DistanceTable, SizeCounts, SizeTable, Suspect
from pixelwise.metrics.boundary import contours
from pixelwise.metrics.confusion import Counts
from pixelwise.metrics.intervals import Floats
from pixelwise.types import Prediction, Sample

# Upper limits of the area bins, in pixels; the last bin has none.
SIZES = (16, 64, 256, 1024, 4096, 16384, 65536)
# Upper limits of the distance to the nearest true border, in pixels.
DISTANCES = (1, 2, 4, 8, 16, 32)
MIN_CONFIDENCE = 0.9
MOST_PIXELS = 1 << 26
MOST_SUSPECTS = 50
_STRIP, _HALO = 512, 33
# Regions thinner than this, in pixels, are borders drawn slightly differently rather than wrong labels.
_MIN_THICKNESS = 5


class Diagnosis(Meter):
    """Count errors by size and distance and list suspects, over images (H, W); has tables but no scores.

    Distances are computed in strips of rows. Objects and suspects need the whole image, about 20 bytes per pixel; images with
    more than `MOST_PIXELS` are left out of them and counted in `too_large`. Suspects need probabilities.
    """

    reads_probabilities = True

    def __init__(self, options: MeterOptions) -> None:
        super().__init__(options)
        # Number of objects, number found (at least half of their pixels), their pixels, and their correct pixels.
        self.sizes = np.zeros((4, self.labels.num_classes, len(SIZES) + 1), np.int64)
        self.distances = np.zeros((2, len(DISTANCES) + 1), np.int64)
        self.suspects: list[Suspect] = []
        self.too_large = 0
        self._confidence: list[NDArray[np.uint8]] = []

    def band(self, sample: Sample, top: int, probabilities: NDArray[np.float32]) -> None:
        """Keep the confidence of some rows (K, rows, W)."""
        self._confidence.append((255 * probabilities.max(axis=0)).astype(np.uint8))

    def add(self, sample: Sample, prediction: Prediction, counts: Counts) -> Floats:
        """Count the errors of an image and find its suspects; returns no sums."""
        confidence, self._confidence = self._confidence, []
        truth, mask = sample.mask, prediction.mask
        if truth is not None and truth.ndim == 2:
            self._count_distances(truth, mask)
            if truth.size > MOST_PIXELS:
                self.too_large += 1
            else:
                self._count_sizes(truth, mask)
                if confidence:
                    self._find_suspects(sample.id, truth, mask, np.concatenate(confidence))
        return np.zeros(0)

    def _count_sizes(self, truth: NDArray[Any], mask: NDArray[Any]) -> None:
        for k in np.flatnonzero(np.bincount(truth.ravel(), minlength=1)[: self.labels.num_classes]).tolist():
            objects, count = ndimage.label(truth == k)
            areas = np.bincount(objects.ravel(), minlength=count + 1)[1:]
            hits = np.bincount(objects[mask == k], minlength=count + 1)[1:]
            bins = np.searchsorted(SIZES, areas)
            for row, weights in enumerate((np.ones_like(areas), 2 * hits >= areas, areas, hits)):
                np.add.at(self.sizes[row, k], bins, weights)

    def _count_distances(self, truth: NDArray[Any], mask: NDArray[Any]) -> None:
        for top in range(0, len(truth), _STRIP):
            # The halo is wider than the last distance limit, so that strips give the same bins as the whole image.
            first, last = max(top - _HALO, 0), min(top + _STRIP + _HALO, len(truth))
            strip = slice(top, min(top + _STRIP, len(truth)))
            bins = _distance_bins(truth[first:last], self.labels.ignore_index)[strip.start - first : strip.stop - first]
            counted = truth[strip] != self.labels.ignore_index
            for row, where in enumerate((counted, counted & (truth[strip] != mask[strip]))):
                self.distances[row] += np.bincount(bins[where], minlength=len(DISTANCES) + 1)

    def _find_suspects(self, id: str, truth: NDArray[Any], mask: NDArray[Any], confidence: NDArray[np.uint8]) -> None:
        k = self.labels.num_classes
        counted = (truth != self.labels.ignore_index) & (mask < k)
        differs = counted & (truth != mask) & (confidence >= int(255 * MIN_CONFIDENCE))
        core = ndimage.binary_opening(differs, np.ones((_MIN_THICKNESS, _MIN_THICKNESS), bool))
        regions, _ = ndimage.label(core)
        for label, box in enumerate(ndimage.find_objects(regions), 1):
            inside = regions[box] == label
            # If several classes meet in a region, report the most frequent pair of true and predicted class.
            pairs = truth[box][inside].astype(np.int64) * k + mask[box][inside]
            pair, counts = np.unique(pairs, return_counts=True)
            t, p = divmod(int(pair[counts.argmax()]), k)
            chosen = inside & (truth[box] == t) & (mask[box] == p)
            edges = (box[0].start, box[1].start, box[0].stop, box[1].stop)
            mean = float(confidence[box][chosen].mean() / 255)
            self.suspects.append(
                Suspect(id, self.labels.names[t], self.labels.names[p], int(chosen.sum()), edges, mean)
            )
        self.suspects = sorted(self.suspects, key=_rank, reverse=True)[:MOST_SUSPECTS]

    def tables(self) -> Mapping[str, Any]:
        """Return `by_size`, `by_distance`, `suspects` (most likely first) and `too_large`."""
        classes = [
            SizeCounts(name, *(tuple(row[k].tolist()) for row in self.sizes))
            for k, name in enumerate(self.labels.names)
        ]
        pixels, wrong = (tuple(row.tolist()) for row in self.distances)
        return {
            "by_size": SizeTable((*SIZES, None), tuple(classes)),
            "by_distance": DistanceTable((*DISTANCES, None), pixels, wrong),
            "suspects": tuple(self.suspects),
            "too_large": self.too_large,
        }

    def notices(self) -> tuple[str, ...]:
        """Report how many images were too large."""
        if not self.too_large:
            return ()
        images = "1 image is" if self.too_large == 1 else f"{self.too_large} images are"
        return (f"{images} too large to analyse object sizes and possible annotation errors",)


def _distance_bins(truth: NDArray[Any], ignore_index: int) -> NDArray[np.uint8]:
    """Return the bin of each pixel's distance to the nearest border between two classes, (H, W)."""
    edge = contours(truth, ignore_index)
    if not edge.any():
        return np.full(truth.shape, len(DISTANCES), np.uint8)
    # A pixel at the border is half a pixel away from it, which belongs to the first bin.
    return np.searchsorted(DISTANCES, ndimage.distance_transform_edt(~edge) + 0.5).astype(np.uint8)


def _rank(suspect: Suspect) -> tuple[float, str]:
    """Rank by the expected number of wrongly labelled pixels if the model is right."""
    return suspect.pixels * (2 * suspect.confidence - 1), suspect.id
