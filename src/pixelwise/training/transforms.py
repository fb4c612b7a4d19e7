"""Turn a whole image into one training crop: where to cut, how to zoom, turn, mirror and tint.

Comes in: image and mask as tensors, and a random generator that belongs to this one draw. Goes out: a crop of fixed
size, float32 raw values and class indices. Knows nothing of files, models or losses.

All geometry is one look-up per pixel of the crop, so cost follows the crop and not the image, and nothing is resampled
twice. Whatever falls outside the image is ignored in the mask and mirrored in the image, as Ronneberger et al. 2015
mirror it: a constant would fill half of the crops where images are smaller, and the norms' statistics with it. Ids are
read at the pixel that holds the point, which is the nearest centre: torchvision's own kernel for `tv_tensors.Mask` rounds
down (its `NEAREST`), which shifts labels against a bilinear image by up to half a pixel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as F

from pixelwise.config import AugmentConfig

_SAME = 1e-8


@dataclass(frozen=True)
class CropTransform:
    """Cut, zoom, turn, mirror and tint.

    Args:
        crop: (height, width) of the result.
        augment: probabilities and ranges; None counts as "not at all".
        class_crops: share of the draws that are centred on a class, drawn evenly among those in the image but its
            commonest.
        ignore_index: what the mask holds outside the image.
        mean: per band, what contrast turns around.
        std: per band, the standard deviation that brightness and noise are measured in.
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
        angle = math.radians(rng.uniform(-1, 1) * (self.augment.rotate or 0.0))
        exact = abs(angle) < _SAME and abs(zoom - 1) < _SAME
        centre = self._centre(mask, zoom, angle, rng)
        crop, truth = self._cut(image, mask, centre) if exact else self._warp(image, mask, centre, zoom, angle)
        if rng.random() < (self.augment.flip_horizontal or 0):
            crop, truth = F.horizontal_flip(crop), F.horizontal_flip(truth)
        if rng.random() < (self.augment.flip_vertical or 0):
            crop, truth = F.vertical_flip(crop), F.vertical_flip(truth)
        crop = self._tint(crop, rng)
        return tv_tensors.Image(crop.contiguous()), tv_tensors.Mask(truth.contiguous())

    def _centre(self, mask: torch.Tensor, zoom: float, angle: float, rng: np.random.Generator) -> tuple[float, float]:
        """Choose the crop's centre, counted from the image's corner: near a class that is looked for, or anywhere.

        The whole turned crop lies inside the image where it fits, else it is centred on it.
        """
        (height, width), cos, sin = self.crop, abs(math.cos(angle)), abs(math.sin(angle))
        need = ((height * cos + width * sin) / zoom, (height * sin + width * cos) / zoom)
        wanted = self._near_class(mask, zoom, angle, rng) if rng.random() < self.class_crops else None
        if wanted is None:
            # One place more than there are steps between them, so that rounding reaches all alike.
            wanted = tuple(
                n / 2 - 0.5 + rng.random() * (max(size - n, 0) + 1) for n, size in zip(need, mask.shape, strict=True)
            )
        row, column = (
            min(max(at, n / 2), size - n / 2) if n <= size else size / 2
            for at, n, size in zip(wanted, need, mask.shape, strict=True)
        )
        return row, column

    def _near_class(
        self, mask: torch.Tensor, zoom: float, angle: float, rng: np.random.Generator
    ) -> tuple[float, ...] | None:
        """Give a centre that shows a pixel of a drawn class in the inner half of the crop; None where all is ignored."""
        ids = mask.numpy().reshape(-1)
        counts = np.bincount(ids, minlength=self.ignore_index + 1)[: self.ignore_index]
        present = np.flatnonzero(counts)
        if len(present) > 1:  # the commonest needs no search: it is wherever nothing else is
            present = present[present != counts.argmax()]
        if not len(present):
            return None
        kind = int(rng.choice(present))
        row, column = divmod(int(np.flatnonzero(ids == kind)[int(rng.integers(counts[kind]))]), mask.shape[1])
        down, right = rng.uniform(-0.25, 0.25, 2) * self.crop / zoom
        cos, sin = math.cos(angle), math.sin(angle)
        return row + 0.5 - (down * cos + right * sin), column + 0.5 - (right * cos - down * sin)

    def _cut(
        self, image: torch.Tensor, mask: torch.Tensor, centre: tuple[float, float]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Cut the crop out as it is."""
        height, width = self.crop
        top, left = (math.floor(at - side / 2 + 0.5) for at, side in zip(centre, self.crop, strict=True))
        if 0 <= top <= mask.shape[0] - height and 0 <= left <= mask.shape[1] - width:
            box = (slice(top, top + height), slice(left, left + width))
            return image[(slice(None), *box)].float(), mask[box].long()
        down, right = torch.arange(top, top + height), torch.arange(left, left + width)
        rows, columns = (
            _mirrored(at + 0.5, size).long() for at, size in ((down, mask.shape[0]), (right, mask.shape[1]))
        )
        inside = (rows == down)[:, None] & (columns == right)
        truth = torch.where(inside, mask[rows][:, columns].long(), self.ignore_index)
        return image[:, rows][:, :, columns].float(), truth

    def _warp(
        self, image: torch.Tensor, mask: torch.Tensor, centre: tuple[float, float], zoom: float, angle: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Zoom and turn around `centre` in one go: every pixel of the crop looks up where it comes from.

        Image and mask are read at the same points: bilinearly the one, at the pixel that holds the point the other.
        """
        down, right = ((torch.arange(side) + 0.5 - side / 2) / zoom for side in self.crop)
        cos, sin = math.cos(angle), math.sin(angle)
        rows = (centre[0] + down * cos)[:, None] + right * sin
        columns = (centre[1] - down * sin)[:, None] + right * cos
        size = mask.shape
        inside = (rows >= 0) & (rows < size[0]) & (columns >= 0) & (columns < size[1])
        rows, columns = _mirrored(rows, size[0]), _mirrored(columns, size[1])
        row, column = rows.long().clamp_(max=size[0] - 1), columns.long().clamp_(max=size[1] - 1)
        truth = torch.where(inside, mask[row, column].long(), self.ignore_index)
        (top, bottom), (left, right_end) = ((int(at.min()), int(at.max())) for at in (row, column))
        top, left = max(top - 1, 0), max(left - 1, 0)
        window = image[None, :, top : bottom + 2, left : right_end + 2].float()
        pool = max(int(1 / zoom), 1)
        if pool > 1:  # else pixels between the points would be passed over
            window = functional.avg_pool2d(window, pool, ceil_mode=True, count_include_pad=False)
        places = torch.stack(
            [
                (columns - left) * (2 / pool / window.shape[3]) - 1,
                (rows - top) * (2 / pool / window.shape[2]) - 1,
            ],
            -1,
        )
        return functional.grid_sample(window, places[None], "bilinear", "border", align_corners=False)[0], truth

    def _tint(self, image: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
        """Change contrast and brightness (each shared by all bands, plus a little per band), and add noise."""
        bands = len(self.std)
        std, mean = torch.tensor(self.std), torch.tensor(self.mean)
        together, apart = rng.uniform(-1, 1, 2), rng.uniform(-0.3, 0.3, (2, bands))
        noise = rng.uniform(0, 1)
        if self.augment.contrast or self.augment.brightness:
            gain = 1 + (self.augment.contrast or 0) * torch.from_numpy((together[0] + apart[0]).astype(np.float32))
            shift = (self.augment.brightness or 0) * torch.from_numpy((together[1] + apart[1]).astype(np.float32))
            # Contrast turns around the mean.
            image = torch.addcmul((mean * (1 - gain) + std * shift)[:, None, None], image, gain[:, None, None])
        if self.augment.noise:
            grain = torch.from_numpy(rng.standard_normal(tuple(image.shape), np.float32))
            image = torch.addcmul(image, grain, (std * (self.augment.noise * noise))[:, None, None])
        return image


def _mirrored(at: torch.Tensor, size: int) -> torch.Tensor:
    """Fold places outside 0…size back at its ends, as often as it takes."""
    at = at.remainder(2 * size)
    return torch.where(at > size, 2 * size - at, at)
