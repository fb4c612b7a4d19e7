"""Turn a whole picture into one training crop: where to cut, how to zoom, turn, mirror and tint.

Comes in: image and mask as tensors, and a random generator that belongs to this one draw. Goes out: a crop of fixed
size, float32 raw values and class indices. Knows nothing of files, models or losses.

All geometry is one decision: a window is cut first, then brought to size and turned, so cost follows the crop and not
the picture.
Whatever falls outside the picture is ignored in the mask. Ids are resampled by nearest pixel centre only: torchvision's
own kernel for `tv_tensors.Mask` rounds down (its `NEAREST`), which shifts labels against a bilinear image by up to half
a pixel, so the mode is named here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torchvision import tv_tensors
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from pixelwise.config import AugmentConfig

_SAME = 1e-6


@dataclass(frozen=True)
class CropTransform:
    """Cut, zoom, turn, mirror and tint.

    Args:
        crop: (height, width) of the result.
        augment: probabilities and ranges; None counts as "not at all".
        class_crops: share of the draws that are centred on a class, drawn evenly among those in the picture but its
            commonest.
        ignore_index: what the mask holds outside the picture.
        std: per band, the standard deviation that brightness and noise are measured in.
        mean: per band, what the image holds outside the picture.
    """

    crop: tuple[int, int]
    augment: AugmentConfig
    class_crops: float
    ignore_index: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(
        self, image: torch.Tensor, mask: torch.Tensor, rng: np.random.Generator
    ) -> tuple[tv_tensors.Image, tv_tensors.Mask]:
        """Draw one crop.

        Args:
            image: (C, H, W), any numeric type.
            mask: (H, W), class indices.
            rng: the only source of chance.

        Returns:
            float32 (C, h, w) and int64 (h, w).
        """
        zoom = math.exp(rng.uniform(*np.log(self.augment.scale))) if self.augment.scale else 1.0
        angle = rng.uniform(-1, 1) * (self.augment.rotate or 0.0)
        canvas = self._canvas(angle)
        window = tuple(max(round(side / zoom), 1) for side in canvas)
        top, left = self._place(mask, window, zoom, angle, rng)
        picture, truth = self._cut(image, mask, top, left, window)
        picture, truth = self._resample(picture, truth, canvas, angle)
        if rng.random() < (self.augment.flip_horizontal or 0):
            picture, truth = F.horizontal_flip(picture), F.horizontal_flip(truth)
        if rng.random() < (self.augment.flip_vertical or 0):
            picture, truth = F.vertical_flip(picture), F.vertical_flip(truth)
        picture = self._tint(picture, rng)
        return tv_tensors.Image(picture.contiguous()), tv_tensors.Mask(truth.contiguous())

    def _canvas(self, angle: float) -> tuple[int, int]:
        """Give the height and width that, turned by `angle` degrees, hold the whole crop in their middle.

        At least as large as the crop and odd or even like it: cutting the crop out of the turned canvas then adds
        nothing at the sides and moves nothing by half a pixel.
        """
        if abs(angle) < _SAME:
            return self.crop
        height, width = self.crop
        cos, sin = abs(math.cos(math.radians(angle))), abs(math.sin(math.radians(angle)))
        need = (math.ceil(height * cos + width * sin), math.ceil(height * sin + width * cos))
        rows, columns = (max(n, side) for n, side in zip(need, self.crop, strict=True))
        return rows + (rows - height) % 2, columns + (columns - width) % 2

    def _place(
        self, mask: torch.Tensor, window: tuple[int, ...], zoom: float, angle: float, rng: np.random.Generator
    ) -> tuple[int, int]:
        """Choose the window's corner: around a pixel of a class drawn from all but the picture's commonest, or anywhere."""
        size = tuple(mask.shape)
        if rng.random() < self.class_crops:
            ids = mask.numpy()
            counts = np.bincount(ids.reshape(-1), minlength=self.ignore_index + 1)[: self.ignore_index]
            present = np.flatnonzero(counts)
            if len(present) > 1:  # the commonest needs no search: it is wherever nothing else is
                present = present[present != counts.argmax()]
            if len(present):
                kind = int(rng.choice(present))
                place = np.flatnonzero(ids.reshape(-1) == kind)[int(rng.integers(counts[kind]))]
                centre = divmod(int(place), size[1])
                # Not always in the middle: the class may lie anywhere in the inner half of the turned crop.
                down, right = rng.uniform(-0.25, 0.25, 2) * self.crop / zoom
                cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
                top = centre[0] - window[0] / 2 - (down * cos + right * sin)
                left = centre[1] - window[1] / 2 - (right * cos - down * sin)
                return self._inside(round(top), round(left), window, size)
        free = [max(s - w, 0) for s, w in zip(size, window, strict=True)]
        corner = [int(rng.integers(f + 1)) for f in free]
        return self._inside(corner[0], corner[1], window, size)

    @staticmethod
    def _inside(top: int, left: int, window: tuple[int, ...], size: tuple[int, ...]) -> tuple[int, int]:
        """Move a corner so that the window lies inside; one that is larger than the picture is centred on it."""
        corner = [
            min(max(at, 0), s - w) if w <= s else (s - w) // 2
            for at, w, s in zip((top, left), window, size, strict=True)
        ]
        return corner[0], corner[1]

    def _cut(
        self, image: torch.Tensor, mask: torch.Tensor, top: int, left: int, window: tuple[int, ...]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        height, width = window
        rows, columns = (
            (max(top, 0), max(left, 0)),
            (min(top + height, mask.shape[0]), min(left + width, mask.shape[1])),
        )
        box = (slice(rows[0], columns[0]), slice(rows[1], columns[1]))
        if (columns[0] - rows[0], columns[1] - rows[1]) == (height, width):
            return image[(slice(None), *box)].float(), mask[box].long()
        picture = torch.tensor(self.mean)[:, None, None].expand(-1, height, width).clone()
        truth = torch.full((height, width), self.ignore_index, dtype=torch.int64)
        into = (slice(rows[0] - top, columns[0] - top), slice(rows[1] - left, columns[1] - left))
        picture[(slice(None), *into)] = image[(slice(None), *box)].float()
        truth[into] = mask[box].long()
        return picture, truth

    def _resample(
        self, picture: torch.Tensor, truth: torch.Tensor, canvas: tuple[int, int], angle: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if tuple(truth.shape) != canvas:
            picture = F.resize(picture, list(canvas), InterpolationMode.BILINEAR, antialias=True)
            truth = F.resize(truth[None], list(canvas), InterpolationMode.NEAREST_EXACT)[0]
        if abs(angle) >= _SAME:
            fill = [float(m) for m in self.mean]
            picture = F.rotate(picture, angle, InterpolationMode.BILINEAR, fill=fill)
            truth = F.rotate(truth[None], angle, InterpolationMode.NEAREST, fill=[float(self.ignore_index)])[0]
            picture, truth = F.center_crop(picture, list(self.crop)), F.center_crop(truth[None], list(self.crop))[0]
        return picture, truth

    def _tint(self, picture: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
        """Change contrast and brightness (each shared by all bands, plus a little per band), and add noise."""
        bands = len(self.std)
        std, mean = torch.tensor(self.std)[:, None, None], torch.tensor(self.mean)[:, None, None]
        together, apart = rng.uniform(-1, 1, 2), rng.uniform(-0.3, 0.3, (2, bands))
        noise = rng.uniform(0, 1)
        if self.augment.contrast or self.augment.brightness:
            gain = 1 + (self.augment.contrast or 0) * torch.from_numpy((together[0] + apart[0]).astype(np.float32))
            shift = (self.augment.brightness or 0) * torch.from_numpy((together[1] + apart[1]).astype(np.float32))
            picture = (picture - mean) * gain[:, None, None] + mean + std * shift[:, None, None]
        if self.augment.noise:
            grain = rng.standard_normal(tuple(picture.shape), np.float32) * np.float32(self.augment.noise * noise)
            picture = picture + std * torch.from_numpy(grain)
        return picture
