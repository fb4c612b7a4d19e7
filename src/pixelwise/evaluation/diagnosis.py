"""Where the errors lie: by the size of objects, by the distance to a border, and where the truth itself is in doubt.

Comes in: a sample with its prediction, and its probabilities band by band. Goes out: tables of counts and a list of suspects,
as plain values. Knows nothing of scores or of how anything is shown.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pixelwise.labels import Labels
from pixelwise.types import Prediction, Sample

# Upper ends in pixels of areas; the last class has none.
SIZES = (16, 64, 256, 1024, 4096, 16384, 65536)
# Upper ends of the distance to the nearest true border, pixels.
DISTANCES = (1, 2, 4, 8, 16, 32)
SURE = 0.9
MOST_PIXELS = 1 << 26
MOST_SUSPECTS = 50
_STRIP, _HALO = 512, 33
# What is thinner than this many pixels is a border drawn a little differently, not a wrong label.
_THICK = 5


@dataclass(frozen=True)
class Suspect:
    """Hold a region where a sure model sees another class than the truth.

    Args:
        id: the image.
        truth, prediction: names of the classes.
        pixels: how large the region is.
        box: (top, left, bottom, right), the last two outside.
        confidence: mean probability of the predicted class in the region.
    """

    id: str
    truth: str
    prediction: str
    pixels: int
    box: tuple[int, int, int, int]
    confidence: float


class Diagnosis:
    """Count errors by size and distance, and list suspects, over any number of images (H, W).

    Distances are taken in strips of rows. Objects and suspects need the whole image, some 20 bytes a pixel, and are left
    out of images with more than `MOST_PIXELS`; `tables` says of how many.
    """

    def __init__(self, labels: Labels) -> None:
        self.labels = labels
        # Objects, those found (half of their pixels or more), their pixels, and the pixels found.
        self.sizes = np.zeros((4, labels.num_classes, len(SIZES) + 1), np.int64)
        self.distances = np.zeros((2, len(DISTANCES) + 1), np.int64)
        self.suspects: list[Suspect] = []
        self.too_large = 0
        self._sure: list[NDArray[np.uint8]] = []

    def band(self, probabilities: NDArray[np.float32]) -> None:
        """Take in some rows (K, rows, W) of the image that is being predicted."""
        self._sure.append((255 * probabilities.max(axis=0)).astype(np.uint8))

    def see(self, sample: Sample, prediction: Prediction) -> None:
        """Take in an image."""
        sure, self._sure = self._sure, []
        truth, mask = sample.mask, prediction.mask
        if truth is None or truth.ndim != 2:
            return
        self._by_distance(truth, mask)
        if truth.size > MOST_PIXELS:
            self.too_large += 1
            return
        self._by_size(truth, mask)
        if sure:
            self._suspect(sample.id, truth, mask, np.concatenate(sure))

    def _by_size(self, truth: NDArray[Any], mask: NDArray[Any]) -> None:
        for k in np.flatnonzero(np.bincount(truth.ravel(), minlength=1)).tolist():
            if k >= self.labels.num_classes:
                continue
            objects, count = ndimage.label(truth == k)
            areas = np.bincount(objects.ravel(), minlength=count + 1)[1:]
            hits = np.bincount(objects[mask == k], minlength=count + 1)[1:]
            place = np.searchsorted(SIZES, areas)
            rows = (np.ones_like(areas), 2 * hits >= areas, areas, hits)
            for row, weights in enumerate(rows):
                np.add.at(self.sizes[row, k], place, weights)

    def _by_distance(self, truth: NDArray[Any], mask: NDArray[Any]) -> None:
        for top in range(0, len(truth), _STRIP):
            # Farther than the last class ends nothing is told apart, so that much around a strip is enough.
            first, last = max(top - _HALO, 0), min(top + _STRIP + _HALO, len(truth))
            rows = slice(top - first, min(top + _STRIP, len(truth)) - first)
            far = _far(truth[first:last], self.labels.ignore_index)[rows]
            own = slice(top, top + _STRIP)
            counted = truth[own] != self.labels.ignore_index
            for row, where in enumerate((counted, counted & (truth[own] != mask[own]))):
                self.distances[row] += np.bincount(far[where], minlength=len(DISTANCES) + 1)

    def _suspect(self, id: str, truth: NDArray[Any], mask: NDArray[Any], sure: NDArray[np.uint8]) -> None:
        named = (truth != self.labels.ignore_index) & (mask < self.labels.num_classes)
        odd = named & (truth != mask) & (sure >= int(255 * SURE))
        core = ndimage.binary_opening(odd, np.ones((_THICK, _THICK), bool))
        regions, _ = ndimage.label(core)
        for place, box in enumerate(ndimage.find_objects(regions), 1):
            inside = regions[box] == place
            # Of a region in which several classes meet, the pair that takes most of it.
            pairs = truth[box][inside].astype(np.int64) * self.labels.num_classes + mask[box][inside]
            pair, counts = np.unique(pairs, return_counts=True)
            t, p = divmod(int(pair[counts.argmax()]), self.labels.num_classes)
            chosen = inside & (truth[box] == t) & (mask[box] == p)
            edges = (box[0].start, box[1].start, box[0].stop, box[1].stop)
            mean = float(sure[box][chosen].mean() / 255)
            names = self.labels.names[t], self.labels.names[p]
            self.suspects.append(Suspect(id, *names, int(chosen.sum()), edges, mean))
        self.suspects = sorted(self.suspects, key=_weight, reverse=True)[:MOST_SUSPECTS]

    def tables(self) -> dict[str, Any]:
        """Give plain values: `by_size` per class, `by_distance`, and `suspects`, the most likely first."""
        names = ("objects", "found", "pixels", "hits")
        classes = [
            {"name": name, **{row: self.sizes[i, k].tolist() for i, row in enumerate(names)}}
            for k, name in enumerate(self.labels.names)
        ]
        return {
            "by_size": {"up_to_pixels": [*SIZES, None], "classes": classes},
            "by_distance": {
                "up_to_pixels": [*DISTANCES, None],
                "pixels": self.distances[0].tolist(),
                "wrong": self.distances[1].tolist(),
            },
            "suspects": [asdict(suspect) for suspect in self.suspects],
            "too_large": self.too_large,
        }


def _far(truth: NDArray[Any], void: int) -> NDArray[np.uint8]:
    """Give the class of distance to the nearest border between two classes, (H, W); void makes none."""
    counted = truth != void
    edge = np.zeros(truth.shape, bool)
    for one, other in ((np.s_[:, :-1], np.s_[:, 1:]), (np.s_[:-1], np.s_[1:])):
        differs = (truth[one] != truth[other]) & counted[one] & counted[other]
        edge[one] |= differs
        edge[other] |= differs
    if not edge.any():
        return np.full(truth.shape, len(DISTANCES), np.uint8)
    # A pixel beside the border is half a pixel away, which belongs to the first class.
    return np.searchsorted(DISTANCES, ndimage.distance_transform_edt(~edge) + 0.5).astype(np.uint8)


def _weight(suspect: Suspect) -> tuple[float, str]:
    """Rank by how many pixels are surely wrong, if the model is right."""
    return suspect.pixels * (2 * suspect.confidence - 1), suspect.id
