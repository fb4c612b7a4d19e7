"""Write the regions of a mask as polygons along pixel edges: GeoJSON, GeoPackage, or COCO.

Without simplification, the polygons cover exactly the pixels of the mask, and neighbours share their borders.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, TextIO

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import DataError
from pixelwise.formats.coco_json import category_rows
from pixelwise.geometry.contours import runs_of_rings
from pixelwise.geometry.pixel_polygons import Borders, PixelPolygon, find_borders
from pixelwise.geometry.simplify import simplified
from pixelwise.grid import Grid
from pixelwise.imageio.extras import need
from pixelwise.imageio.silencing import silenced
from pixelwise.measuring.geographic import Geographic
from pixelwise.measuring.masks import MaskSource, bands
from pixelwise.measuring.scale import Scale
from pixelwise.storage import atomic_path
from pixelwise.tiles import Window

VectorFormat = Literal["geojson", "gpkg", "coco"]
# Name endings of the formats.
SUFFIXES: dict[VectorFormat, str] = {"geojson": ".geojson", "gpkg": ".gpkg", "coco": ".json"}
_BAND_PIXELS = 1 << 22
_LAYER = "regions"


def write_vectors(
    mask: MaskSource,
    grid: Grid,
    path: Path,
    *,
    format: VectorFormat,
    simplify: float = 0.0,
    smallest: int = 1,
    scale: Scale | None = None,
) -> int:
    """Write the 4-connected regions of a mask as polygons with holes, atomically, and return their number.

    Pixels with the ignore index belong to no polygon. Memory grows with the length of all borders, not with the mask.

    - "geojson": RFC 7946, in longitude and latitude on WGS 84. Polygons over the antimeridian are cut there. An image without
      coordinate reference system gives pixels from the upper left corner of the image, x to the right and y down, and the file
      says so in its member `coordinates`.
    - "gpkg": a GeoPackage with the layer `regions`, in the system of the grid; without one, in pixels as above.
    - "coco": objects of one image, in pixels. A region with holes is written as run lengths, since COCO's polygons have none.

    Each polygon has the name and the id of its class, and the number and the area of its pixels, if a scale with a unit is given; simplified
    borders do not change these.

    Args:
        mask: 2-D.
        grid: of the mask.
        path: of the file.
        format: see above.
        simplify: largest distance in pixels by which points are removed from borders, see `geometry.simplify`; 0: none.
        smallest: regions with fewer pixels are left out.
        scale: of the grid, for areas.

    Raises:
        DataError: a volume, or no transformation from the system of the grid to WGS 84.
        ImageError: a package of the extra `geo` is not installed.
        ResourceError: the disk is full; an existing file is unchanged.
    """
    if len(mask.shape) != 2:
        raise DataError(
            mask.id or "mask", expected="an image, for polygons", found="a volume", do="Write polygons of images only."
        )
    borders = simplified(_borders(mask, scale), simplify)
    writers = {"geojson": _write_geojson, "gpkg": _write_geopackage, "coco": _write_coco}
    return writers[format](_Regions(mask, grid, borders, smallest, scale), path)


def _borders(mask: MaskSource, scale: Scale | None) -> Borders:
    width = mask.shape[1]

    def sizes(rows: slice) -> NDArray[np.float64]:
        assert scale is not None
        return scale.sizes(Window((rows.start, 0), (rows.stop, width)))

    windows = bands(mask.shape, max(_BAND_PIXELS // max(width, 1), 1))
    return find_borders(
        (mask.read(window) for window in windows),
        ignored=(mask.labels.ignore_index,),
        sizes=None if scale is None or scale.unit == "px" else sizes,
    )


class _Regions:
    """The regions of a mask, and what is written about each."""

    def __init__(self, mask: MaskSource, grid: Grid, borders: Borders, smallest: int, scale: Scale | None) -> None:
        self.mask, self.grid, self.borders, self.smallest = mask, grid, borders, smallest
        self.unit = None if scale is None or scale.unit == "px" else scale.unit

    @property
    def on_map(self) -> bool:
        """Whether the grid says where the pixels are on a map."""
        return self.grid.affine is not None and self.grid.crs is not None

    @property
    def columns(self) -> dict[str, Any]:
        """Name and type of what is written about each polygon."""
        found: dict[str, Any] = {"class": object, "id": np.int64, "pixels": np.int64}
        return found if self.unit is None else found | {f"area_{self.unit}2": np.float64}

    def properties(self, polygon: PixelPolygon) -> dict[str, Any]:
        """Return the values of the columns."""
        labels, index = self.mask.labels, polygon.class_index
        values = (labels.names[index], labels.ids[index], polygon.pixels, polygon.size)
        return dict(zip(self.columns, values, strict=False))


def _write_geojson(regions: _Regions, path: Path) -> int:
    """Write a FeatureCollection, one feature per line."""
    geographic = Geographic(regions.grid, path) if regions.on_map else None
    borders = regions.borders if geographic is None else geographic.borders(regions.borders)

    def features() -> Iterator[dict[str, Any]]:
        for polygon in borders.polygons(regions.smallest):
            rings = (polygon.outer, *polygon.holes)
            shape = _pixel_geometry(rings) if geographic is None else geographic.geometry(rings)
            yield {"type": "Feature", "properties": regions.properties(polygon), "geometry": shape}

    head: dict[str, Any] = {"type": "FeatureCollection"}
    if geographic is None:
        head["coordinates"] = "pixels from the upper left corner of the image, x to the right and y down"
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        return _write_lines(file, head, "features", features())


def _pixel_geometry(rings: Iterable[NDArray[np.float64]]) -> dict[str, Any]:
    # Clockwise on screen is counter-clockwise in x, y.
    return {"type": "Polygon", "coordinates": [[*ring.tolist(), ring[0].tolist()] for ring in rings]}


def _write_lines(file: TextIO, head: dict[str, Any], key: str, rows: Iterable[dict[str, Any]]) -> int:
    """Write a JSON object whose last member is a list, one element per line, and return their number."""
    file.write(json.dumps(head, ensure_ascii=False)[:-1] + f', "{key}": [')
    count = 0
    for count, row in enumerate(rows, 1):
        file.write(("\n" if count == 1 else ",\n") + json.dumps(row, ensure_ascii=False, allow_nan=False))
    file.write("\n]}\n")
    return count


def _write_geopackage(regions: _Regions, path: Path) -> int:
    """Write a GeoPackage, which GDAL writes under its final name, since it depends on the ending."""
    shapely, raw = need("shapely", "geo", path), need("pyogrio.raw", "geo", path)
    borders, grid = regions.borders, regions.grid
    if regions.on_map:
        borders = borders.with_points(np.asarray(grid.to_world(borders.points[:, ::-1] - 0.5)), borders.starts)
    rows: list[dict[str, Any]] = []
    shapes: list[bytes] = []
    for polygon in borders.polygons(regions.smallest):
        rows.append(regions.properties(polygon))
        shapes.append(shapely.to_wkb(shapely.geometry.polygon.orient(shapely.Polygon(polygon.outer, polygon.holes))))
    columns = {key: np.array([row[key] for row in rows], dtype) for key, dtype in regions.columns.items()}
    with (
        silenced(),  # pyogrio warns if there is no system
        atomic_path(path) as temporary,
        tempfile.TemporaryDirectory(prefix=".", suffix=".tmp", dir=path.parent) as folder,
    ):
        staged = Path(folder) / f"{_LAYER}.gpkg"
        raw.write(
            staged,
            geometry=np.array([None, *shapes], object)[1:],
            field_data=list(columns.values()),
            fields=np.array(list(columns), object),
            layer=_LAYER,
            driver="GPKG",
            geometry_type="Polygon",
            crs=grid.crs if regions.on_map else None,
        )
        staged.replace(temporary)
    return len(rows)


def _write_coco(regions: _Regions, path: Path) -> int:
    """Write objects of one image, one per line."""
    height, width = regions.mask.shape
    head = {
        "images": [{"id": 1, "file_name": Path(regions.mask.id).name, "height": height, "width": width}],
        "categories": category_rows(regions.mask.labels),
    }
    rows = (
        _coco_row(regions, number, polygon)
        for number, polygon in enumerate(regions.borders.polygons(regions.smallest), 1)
    )
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        return _write_lines(file, head, "annotations", rows)


def _coco_row(regions: _Regions, number: int, polygon: PixelPolygon) -> dict[str, Any]:
    low, high = polygon.outer.min(0), polygon.outer.max(0)
    return {
        "id": number,
        "image_id": 1,
        "category_id": regions.mask.labels.ids[polygon.class_index],
        "iscrowd": 0,
        "segmentation": _segmentation(polygon, regions.mask.shape),
        "area": polygon.pixels,
        "bbox": [*low.tolist(), *(high - low).tolist()],
    }


def _segmentation(polygon: PixelPolygon, shape: tuple[int, ...]) -> Any:
    if not polygon.holes:
        return [polygon.outer.reshape(-1).tolist()]
    from pycocotools import mask as coder

    size = (shape[0], shape[1])
    runs = runs_of_rings((polygon.outer, *polygon.holes), size)
    counts = coder.frPyObjects({"size": list(size), "counts": runs.tolist()}, *size)["counts"]
    return {"size": list(size), "counts": str(counts, "ascii")}
