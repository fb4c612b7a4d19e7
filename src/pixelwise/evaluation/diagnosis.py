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
_MOST_SUSPECTS = 50
# What is thinner than this many pixels is a border drawn a little differently, not a wrong label.
_THICK = 5


@dataclass(frozen=True)
class Suspect:
    """Hold a region where a sure model sees another class than the truth.

    Args:
        id: the picture.
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
    """Count errors by size and distance, and list suspects, over any number of pictures (H, W)."""

    def __init__(self, labels: Labels) -> None:
        self.labels = labels
        # Objects, those found (half of their pixels or more), their pixels, and the pixels found.
        self.sizes = np.zeros((4, labels.num_classes, len(SIZES) + 1), np.int64)
        self.distances = np.zeros((2, len(DISTANCES) + 1), np.int64)
        self.suspects: list[Suspect] = []
        self._confidence: list[NDArray[np.float16]] = []

    def band(self, probabilities: NDArray[np.float32]) -> None:
        """Take in some rows (K, rows, W) of the picture that is being predicted."""
        self._confidence.append(probabilities.max(axis=0).astype(np.float16))

    def see(self, sample: Sample, prediction: Prediction) -> None:
        """Take in a picture."""
        confidence, self._confidence = self._confidence, []
        truth, mask = sample.mask, prediction.mask
        if truth is None or truth.ndim != 2:
            return
        self._by_size(truth, mask)
        self._by_distance(truth, mask)
        if confidence:
            self._suspect(sample.id, truth, mask, np.concatenate(confidence))

    def _by_size(self, truth: NDArray[Any], mask: NDArray[Any]) -> None:
        for k in np.unique(truth).tolist():
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
        counted = truth != self.labels.ignore_index
        edge = np.zeros(truth.shape, bool)
        for one, other in ((np.s_[:, :-1], np.s_[:, 1:]), (np.s_[:-1], np.s_[1:])):
            differs = (truth[one] != truth[other]) & counted[one] & counted[other]
            edge[one] |= differs
            edge[other] |= differs
        if not edge.any():
            far = np.full(truth.shape, len(DISTANCES))
        else:
            # A pixel beside the border is half a pixel away, which belongs to the first class.
            far = np.searchsorted(DISTANCES, ndimage.distance_transform_edt(~edge) + 0.5)
        for row, where in enumerate((counted, counted & (truth != mask))):
            self.distances[row] += np.bincount(far[where], minlength=len(DISTANCES) + 1)

    def _suspect(self, id: str, truth: NDArray[Any], mask: NDArray[Any], confidence: NDArray[np.float16]) -> None:
        named = (truth != self.labels.ignore_index) & (mask < self.labels.num_classes)
        odd = named & (truth != mask) & (confidence >= SURE)
        core = ndimage.binary_opening(odd, np.ones((_THICK, _THICK), bool))
        if not core.any():
            return
        # One region is one true class taken for one other.
        pairs = np.where(core, truth.astype(np.int64) * self.labels.num_classes + mask + 1, 0)
        for pair in np.unique(pairs[pairs > 0]).tolist():
            t, p = divmod(pair - 1, self.labels.num_classes)
            regions, count = ndimage.label(pairs == pair)
            areas = np.bincount(regions.ravel(), minlength=count + 1)[1:]
            boxes = ndimage.find_objects(regions)
            for place in np.argsort(-areas)[:3].tolist():
                rows, columns = boxes[place]
                mean = float(confidence[boxes[place]][regions[boxes[place]] == place + 1].astype(np.float64).mean())
                box = (rows.start, columns.start, rows.stop, columns.stop)
                names = self.labels.names[t], self.labels.names[p]
                self.suspects.append(Suspect(id, *names, int(areas[place]), box, mean))
        self.suspects = sorted(self.suspects, key=_weight, reverse=True)[:_MOST_SUSPECTS]

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
        }


def _weight(suspect: Suspect) -> tuple[float, str]:
    """Rank by how many pixels are surely wrong, if the model is right."""
    return suspect.pixels * (2 * suspect.confidence - 1), suspect.id
