"""Adjoining rasters on one grid, read as one image: a folder of GeoTIFFs, or the files that a VRT lists.

A VRT is not opened by GDAL, since it may name any file, address or program. Its list of local files is read, and these are put
side by side by their own positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import GridMismatchError, ImageError
from pixelwise.grid import Grid
from pixelwise.imageio.band_names import require_band_order
from pixelwise.imageio.sources import RasterSource, open_source
from pixelwise.tiles import Window, window_slices

# Of a pixel, by which rasters may be off the common grid.
_TOLERANCE = 0.02
_MOST_BYTES = 1 << 24
# What a VRT that only puts files side by side consists of.
_PLAIN = {
    "VRTDataset", "SRS", "GeoTransform", "VRTRasterBand", "SimpleSource", "SourceFilename", "SourceBand", "SourceProperties",
    "SrcRect", "DstRect", "ColorInterp", "NoDataValue", "Description", "Metadata", "MDI", "OverviewList", "ComplexSource", "NODATA",
    "BlockXSize", "BlockYSize", "ColorTable", "Entry", "CategoryNames", "Category", "UseMaskBand",
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class MosaicSource:
    """Rasters on one grid as one image (see `sources.Source`); where several have data, the first one counts.

    Args:
        path: the folder or the VRT.
        sources: the rasters.
        corners: row and column of the first pixel of each in the mosaic.
        shape: (H, W) of the mosaic.
        grid: of the mosaic.
    """

    path: Path
    sources: tuple[RasterSource, ...]
    corners: tuple[tuple[int, int], ...]
    shape: tuple[int, ...]
    grid: Grid

    format = "GeoTIFF"
    nodata = None

    @property
    def channels(self) -> int:
        """C, the number of bands."""
        return self.sources[0].channels

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the pixel values."""
        return self.sources[0].dtype

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the bands; () if the first file has none."""
        return self.sources[0].names

    @property
    def files(self) -> tuple[Path, ...]:
        """The files of the rasters."""
        return tuple(source.path for source in self.sources)

    @property
    def reference(self) -> tuple[Path, tuple[int, int]]:
        """The first file, and row and column of the mosaic's first pixel in it."""
        top, left = self.corners[0]
        return self.sources[0].path, (-top, -left)

    def read(self, window: Window | None = None) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
        """Read a window, or everything; see `Source.read`."""
        window_slices(self.shape, window)
        window = window or Window((0, 0), self.shape)
        image = np.zeros((self.channels, *window.shape), self.dtype)
        valid = np.zeros(window.shape, bool)
        for source, corner in zip(self.sources, self.corners, strict=True):
            start = tuple(max(a, c) for a, c in zip(window.start, corner, strict=True))
            stop = tuple(min(b, c + s) for b, c, s in zip(window.stop, corner, source.shape, strict=True))
            if any(a >= b for a, b in zip(start, stop, strict=True)):
                continue
            inside = tuple(slice(a - w, b - w) for a, b, w in zip(start, stop, window.start, strict=True))
            part = Window(*(tuple(p - c for p, c in zip(place, corner, strict=True)) for place in (start, stop)))
            values, known = source.read(part)
            new = ~valid[inside] & (np.ones(part.shape, bool) if known is None else known)
            image[:, *inside][:, new] = values[:, new]
            valid[inside] |= new
        return image, None if valid.all() else valid


def open_mosaic(path: Path, files: Sequence[Path], nodata: float | None = None) -> MosaicSource:
    """Open adjoining GeoTIFFs as one image.

    Args:
        path: the folder or VRT that names them.
        files: at least one.
        nodata: stored value of pixels without data, besides those that the files define.

    Raises:
        ImageError: an unreadable file, one without position, or of other bands or another type than the first.
        GridMismatchError: a file that is not on the grid of the first.
    """
    sources: list[RasterSource] = []
    for file in files:
        source = open_source(file, nodata=nodata)
        if not isinstance(source, RasterSource) or source.format != "GeoTIFF" or source.grid.affine is None:
            do = "Predict it on its own, without predict.mosaic."
            raise ImageError(file, expected="a GeoTIFF with a position", found=source.format, do=do)
        sources.append(source)
    first = sources[0]
    corners = [_corner(source, first) for source in sources]
    low = tuple(min(corner[axis] for corner in corners) for axis in (0, 1))
    moved = [(top - low[0], left - low[1]) for top, left in corners]
    ends = [
        max(corner[axis] + source.shape[axis] for corner, source in zip(moved, sources, strict=True)) for axis in (0, 1)
    ]
    return MosaicSource(path, tuple(sources), tuple(moved), tuple(ends), _shifted(first.grid, low[0], low[1]))


def _corner(source: RasterSource, first: RasterSource) -> tuple[int, int]:
    """Return row and column of the first pixel of a raster on the grid of the first one."""
    kind = f"{first.channels} bands of {first.dtype.name}"
    require_band_order(source.path, source.names, first.names, f"in {first.path.name}")
    if (source.channels, source.dtype) != (first.channels, first.dtype):
        found = f"{source.channels} bands of {source.dtype.name}"
        do = "Predict it on its own, without predict.mosaic."
        raise ImageError(source.path, expected=f"{kind}, as {first.path.name} has", found=found, do=do)
    height, width = source.shape
    points = np.array([[0, 0], [0, width], [height, 0]], float)
    places = first.grid.to_pixels(source.grid.to_world(points))
    corner = np.rint(places[0])
    if source.grid.crs != first.grid.crs or np.abs(places - points - corner).max() > _TOLERANCE:
        raise GridMismatchError(
            source.path,
            expected=f"pixels on the grid of {first.path.name} ({first.grid.crs}, spacing {first.grid.spacing})",
            found=f"{source.grid.crs}, spacing {source.grid.spacing}, {places[0][0]:.3f} rows and {places[0][1]:.3f} columns away",
            do="Warp the files to one grid (gdalwarp -tap -tr …), or predict them one by one, without predict.mosaic.",
        )
    return int(corner[0]), int(corner[1])


def _shifted(grid: Grid, rows: int, columns: int) -> Grid:
    """Return a grid whose first pixel is the one at a row and column of another."""
    matrix = np.array(grid.affine, float)
    matrix[:2, 2] += matrix[:2, :2] @ (columns, rows)
    return Grid(grid.spacing, grid.unit, tuple(map(tuple, matrix.tolist())), grid.crs, grid.calibration)


def files_of_vrt(path: Path) -> list[Path]:
    """Return the local files that a VRT puts side by side, each once.

    Raises:
        ImageError: no VRT, or one that does more: that warps, computes, or names addresses or files inside of archives.
    """
    do = "Build it by gdalbuildvrt from local GeoTIFFs, or convert it with gdal_translate."
    content = path.read_bytes()[: _MOST_BYTES + 1]
    if len(content) > _MOST_BYTES or b"<!" in content.replace(b"<!--", b""):
        raise ImageError(path, expected="a plain VRT", found="one with declarations, or a very large one", do=do)
    try:
        root = ElementTree.fromstring(content)
    except ElementTree.ParseError as error:
        raise ImageError(path, expected="a VRT", found=f"no XML: {error}", do=do) from error
    others = sorted({element.tag for element in root.iter()} - _PLAIN)
    if root.tag != "VRTDataset" or others or any("subClass" in element.attrib for element in root.iter()):
        found = ", ".join(others[:3]) or "a derived or warped data set"
        raise ImageError(path, expected="a VRT that puts files side by side", found=found, do=do)
    files: dict[Path, None] = {}
    for element in root.iter("SourceFilename"):
        name = (element.text or "").strip()
        relative = element.get("relativeToVRT") == "1"
        file = path.parent / name if relative else Path(name)
        if "://" in name or name.startswith(("/vsi", "\\\\", "//")) or not file.is_file():
            raise ImageError(path, expected="local files", found=name or "an empty name", do=do)
        files[file] = None
    if not files:
        raise ImageError(path, expected="a VRT with files", found="none", do=do)
    return list(files)


def is_vrt(path: Path) -> bool:
    """Whether a file is a VRT, by its content."""
    try:
        with path.open("rb") as file:
            return file.read(512).lstrip().startswith(b"<VRTDataset")
    except OSError:
        return False
