"""Sequences of images that their names or positions suggest: frames of a video, tiles of a scene."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

from pixelwise.grid import Grid


def parse_frame(path: str) -> tuple[str, int] | None:
    """Return the sequence of a file name, which is the name without its last number, and that number."""
    match = re.search(r"^(.*?)(\d{1,12})(\D*)$", PurePosixPath(path).stem)
    return None if match is None else (f"{match[1]}#{match[3]}", int(match[2]))


def sequences(names: Iterable[str]) -> list[list[int]]:
    """Return the positions of the images of each sequence of at least two, in the order of their numbers."""
    found: dict[str, list[tuple[int, int]]] = {}
    for position, name in enumerate(names):
        frame = parse_frame(name)
        if frame is not None:
            found.setdefault(f"{PurePosixPath(name).parent}/{frame[0]}", []).append((frame[1], position))
    return [[position for _, position in sorted(frames)] for frames in found.values() if len(frames) > 1]


def rows_of_tiles(grids: Sequence[Grid], sizes: Sequence[Sequence[int]]) -> list[list[int]]:
    """Return the positions of the georeferenced images of each row of at least two, from west to east.

    Args:
        grids: of the images; those without a coordinate reference system are left out.
        sizes: (H, W) of the images.
    """
    rows: dict[tuple[str, int], list[tuple[float, int]]] = {}
    for position, (grid, size) in enumerate(zip(grids, sizes, strict=True)):
        if grid.crs is not None and grid.affine is not None and len(grid.affine) == 3:
            (*_, x), (*_, y), _ = grid.affine
            rows.setdefault((grid.crs, round(y / (size[-2] * grid.spacing[0]))), []).append((x, position))
    return [[position for _, position in sorted(tiles)] for tiles in rows.values() if len(tiles) > 1]
