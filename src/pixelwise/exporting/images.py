"""Images for calibration and comparison: those of a split, or drawn ones if there are none."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.datasets.dataset import Dataset
from pixelwise.formats.reading import as_bands
from pixelwise.imageio.images import fill_invalid
from pixelwise.types import ModelSpec

_LARGEST = 768
_DRAWN = ((240, 320), (181, 257))


class SplitImages:
    """Images of a split, evenly spaced, as the predictor prepares them; larger ones than 768 pixels are cropped.

    Args:
        split: an opened split.
        spec: of the model.
        count: the most images to use.
        name: name of the data set.
    """

    def __init__(self, split: Dataset, spec: ModelSpec, count: int, name: str) -> None:
        self._split, self._spec = split, spec
        used = min(count, len(split))
        self._indices = [k * len(split) // used for k in range(used)]
        number = "1 image" if used == 1 else f"{used} images"
        self.source = f"{number} of the {split.name} split of {name}"

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._indices)

    def read(self, index: int) -> tuple[NDArray[Any], NDArray[Any] | None]:
        """Return an image (C, H, W) of raw pixel values, and its ground truth (H, W).

        Raises:
            DataError: the files cannot be read, or have other bands than the model.
        """
        sample = self._split.read(self._indices[index])
        image = as_bands(sample.image, self._spec.colour_mode)
        image = fill_invalid(image, sample.valid, self._spec.fill or (0.0,) * self._spec.channels)
        truth = sample.truth(self._spec.labels.ignore_index)
        rows, columns = (
            slice(max(side - _LARGEST, 0) // 2, max(side - _LARGEST, 0) // 2 + _LARGEST) for side in image.shape[1:]
        )
        return np.ascontiguousarray(image[:, rows, columns]), None if truth is None else truth[rows, columns]


class DrawnImages:
    """Two images of smooth gradients, edges and noise in the value range of the training images, without ground truth."""

    source = "2 drawn images, since none of the data were available"

    def __init__(self, spec: ModelSpec) -> None:
        self._spec = spec

    def __len__(self) -> int:
        """Return the number of images."""
        return len(_DRAWN)

    def read(self, index: int) -> tuple[NDArray[Any], None]:
        """Return an image (C, H, W)."""
        random = np.random.default_rng(index)
        height, width = _DRAWN[index]
        y, x = np.mgrid[:height, :width] / 40
        bands = []
        for phase in random.uniform(0, 6, (self._spec.channels, 2)):
            pattern = np.sin(y + phase[0]) + np.cos(1.3 * x + phase[1]) + ((x + y) % 2 > 1)
            bands.append(pattern + random.normal(0, 0.2, pattern.shape))
        values = np.stack(bands)
        values = (values - values.min()) / (values.max() - values.min())
        low, high = self._spec.typical_range or (0.0, 255.0)
        scaled = low + (high - low) * values
        kind = np.dtype(self._spec.dtype or "uint8")
        return (np.rint(scaled) if kind.kind in "ui" else scaled).astype(kind), None
