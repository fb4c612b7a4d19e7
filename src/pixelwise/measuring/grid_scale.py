"""The scale of an image from its grid, and the sizes of classes on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import DataError
from pixelwise.grid import Grid
from pixelwise.measuring.calibration import calibration_text, volume_refusal
from pixelwise.measuring.map_scale import MapScale
from pixelwise.measuring.scale import AffineScale, Scale, pixels


def grid_scale(grid: Grid, shape: Sequence[int]) -> Scale:
    """Return the scale of a grid: geodesic on a map, by the spacing elsewhere; in pixels with the reason if there is none."""
    if grid.crs is not None and grid.affine is not None:
        try:
            return MapScale(grid, shape)
        except ImportError:
            return pixels(len(shape), "areas on maps need pyproj: pip install 'pixelwise[geo]'")
        except DataError as error:
            return pixels(len(shape), str(error))
    if not grid.has_lengths:
        return pixels(len(shape), "the images have no pixel spacing in a unit of length")
    refusal = volume_refusal(grid.calibration) if len(shape) == 3 else None
    if refusal is not None:
        return pixels(len(shape), refusal)
    matrix = np.diag(grid.spacing) if grid.affine is None else np.asarray(grid.affine)[:-1, :-1][:, ::-1]
    return AffineScale(np.asarray(matrix, np.float64), grid.unit, calibration_text(grid.calibration))


def size_unit(scale: Scale, ndim: int) -> tuple[str, float]:
    """Return the unit of areas or volumes, and by what sizes in the unit of the scale are multiplied."""
    if scale.unit == "px":
        return ("px²" if ndim == 2 else "voxels"), 1.0
    return ("ml", 1e-3) if (scale.unit, ndim) == ("mm", 3) else (f"{scale.unit}{'²' if ndim == 2 else '³'}", 1.0)


def class_sizes(mask: NDArray[Any], sizes: NDArray[np.float64], num_classes: int) -> NDArray[np.float64]:
    """Return the size of each class in a mask, (K,), from the sizes of its pixels."""
    if sizes.size == 1:
        counts = np.bincount(mask.reshape(-1), minlength=num_classes)[:num_classes]
        return counts.astype(np.float64) * float(sizes.item())
    weights = np.broadcast_to(sizes, mask.shape).reshape(-1)
    return np.bincount(mask.reshape(-1), weights, num_classes)[:num_classes].astype(np.float64)
