"""How the physical size of pixels follows from what the files say, or from what the user gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pixelwise.api.measuring.ground_plane import GivenGroundPlane
from pixelwise.api.measuring.scale_bar import GivenScaleBar
from pixelwise.api.measuring.spacing import GivenSpacing
from pixelwise.errors import UsageError
from pixelwise.grid import Grid
from pixelwise.measuring.grid_scale import grid_scale
from pixelwise.measuring.scale import Scale

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
