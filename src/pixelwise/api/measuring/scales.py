"""How the physical size of pixels follows from what the files say, or from what the user gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from pixelwise.api.measuring.ground_plane import GivenGroundPlane
from pixelwise.api.measuring.scale_bar import GivenScaleBar
from pixelwise.api.measuring.spacing import GivenSpacing
from pixelwise.errors import DataError, UsageError
from pixelwise.grid import Grid
from pixelwise.measuring.calibration import calibration_text, volume_refusal
from pixelwise.measuring.map_scale import MapScale
from pixelwise.measuring.scale import AffineScale, Scale, pixels

ScaleOf = Callable[[Grid, Sequence[int]], Scale]


def scale_rule(spacing: str | None = None, *, scale_bar: str | None = None, ground_plane: str | None = None) -> ScaleOf:
    """Return how the scale of an image follows from its grid and size: by what the user gives, else by the grid itself.

    Args:
        spacing: "0.21mm", or one length per axis.
        scale_bar: "x1,y1,x2,y2=50mm".
        ground_plane: "x,y=X,Y;…" with four or more points, or a file with them.

    Raises:
        UsageError: more than one of them, or one that cannot be read.
    """
    given = {"--spacing": spacing, "--scale-bar": scale_bar, "--ground-plane": ground_plane}
    names = [name for name, text in given.items() if text is not None]
    if len(names) > 1:
        do = "Choose the one that was measured best."
        raise UsageError(" ".join(names), expected="one source of lengths", found=f"{len(names)}", do=do)
    if spacing is not None:
        return GivenSpacing.parse(spacing).scale_of
    if scale_bar is not None:
        return GivenScaleBar.parse(scale_bar).scale_of
    if ground_plane is not None:
        return GivenGroundPlane.parse(ground_plane).scale_of
    return grid_scale


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
