"""Random crops with augmentation: position, zoom, rotation, flips, brightness, contrast and noise.

All geometry is one look-up per pixel of the crop, so the cost depends on the crop and not on the image, and nothing is
resampled twice. Pixels outside the image are ignored in the mask and mirrored in the image (Ronneberger et al. 2015): a
constant would fill half of the crops of small images and distort the statistics of batch norm. Class indices are read at
the pixel that contains the point. torchvision's kernel for `tv_tensors.Mask` rounds down (`NEAREST`), which shifts masks
against bilinearly interpolated images by up to half a pixel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as F

from pixelwise.config import ResolvedAugment

_EPSILON = 1e-8


@dataclass(frozen=True)
class CropTransform:
    """Draw an augmented crop of an image and its mask.

    Args:
        crop: (height, width) of the crop, pixels.
        augment: probabilities and ranges.
        class_crops: share of the crops centred on a class, drawn evenly among the classes of the image except the most
            frequent one.
        ignore_index: mask value outside the image.
        mean: per band, the fixed point of contrast changes.
        std: per band, the unit of brightness and noise.
    """

    crop: tuple[int, int]
    augment: ResolvedAugment
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
            rng: the only source of randomness.

        Returns:
            float32 (C, h, w) and int64 (h, w).
        """
        zoom = math.exp(rng.uniform(*np.log(self.augment.scale)))
        angle = math.radians(rng.uniform(-1, 1) * self.augment.rotate)
        exact = abs(angle) < _EPSILON and abs(zoom - 1) < _EPSILON
        centre = self._centre(mask, zoom, angle, rng)
        crop, truth = self._slice(image, mask, centre) if exact else self._warp(image, mask, centre, zoom, angle)
        if rng.random() < self.augment.flip_horizontal:
            crop, truth = F.horizontal_flip(crop), F.horizontal_flip(truth)
        if rng.random() < self.augment.flip_vertical:
            crop, truth = F.vertical_flip(crop), F.vertical_flip(truth)
        crop = change_values(crop, self.augment, self.mean, self.std, rng)
        return tv_tensors.Image(crop.contiguous()), tv_tensors.Mask(truth.contiguous())

    def _centre(self, mask: torch.Tensor, zoom: float, angle: float, rng: np.random.Generator) -> tuple[float, float]:
        """Draw the centre of the crop in pixels from the corner of the image: near a class, or anywhere.

        The rotated crop is inside the image if it fits, and centred on it otherwise.
        """
        height, width = self.crop
        cos, sin = abs(math.cos(angle)), abs(math.sin(angle))
        extent = ((height * cos + width * sin) / zoom, (height * sin + width * cos) / zoom)
        drawn = self._near_class(mask, zoom, angle, rng) if rng.random() < self.class_crops else None
        if drawn is None:
            # One position more than there are offsets, so that rounding reaches all of them equally.
            drawn = tuple(
                n / 2 - 0.5 + rng.random() * (max(size - n, 0) + 1) for n, size in zip(extent, mask.shape, strict=True)
            )
        row, column = (
            min(max(at, n / 2), size - n / 2) if n <= size else size / 2
            for at, n, size in zip(drawn, extent, mask.shape, strict=True)
        )
        return row, column

    def _near_class(
        self, mask: torch.Tensor, zoom: float, angle: float, rng: np.random.Generator
    ) -> tuple[float, ...] | None:
        """Draw a centre with a pixel of a random class in the inner half of the crop; None if all pixels are ignored."""
        pixel = class_pixel(mask.numpy(), self.ignore_index, rng)
        if pixel is None:
            return None
        down, right = rng.uniform(-0.25, 0.25, 2) * self.crop / zoom
        cos, sin = math.cos(angle), math.sin(angle)
        return pixel[0] + 0.5 - (down * cos + right * sin), pixel[1] + 0.5 - (right * cos - down * sin)

    def _slice(
        self, image: torch.Tensor, mask: torch.Tensor, centre: tuple[float, float]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Take the crop without interpolation."""
        height, width = self.crop
        top, left = (math.floor(at - side / 2 + 0.5) for at, side in zip(centre, self.crop, strict=True))
        if 0 <= top <= mask.shape[0] - height and 0 <= left <= mask.shape[1] - width:
            box = (slice(top, top + height), slice(left, left + width))
            return image[(slice(None), *box)].float(), mask[box].long()
        down, right = torch.arange(top, top + height), torch.arange(left, left + width)
        rows, columns = (
            mirrored(at + 0.5, size).long() for at, size in ((down, mask.shape[0]), (right, mask.shape[1]))
        )
        inside = (rows == down)[:, None] & (columns == right)
        truth = torch.where(inside, mask[rows][:, columns].long(), self.ignore_index)
        return image[:, rows][:, :, columns].float(), truth

    def _warp(
        self, image: torch.Tensor, mask: torch.Tensor, centre: tuple[float, float], zoom: float, angle: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Zoom and rotate around `centre`.

        Image and mask are read at the same points: the image bilinearly, the mask at the pixel that contains the point.
        """
        down, right = ((torch.arange(side) + 0.5 - side / 2) / zoom for side in self.crop)
        cos, sin = math.cos(angle), math.sin(angle)
        rows = (centre[0] + down * cos)[:, None] + right * sin
        columns = (centre[1] - down * sin)[:, None] + right * cos
        size = mask.shape
        inside = (rows >= 0) & (rows < size[0]) & (columns >= 0) & (columns < size[1])
        rows, columns = mirrored(rows, size[0]), mirrored(columns, size[1])
        row, column = rows.long().clamp_(max=size[0] - 1), columns.long().clamp_(max=size[1] - 1)
        truth = torch.where(inside, mask[row, column].long(), self.ignore_index)
        (top, bottom), (left, right_end) = ((int(at.min()), int(at.max())) for at in (row, column))
        top, left = max(top - 1, 0), max(left - 1, 0)
        window = image[None, :, top : bottom + 2, left : right_end + 2].float()
        pool = max(int(1 / zoom), 1)
        if pool > 1:  # average, since sampling would skip pixels between the points
            window = functional.avg_pool2d(window, pool, ceil_mode=True, count_include_pad=False)
        points = torch.stack(
            [(columns - left) * (2 / pool / window.shape[3]) - 1, (rows - top) * (2 / pool / window.shape[2]) - 1], -1
        )
        return functional.grid_sample(window, points[None], "bilinear", "border", align_corners=False)[0], truth


def change_values(
    image: torch.Tensor,
    augment: ResolvedAugment,
    means: tuple[float, ...],
    stds: tuple[float, ...],
    rng: np.random.Generator,
) -> torch.Tensor:
    """Change contrast and brightness (mostly the same in all bands, plus a little per band), and add noise.

    Args:
        image: (C, *S) float32.
        augment: the ranges.
        means: per band, the fixed point of contrast changes.
        stds: per band, the unit of brightness and noise.
        rng: source of randomness.
    """
    std, mean = torch.tensor(stds), torch.tensor(means)
    bands = (-1, *(1,) * (image.ndim - 1))
    shared = rng.uniform(-1, 1, 2)
    per_band = rng.uniform(-0.3, 0.3, (2, len(stds)))
    noise = rng.uniform(0, 1)
    if augment.contrast or augment.brightness:
        gain = 1 + augment.contrast * torch.from_numpy((shared[0] + per_band[0]).astype(np.float32))
        shift = augment.brightness * torch.from_numpy((shared[1] + per_band[1]).astype(np.float32))
        # Contrast changes keep the mean.
        image = torch.addcmul((mean * (1 - gain) + std * shift).view(bands), image, gain.view(bands))
    if augment.noise:
        grain = torch.from_numpy(rng.standard_normal(tuple(image.shape), np.float32))
        image = torch.addcmul(image, grain, (std * (augment.noise * noise)).view(bands))
    return image


def class_pixel(mask: np.ndarray, ignore_index: int, rng: np.random.Generator) -> tuple[int, ...] | None:
    """Draw a pixel of a random class other than the most frequent one; None if all pixels are ignored.

    Args:
        mask: (*S), class indices.
        ignore_index: mask value of ignored pixels, larger than all class indices.
        rng: source of randomness.
    """
    ids = mask.reshape(-1)
    counts = np.bincount(ids, minlength=ignore_index + 1)[:ignore_index]
    present = np.flatnonzero(counts)
    if len(present) > 1:  # the most frequent class is in most crops anyway
        present = present[present != counts.argmax()]
    if not len(present):
        return None
    drawn = int(rng.choice(present))
    place = np.flatnonzero(ids == drawn)[int(rng.integers(counts[drawn]))]
    return tuple(int(at) for at in np.unravel_index(place, mask.shape))


def mirrored(at: torch.Tensor, size: int) -> torch.Tensor:
    """Reflect coordinates outside 0…size at its ends, repeatedly."""
    at = at.remainder(2 * size)
    return torch.where(at > size, 2 * size - at, at)
