"""A ground plane that the user describes by points: `--ground-plane "410,620=0,5;…"`, or a file with them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pixelwise.config.files import read_yaml
from pixelwise.errors import UsageError
from pixelwise.grid import Grid
from pixelwise.measuring.ground_plane import GroundPlane
from pixelwise.measuring.scale import Array

_SUFFIXES = (".yaml", ".yml", ".json")
_FORM = '"x,y=X,Y;x,y=X,Y;…" with four or more points: column and row in the image, metres on the ground'
_FILE_FORM = "`points`, a list of four or more, each such as {image: [410, 620], metres: [0, 5]}"


@dataclass(frozen=True, eq=False)
class GivenGroundPlane:
    """Points of an image and their places on a plane.

    Args:
        plane: that they determine.
        points: (N, 2), column and row.
    """

    plane: GroundPlane
    points: Array

    @classmethod
    def parse(cls, text: str) -> GivenGroundPlane:
        """Read points from "x,y=X,Y;x,y=X,Y;…", or from a YAML or JSON file.

        Raises:
            UsageError: something else, fewer than four points, or points that determine no plane.
            ConfigError: a file that is missing or malformed.
        """
        is_file = "=" not in text or Path(text).suffix.lower() in _SUFFIXES
        pairs = _file_points(Path(text)) if is_file else _text_points(text)
        values = np.array(pairs, np.float64).reshape(-1, 4)
        return cls(GroundPlane.from_points(values[:, :2], values[:, 2:]), values[:, :2])

    def scale_of(self, grid: Grid, shape: Sequence[int]) -> GroundPlane:
        """Return the scale of an image (H, W); its own grid is not used.

        Raises:
            UsageError: a volume, or an image that does not contain the points.
        """
        if len(shape) != 2:
            do = "Measure images and volumes with separate commands."
            raise UsageError("--ground-plane", expected="images", found="a volume", do=do)
        require_inside("--ground-plane", self.points, shape)
        return self.plane


def require_inside(option: str, points: Array, shape: Sequence[int]) -> None:
    """Raise if points (N, 2), column and row, are outside of an image (H, W).

    Raises:
        UsageError: one is.
    """
    outside = ((points < -0.5) | (points > np.array(shape[::-1]) - 0.5)).any(axis=1)
    if outside.any():
        x, y = points[outside][0]
        raise UsageError(
            option,
            expected=f"points within the image of {shape[1]}×{shape[0]} pixels (width × height)",
            found=f"x {x:g}, y {y:g}",
            do="Measure images of different sizes or cameras with separate commands, each with its own points.",
        )


def _text_points(text: str) -> list[list[float]]:
    """Return x, y, X and Y of each point."""
    found = []
    for pair in filter(str.strip, text.split(";")):
        sides = [side.split(",") for side in pair.split("=")]
        values = _numbers([value for side in sides for value in side])
        if values is None or [len(side) for side in sides] != [2, 2]:
            raise UsageError("--ground-plane", expected=_FORM, found=pair.strip(), do="Correct this point.")
        found.append(values)
    return found


def _file_points(path: Path) -> list[list[float]]:
    """Return x, y, X and Y of each point of a file."""
    if path.suffix.lower() not in _SUFFIXES:
        raise UsageError(
            "--ground-plane", expected=f"{_FORM}; or a YAML or JSON file with them", found=str(path), do="Correct it."
        )
    points = read_yaml(path)[0].get("points")
    if not isinstance(points, list):
        raise UsageError(path, expected=_FILE_FORM, found="none", do="Add them.")
    found = []
    for number, point in enumerate(points, 1):
        values = _point(point)
        if values is None:
            raise UsageError(f"{path}: point {number}", expected=_FILE_FORM, found=str(point), do="Correct this point.")
        found.append(values)
    return found


def _point(point: Any) -> list[float] | None:
    """Return x, y, X and Y; None if it is no point."""
    if not isinstance(point, dict) or set(point) != {"image", "metres"}:
        return None
    sides = [point["image"], point["metres"]]
    if not all(isinstance(side, list) and len(side) == 2 for side in sides):
        return None
    return _numbers([*sides[0], *sides[1]])


def _numbers(values: Sequence[Any]) -> list[float] | None:
    """Return finite numbers; None if one is none."""
    try:
        found = [float(value) for value in values]
    except (TypeError, ValueError):
        return None
    return found if all(map(math.isfinite, found)) else None
