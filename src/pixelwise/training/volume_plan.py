"""Derive what differs for networks with three dimensions: depth of the network, crop, batch, tile, spacing and intensities."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pixelwise.config import Config
from pixelwise.training.network_plan import Derivation, Machine, constant
from pixelwise.types import Fingerprint

_MIN_CELLS = 4  # per side, at the coarsest scale
_THICK = 2.0
_MAX_STRIDE = 32
# Voxels: of a crop, of all crops of a step, of a tile; on processors and on other devices.
_CROP, _STEP, _TILE = (64**3, 128**3), (64**3 // 2, 4 * 128**3), (128**3, 192**3)
# Standard deviations of volumes in Hounsfield units differ by less.
_CALIBRATED = 3.0


def strides_of(config: Config) -> tuple[int, int, int]:
    """Return the stride of a U-Net along the slices, rows and columns."""
    scales, flat = len(config.model.features or ()), config.model.flat or 0
    return 2 ** (scales - flat), 2**scales, 2**scales


def _intensity(_: Config, facts: Fingerprint, __: Machine) -> tuple[str, str]:
    """Choose whether the values of all volumes have one scale, as in CT, or each volume its own, as in MR."""
    ratio = facts.contrast_ratio or 1.0
    differ = f"standard deviations of the volumes differ by a factor of {ratio:.3g}"
    lowest = min((low for low, _, _ in facts.percentiles), default=0.0)
    if lowest < 0 and ratio < _CALIBRATED:
        return "data", f"values below 0, and {differ}: of one scale, as in CT"
    return (
        "image",
        f"{differ}{'' if lowest < 0 else ', and no values are below 0'}: each volume has its own scale, as in MR",
    )


def _spacing(_: Config, facts: Fingerprint, __: Machine) -> tuple[list[float] | None, str]:
    if facts.spacing is None or facts.spacing_unit != "mm":
        return None, "the spacing of the volumes is unknown"
    differ = "others are resampled to it" if facts.spacings_differ else "that of all volumes"
    return [round(step, 4) for step in facts.spacing], f"median of {facts.images} training volumes, mm; {differ}"


def _features(config: Config, facts: Fingerprint, machine: Machine) -> tuple[list[int], str]:
    """Choose the width by the device, and as many scales as leave `_MIN_CELLS` cells per row and column."""
    side = min(*facts.sizes[1][1:], *(config.train.crop or facts.sizes[1])[1:])
    features = [16, 32, 64, 128] if machine.device == "cpu" else [32, 64, 128, 256]
    why = "half of the published width, for more steps in the same time" if machine.device == "cpu" else "as published"
    scales = min(max(int(math.log2(max(side / _MIN_CELLS, 1))), 1), len(features))
    if scales < len(features):
        why += f"; {scales} of 4 scales, since {side} voxels are {side // 2**scales} cells at the coarsest scale"
    return features[:scales], why


def _flat(config: Config, facts: Fingerprint, _: Machine) -> tuple[int, str]:
    """Keep slices apart while they are much thicker than pixels are wide, and as long as there are too few of them to pool."""
    scales = len(config.model.features or ())
    spacing = config.model.spacing or (1.0, 1.0, 1.0)
    thickness = spacing[0] / min(spacing[1:])
    thick = max(math.ceil(math.log2(max(thickness / _THICK, 1))), 0)
    slices = min(facts.sizes[1][0], *(config.train.crop or facts.sizes[1])[:1])
    few = scales - max(int(math.log2(max(slices / _MIN_CELLS, 1))), 0)
    why = f"slices are {thickness:.2g} pixels thick, and {slices} are {max(slices >> scales, 1)} at the coarsest scale"
    return min(max(thick, few, 0), scales), why


def _crop(config: Config, facts: Fingerprint, machine: Machine) -> tuple[list[int], str]:
    most = _CROP[machine.device != "cpu"]
    median = "×".join(map(str, facts.sizes[1]))
    strides = strides_of(config)
    sides = within(facts.sizes[1], strides, most)
    return sides, f"the median volume {median}, in multiples of the strides {strides}, at most {most:,} voxels"


def within(size: Sequence[int], strides: Sequence[int], most: int) -> list[int]:
    """Return a size rounded up to multiples of the strides; the longest axes are shortened to keep `most` voxels, if possible."""
    cells = [max(-(-side // stride), 1) for side, stride in zip(size, strides, strict=True)]
    sides = [cell * stride for cell, stride in zip(cells, strides, strict=True)]
    while math.prod(sides) > most and max(cells) > 1:
        longest = max((axis for axis, cell in enumerate(cells) if cell > 1), key=lambda axis: sides[axis])
        cells[longest] -= 1
        sides[longest] -= strides[longest]
    return sides


def _batch_size(config: Config, facts: Fingerprint, machine: Machine) -> tuple[int, str]:
    wanted = _STEP[machine.device != "cpu"]
    voxels = math.prod(config.train.crop or (1,))
    size = max(2, min(wanted // voxels, 8, facts.images))
    return size, f"about {wanted:,} voxels per step, 2 to 8 crops"


def _tile(config: Config, facts: Fingerprint, machine: Machine) -> tuple[list[int], str]:
    most = _TILE[machine.device != "cpu"]
    smallest = config.train.crop or (1, 1, 1)
    sides = within(facts.sizes[2], strides_of(config), max(most, math.prod(smallest)))
    return sides, f"the size of the largest volume, at most {most:,} voxels"


# In this order: a rule may depend on values that earlier rules set.
VOLUME_NETWORK_RULES: dict[str, Derivation] = {
    "model.spacing": _spacing,
    "model.intensity": _intensity,
    "model.stem": constant(1, "full resolution"),
    "model.features": _features,
    "model.flat": _flat,
    "model.up": constant("transposed", "as published"),
}
VOLUME_RULES: dict[str, Derivation] = {"train.crop": _crop, "train.batch_size": _batch_size, "predict.tile": _tile}
