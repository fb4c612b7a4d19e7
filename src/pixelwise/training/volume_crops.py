"""Random crops of volumes with augmentation: position, zoom, rotation, deformation, flips, brightness, contrast and noise.

As in `transforms`, all geometry is one look-up per voxel of the crop, voxels outside the volume are ignored in the mask and
mirrored in the image, and class indices are read at the voxel that contains the point. Rotations and zooms are those of the body:
they are computed in millimetres, so that nothing is sheared where slices are thicker than pixels are wide.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from pixelwise.config import ResolvedAugment
from pixelwise.training.transforms import change_values, class_pixel, mirrored

_EPSILON = 1e-8
# Slices thicker than this many pixels are not tilted: the values between two of them are hardly known.
_TILTED = 1.5
_FEW = 8
# Classes are drawn among so many voxels, which is fast for the largest volumes.
_DRAWN = 1 << 20
# Per axis: displacements are drawn there, and interpolated between.
_KNOTS = 4
_FLIPS = ("flip_depth", "flip_vertical", "flip_horizontal")

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class VolumeTransform:
    """Draw an augmented crop of a volume and its mask.

    Args:
        crop: (depth, height, width) of the crop, voxels.
        augment: probabilities and ranges; `rotate` is the largest angle about each axis.
        class_crops: share of the crops centred on a class, as in `CropTransform`.
        ignore_index: mask value outside the volume.
        mean, std: per band, as in `CropTransform`.
        spacing: distance between voxels along each axis, in any unit.
    """

    crop: tuple[int, ...]
    augment: ResolvedAugment
    class_crops: float
    ignore_index: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    spacing: tuple[float, ...] = (1.0, 1.0, 1.0)

    def __call__(
        self, image: torch.Tensor, mask: torch.Tensor, rng: np.random.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw one crop.

        Args:
            image: (C, D, H, W), any numeric type.
            mask: (D, H, W), class indices.
            rng: the only source of randomness.

        Returns:
            float32 (C, d, h, w) and int64 (d, h, w).
        """
        zoom = math.exp(rng.uniform(*np.log(self.augment.scale)))
        angles = rng.uniform(-1, 1, 3) * math.radians(self.augment.rotate)
        matrix = self._matrix(zoom, angles)
        centre = self._centre(mask, matrix, rng)
        if not self.augment.elastic and np.abs(matrix - np.eye(3)).max() < _EPSILON:
            crop, truth = self._slice(image, mask, centre)
        else:
            crop, truth = self._warp(image, mask, centre, matrix, self._bend(rng))
        axes = [axis - 3 for axis, key in enumerate(_FLIPS) if rng.random() < getattr(self.augment, key)]
        crop, truth = crop.flip(axes), truth.flip(axes)
        crop = change_values(crop, self.augment, self.mean, self.std, rng)
        return crop.contiguous(), truth.contiguous()

    @property
    def _is_flat(self) -> bool:
        """Whether slices are kept apart: they are thick, or so few that tilted ones would leave the volume."""
        return max(self.spacing) > _TILTED * min(self.spacing) or self.crop[0] < _FEW

    def _matrix(self, zoom: float, angles: NDArray[np.float64]) -> Matrix:
        """Return the matrix (3, 3) from an offset in the crop to one in the volume, both in voxels."""
        if self._is_flat:
            angles = angles * (1, 0, 0)
        matrix = np.eye(3)
        for angle, (a, b) in zip(angles.tolist(), ((1, 2), (0, 2), (0, 1)), strict=True):
            turn = np.eye(3)
            turn[a, a] = turn[b, b] = math.cos(angle)
            turn[a, b], turn[b, a] = math.sin(angle), -math.sin(angle)
            matrix = matrix @ turn
        spacing = np.asarray(self.spacing)
        return matrix * spacing / spacing[:, None] / zoom

    def _centre(self, mask: torch.Tensor, matrix: Matrix, rng: np.random.Generator) -> list[float]:
        """Draw the centre of the crop in voxels from the corner of the volume: near a class, or anywhere.

        The crop is inside the volume if it fits, and centred on it otherwise.
        """
        extent = np.abs(matrix) @ np.asarray(self.crop, float)
        drawn = self._near_class(mask, matrix, rng) if rng.random() < self.class_crops else None
        if drawn is None:
            # One position more than there are offsets, so that rounding reaches all of them equally.
            room = np.maximum(np.asarray(mask.shape) - extent, 0) + 1
            drawn = extent / 2 - 0.5 + rng.random(3) * room
        return [
            float(min(max(at, n / 2), size - n / 2)) if n <= size else size / 2
            for at, n, size in zip(drawn, extent, mask.shape, strict=True)
        ]

    def _near_class(self, mask: torch.Tensor, matrix: Matrix, rng: np.random.Generator) -> NDArray[np.float64] | None:
        """Draw a centre with a voxel of a random class in the inner half of the crop; None if none is found.

        In large volumes, only every n-th voxel along each axis is considered, from a random one on.
        """
        step = max(math.ceil((mask.numel() / _DRAWN) ** (1 / 3)), 1)
        starts = rng.integers(step, size=3)
        sparse = mask.numpy()[
            tuple(slice(int(start) % side, None, step) for start, side in zip(starts, mask.shape, strict=True))
        ]
        voxel = class_pixel(sparse, self.ignore_index, rng)
        offset = rng.uniform(-0.25, 0.25, 3) * self.crop
        if voxel is None:
            return None
        place = np.asarray(voxel) * step + starts % np.asarray(mask.shape) + 0.5
        return np.asarray(place - matrix @ offset)

    def _slice(self, image: torch.Tensor, mask: torch.Tensor, centre: list[float]) -> tuple[torch.Tensor, torch.Tensor]:
        """Take the crop without interpolation."""
        first = [math.floor(at - side / 2 + 0.5) for at, side in zip(centre, self.crop, strict=True)]
        places = [torch.arange(start, start + side) for start, side in zip(first, self.crop, strict=True)]
        taken = [
            mirrored(at + 0.5, size).long().clamp_(max=size - 1) for at, size in zip(places, mask.shape, strict=True)
        ]
        inside = torch.ones(self.crop, dtype=torch.bool)
        for axis, (at, from_) in enumerate(zip(places, taken, strict=True)):
            inside &= (at == from_).view(-1, *(1,) * (2 - axis))
            image, mask = image.index_select(axis + 1, from_), mask.index_select(axis, from_)
        return image.float(), torch.where(inside, mask.long(), self.ignore_index)

    def _bend(self, rng: np.random.Generator) -> torch.Tensor:
        """Draw a smooth displacement of the voxels along each axis, (3, *crop), in voxels."""
        scale = rng.uniform(0, self.augment.elastic) * min(self.spacing) / np.asarray(self.spacing)
        scale[0] *= not self._is_flat
        drawn = rng.standard_normal((3, *(_KNOTS,) * 3)) * scale.reshape(3, 1, 1, 1)
        knots = torch.from_numpy(drawn.astype(np.float32))[None]
        return functional.interpolate(knots, self.crop, mode="trilinear", align_corners=True)[0]

    def _warp(
        self, image: torch.Tensor, mask: torch.Tensor, centre: list[float], matrix: Matrix, bend: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Zoom and rotate around `centre`, and deform: the image is read trilinearly, the mask at the voxel that contains the point."""
        offsets = [
            (torch.arange(side) + 0.5 - side / 2).view(-1, *(1,) * (2 - axis)) for axis, side in enumerate(self.crop)
        ]
        inside = torch.ones(self.crop, dtype=torch.bool)
        places, voxels = [], []
        for row, at, size, shift in zip(matrix.tolist(), centre, mask.shape, bend, strict=True):
            place = at + row[0] * offsets[0] + row[1] * offsets[1] + row[2] * offsets[2] + shift
            inside &= (place >= 0) & (place < size)
            place = mirrored(place, size)
            places.append(place)
            voxels.append(place.long().clamp_(max=size - 1))
        truth = torch.where(inside, mask[tuple(voxels)].long(), self.ignore_index)
        first = [max(int(voxel.min()) - 1, 0) for voxel in voxels]
        box = tuple(slice(start, int(voxel.max()) + 2) for start, voxel in zip(first, voxels, strict=True))
        window = image[(slice(None), *box)][None].float()
        # grid_sample takes x, y, z from -1 to 1, between the outer borders of the window.
        points: Any = [
            (place - start) * (2 / side) - 1 for place, start, side in zip(places, first, window.shape[2:], strict=True)
        ]
        grid = torch.stack(points[::-1], -1)[None]
        return functional.grid_sample(window, grid, "bilinear", "border", align_corners=False)[0], truth
