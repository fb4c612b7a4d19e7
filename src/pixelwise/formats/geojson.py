"""GeoTIFFs with areas in GeoJSON, such as footprints of buildings or fields.

Features are transformed to the coordinate reference system of the rasters that they overlap, and painted in the order of
the file. Pixels with the raster's nodata value are ignored.

The class is the property `data.attribute`, else the first of `_ATTRIBUTES` that every feature has (if only half or more
have it, that is an error). Otherwise all features are one class, named after a property that is "yes" in all of them
(`building=yes`), or after the file.

A raster without features is background if it is within the extent of the features, has a vector file with its own name, or
is listed in `data.images`. Otherwise it may not be annotated at all, and is reported as a problem.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import DataError, ImageError, MaskError
from pixelwise.formats.annotated_images import AnnotatedImage, ImageMatcher, NamedRegion, found_images
from pixelwise.formats.base import Format, ReadResult, drawn_labels, load_json, mentions
from pixelwise.formats.dataset_root import DatasetRoot, split_of_folder
from pixelwise.formats.records import Problem, Record, short
from pixelwise.formats.shapes import Polygon
from pixelwise.formats.vector_features import Features, Points, crs_name, is_collection, read_features, transformer
from pixelwise.grid import Grid
from pixelwise.imageio.extras import need
from pixelwise.imageio.images import read_header
from pixelwise.imageio.raster import Header, Refused
from pixelwise.imageio.safe_reading import reading
from pixelwise.imageio.windows import LARGE

_RASTERS = (".tif", ".tiff")
_ATTRIBUTES = (
    "class", "class_name", "classname", "label", "category", "type", "landcover", "land_cover", "landuse", "crop",
)  # fmt: skip
_YES = {"yes", "true", "1"}
_MAX_CLASSES = 255
_MAX_PROBED_FILES = 3
_MAX_EDGE = 16.0  # pixels; longer edges are divided, since a straight line in one system is a curve in another
_BLOCKS = 3  # along each side of a single raster
_SHOWN = 4


@dataclass(frozen=True, eq=False)
class _Raster:
    path: Path
    header: Header
    grid: Grid
    crs: str

    @property
    def extent(self) -> NDArray[np.float64]:
        """Minimum x, minimum y, maximum x, maximum y of the corners."""
        height, width = self.header.size
        corners = np.array([(0, 0), (0, width), (height, 0), (height, width)]) - 0.5
        world = self.grid.to_world(corners)
        return np.concatenate([world.min(0), world.max(0)])


def detect(dataset: DatasetRoot) -> str | None:
    """Recognise a feature collection in a data set with GeoTIFFs."""
    if not any(path.suffix.lower() in _RASTERS for path in dataset.files):
        return None
    paths = [*dataset.annotations(".geojson"), *dataset.annotations(".json")[:_MAX_PROBED_FILES]]
    found = next((path for path in paths if mentions(path, "FeatureCollection")), None)
    return None if found is None else f"{short(found, dataset.root)} has features"


def read(dataset: DatasetRoot) -> ReadResult:
    """Read every vector file and the header of every raster, and find the features of each raster.

    Raises:
        MaskError: malformed features, or an unknown coordinate reference system.
        ImageError: a raster without georeference; with `data.skip_bad` it becomes a problem.
        DataError: no feature on any raster.
    """
    paths = [*dataset.annotations(".geojson"), *dataset.annotations(".json")]
    vectors = [
        read_features(path, content)
        for path in paths
        if is_collection(path, content := load_json(path, dataset=dataset))
    ]
    dataset.use(*(vector.path for vector in vectors))
    if not vectors:
        raise DataError(
            dataset.root, expected="GeoJSON feature collections", found="none", do="Check data.annotations."
        )
    rasters, problems = _rasters(dataset)
    class_of, classes, notice = _classes(dataset, vectors)
    labels = drawn_labels(dataset, classes)
    overlay = _Overlay(vectors)
    shapes = {raster.path: overlay.shapes(raster, class_of) for raster in rasters}
    empty = [raster for raster in rasters if not shapes[raster.path]]
    if len(empty) == len(rasters):
        raise _no_overlap(dataset, rasters, vectors)
    unknown = [raster for raster in empty if dataset.config.images is None and not overlay.covers(raster)]
    annotated = [raster for raster in rasters if raster not in unknown]
    notices = [notice, *overlay.notices(dataset.root)]
    if unknown:
        do = _list_annotated([short(raster.path, dataset.root) for raster in annotated])
        notices.append(f"{len(unknown)} of {len(rasters)} rasters are far from all features: {do}".rstrip("."))
        why = "raster far from all features"
        problems += [Problem(short(raster.path, dataset.root), why, do) for raster in unknown]
    background = [short(raster.path, dataset.root) for raster in empty if raster not in unknown]
    if background:
        notices.append(f"{len(background)} of {len(rasters)} rasters have no features: {_some(background)}")
    images = [
        AnnotatedImage(
            raster.path,
            overlay.file_of(raster),
            split_of_folder(raster.path, dataset.root),
            raster.header.size,
            shapes[raster.path],
        )
        for raster in annotated
    ]
    found = found_images(dataset, "rasters with features", images, labels, problems, notices)
    size = annotated[0].header.size
    by_blocks = dataset.config.split.block is not None or math.prod(size) > LARGE  # see `datasets.scenes`
    return found if len(annotated) > 1 or by_blocks else _divided(found, size)


def _divided(found: ReadResult, size: tuple[int, int]) -> ReadResult:
    """Divide a single raster into blocks, unless its folder is a split."""
    if "pool" not in found.layout.splits:
        return found
    (record,) = found.layout.splits["pool"]
    blocks = f"{_BLOCKS}×{_BLOCKS} blocks"
    notice = f"the only raster is divided into {blocks}: scores on some of them say little about other places"
    splits = {"pool": tuple(_blocks(record, size))}
    return replace(found, layout=replace(found.layout, splits=splits, notices=(*found.layout.notices, notice)))


def _blocks(record: Record, size: tuple[int, int]) -> list[Record]:
    """Divide a raster into blocks, each a group of its own."""
    rows, columns = (np.linspace(0, side, _BLOCKS + 1).astype(int).tolist() for side in size)
    windows = [
        (top, left, bottom - top, right - left)
        for top, bottom in pairwise(rows)
        for left, right in pairwise(columns)
        if bottom > top and right > left
    ]
    ids = [f"{record.id}/{number}" for number in range(len(windows))]
    return [replace(record, id=id_, group=id_, window=window) for id_, window in zip(ids, windows, strict=True)]


def _rasters(dataset: DatasetRoot) -> tuple[list[_Raster], list[Problem]]:
    """Read the headers of all rasters, which must be georeferenced."""
    rasters: list[_Raster] = []
    matcher = ImageMatcher(dataset)
    for path in dataset.images.paths:
        if path.suffix.lower() not in _RASTERS:
            matcher.add_problem(path, "image that is not a GeoTIFF")
            continue
        try:
            with reading(path, ImageError, "GeoTIFF"):
                rasters.append(_raster(path))
        except DataError as error:
            matcher.skip(error)
    if not rasters:
        raise DataError(dataset.root, expected="georeferenced GeoTIFFs", found="none", do="Check data.images.")
    return rasters, matcher.problems


def _raster(path: Path) -> _Raster:
    header = read_header(path)
    grid = header.grid
    if grid is None:
        found = "an image rotated by its orientation tag" if header.orientation != 1 else "none that can be read"
        do = "Add them: gdal_edit.py -a_srs EPSG:… -a_ullr LEFT TOP RIGHT BOTTOM."
        raise Refused("a GeoTIFF with a coordinate reference system and a position", found, do)
    return _Raster(path, header, grid, crs_name(grid.crs) or grid.crs if grid.crs else _crs_without_code(path))


def _crs_without_code(path: Path) -> str:
    """Read a system without a code as WKT, using only GDAL's GeoTIFF driver and no sidecar files."""
    rasterio = need("rasterio", "geo", path)
    with (
        rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR", GDAL_PAM_ENABLED="NO", GDAL_HTTP_MAX_RETRY="0"),
        rasterio.open(str(path.resolve()), driver="GTiff") as file,
    ):
        if not file.crs:
            raise Refused("a coordinate reference system", "none", "Add it: gdal_edit.py -a_srs EPSG:….")
        return str(file.crs.to_wkt())


# Overlay -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Transformed:
    """The areas of a file in another coordinate reference system; bounds are NaN if an area cannot be transformed."""

    areas: NDArray[np.object_]
    bounds: NDArray[np.float64]
    transform: Callable[[Points], Points]
    accuracy: Callable[[], str]


class _Overlay:
    """Find the features on each raster, and those on none."""

    def __init__(self, vectors: Sequence[Features]) -> None:
        self.vectors = vectors
        self.on_raster = [np.zeros(len(vector.areas), bool) for vector in vectors]
        self.used: set[tuple[int, str]] = set()
        self.files: dict[Path, Path] = {}
        self._cache: dict[tuple[int, str], _Transformed] = {}

    def shapes(self, raster: _Raster, class_of: Callable[[Mapping[str, Any]], str]) -> list[NamedRegion]:
        """Return the features on a raster, in pixels."""
        shapes: list[NamedRegion] = []
        for index, vector in enumerate(self.vectors):
            numbers = np.flatnonzero(_overlaps(self._transformed(index, raster.crs).bounds, raster.extent))
            for number, polygons in self._polygons(index, numbers, raster):
                self.on_raster[index][number] = True
                self.used.add((index, raster.crs))
                self.files.setdefault(raster.path, vector.path)
                name = class_of(vector.properties[number])
                shapes += [(name, polygon, 0) for polygon in polygons]
        return shapes

    def _transformed(self, index: int, crs: str) -> _Transformed:
        key = (index, crs)
        if key not in self._cache:
            vector = self.vectors[index]
            shapely = need("shapely", "geo", vector.path)
            transform, accuracy = transformer(vector.crs, crs, vector.path)
            areas = shapely.transform(vector.areas, transform)
            bounds = shapely.bounds(areas).reshape(-1, 4)
            points, owner = shapely.get_coordinates(areas, return_index=True)
            bounds[owner[~np.isfinite(points).all(axis=1)]] = np.nan
            self._cache[key] = _Transformed(areas, bounds, transform, accuracy)
        return self._cache[key]

    def _polygons(self, index: int, numbers: NDArray[np.int64], raster: _Raster) -> list[tuple[int, list[Polygon]]]:
        """Convert areas to pixels, where (0, 0) is the corner of the first pixel, and drop those outside the raster."""
        vector, transformed = self.vectors[index], self._transformed(index, raster.crs)
        shapely = need("shapely", "geo", vector.path)

        def to_pixels(world: Points) -> Points:
            return np.asarray(raster.grid.to_pixels(world))[:, ::-1] + 0.5

        areas = shapely.transform(transformed.areas[numbers], to_pixels)
        bounds = shapely.bounds(areas).reshape(-1, 4)
        if vector.crs != raster.crs and len(areas):
            pixels = np.maximum(bounds[:, 2] - bounds[:, 0], bounds[:, 3] - bounds[:, 1])
            original = vector.areas[numbers]
            sides = shapely.bounds(original)
            length = np.maximum(sides[:, 2] - sides[:, 0], sides[:, 3] - sides[:, 1])
            divided = shapely.segmentize(original, length / np.maximum(pixels / _MAX_EDGE, 1))
            areas = shapely.transform(divided, lambda points: to_pixels(transformed.transform(points)))
        height, width = raster.header.size
        inside = _overlaps(bounds, np.array([0, 0, width, height]))
        size = raster.header.size
        found = zip(numbers[inside].tolist(), areas[inside], strict=True)
        return [(number, [p for p in _parts(area) if _is_visible(p, size)]) for number, area in found]

    def covers(self, raster: _Raster) -> bool:
        """Return whether a raster is annotated: in the extent of the features of a file, or with a file of its name."""
        for index, vector in enumerate(self.vectors):
            bounds = self._transformed(index, raster.crs).bounds
            bounds = bounds[np.isfinite(bounds).all(axis=1)]
            extent = np.concatenate([bounds[:, :2].min(0), bounds[:, 2:].max(0)])[np.newaxis] if len(bounds) else bounds
            if vector.path.stem == raster.path.stem or _overlaps(extent, raster.extent).any():
                return True
        return False

    def file_of(self, raster: _Raster) -> Path:
        """Return the vector file for messages about a raster's mask."""
        same_name = (vector.path for vector in self.vectors if vector.path.stem == raster.path.stem)
        return self.files.get(raster.path) or next(same_name, self.vectors[0].path)

    def notices(self, root: Path) -> list[str]:
        """Describe features outside all rasters, features without area, and transformations."""
        notices = []
        for vector, on_raster in zip(self.vectors, self.on_raster, strict=True):
            name = short(vector.path, root)
            outside = int((~on_raster).sum())
            if outside:
                notices.append(f"{outside} of {len(on_raster)} features are on no raster and are left out ({name})")
            if vector.without_area:
                notices.append(
                    f"{vector.without_area} features are points, lines or empty and cover no pixels ({name})"
                )
        transformations = {
            f"features are transformed from {self.vectors[index].crs} to {crs[:40]}{self._cache[index, crs].accuracy()}"
            for index, crs in self.used
            if self.vectors[index].crs != crs
        }
        return notices + sorted(transformations)


def _overlaps(bounds: NDArray[np.float64], extent: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which boxes (N, 4) overlap a box (4,), all as minimum x, minimum y, maximum x, maximum y."""
    left, low, right, high = bounds.T
    return (left < extent[2]) & (low < extent[3]) & (right > extent[0]) & (high > extent[1])


def _parts(area: Any) -> list[Polygon]:
    # Segmentizing a multipolygon with one part returns a polygon.
    rings = ((part.exterior, *part.interiors) for part in getattr(area, "geoms", (area,)))
    return [Polygon(tuple(np.asarray(ring.coords) for ring in part)) for part in rings]


def _is_visible(part: Polygon, size: tuple[int, int]) -> bool:
    """Return whether the box of an area is within a raster of (H, W), or has pixel centres in common with it."""
    points = part.rings[0]
    if not len(points):
        return False
    side = np.array(size[::-1])
    low, high = points.min(0), points.max(0)
    first, last = (np.clip(np.ceil(corner - 0.5), 0, side) for corner in (low, high))
    return bool((last > first).all() or ((low >= 0).all() and (high <= side).all()))


def _list_annotated(names: Sequence[str]) -> str:
    """Return how to select the rasters that are annotated."""
    if len(names) > _SHOWN:
        return "List the annotated rasters in data.images, or skip the others: --skip-bad (data.skip_bad: true)."
    value = names[0] if len(names) == 1 else f"[{', '.join(names)}]"
    return f"List the annotated rasters: --set 'data.images={value}'."


def _no_overlap(dataset: DatasetRoot, rasters: Sequence[_Raster], vectors: Sequence[Features]) -> DataError:
    count = sum(len(vector.areas) for vector in vectors)
    sources = ", ".join(sorted({vector.crs for vector in vectors}))
    targets = ", ".join(sorted({raster.crs[:40] for raster in rasters}))
    return DataError(
        dataset.root,
        expected="features on the rasters",
        found=f"none of {count} features in {sources} on {len(rasters)} rasters in {targets}",
        do="Check that the `crs` of the features is correct, and that they belong to these rasters.",
    )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")


# Classes -------------------------------------------------------------------------------------------------------------


def _classes(
    dataset: DatasetRoot, vectors: Sequence[Features]
) -> tuple[Callable[[Mapping[str, Any]], str], list[str], str]:
    """Determine the class of features: a function of their properties, all class names, and a notice."""
    rows = [properties for vector in vectors for properties in vector.properties]
    requested = dataset.config.attribute
    counts: Counter[str] = Counter(key for row in rows for key, value in row.items() if _text(value))
    common = [key for key, count in counts.items() if count == len(rows)]
    if requested is not None and requested not in common:
        found = f"{counts[requested]} of {len(rows)}" if requested in counts else "none"
        do = f"Choose one that all have: {', '.join(sorted(common)[:8]) or 'there are none'}."
        raise MaskError("data.attribute", expected=f"features with the property {requested!r}", found=found, do=do)
    by_name = {key.lower(): key for key in common}
    key = requested or next((by_name[name] for name in _ATTRIBUTES if name in by_name), None)
    if key is None:
        _require_complete(vectors[0].path if len(vectors) == 1 else dataset.root, counts, len(rows))
    else:
        names = sorted({_text(row[key]) for row in rows})
        if {name.lower() for name in names} <= _YES:
            return lambda row: key, [key], f"the property {key!r} is {names[0]!r} in all features: it is the only class"
        if len(names) <= _MAX_CLASSES:
            notice = (
                f"the classes are the values of the property {key!r} ({_some(names)}); data.attribute selects another"
            )
            return lambda row: _text(row[key]), names, notice
    yes = [key for key in common if all(_text(row[key]).lower() in _YES for row in rows)]
    only = yes[0] if len(yes) == 1 else vectors[0].path.stem if len(vectors) == 1 else "feature"
    notice = f"no property contains class names: all features are {only!r}; data.attribute selects a property"
    return lambda row: only, [only], notice


def _require_complete(path: Path, counts: Counter[str], total: int) -> None:
    """Refuse a class property that most features have, but not all."""
    for key, count in sorted(counts.items()):
        if key.lower() in _ATTRIBUTES and total / 2 <= count < total:
            expected = f"a class for every feature in the property {key!r}"
            do = f"Add {key!r} to the others, or remove them; or choose another property: data.attribute."
            raise MaskError(path, expected=expected, found=f"{total - count} of {total} without", do=do)


def _text(value: Any) -> str:
    """Convert a property to a class name; empty if it cannot be one."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():  # tables with missing values store 3 as 3.0
        return str(int(value))
    return str(value).strip() if isinstance(value, str | int) else ""


FORMAT = Format("geojson", "GeoTIFFs with features in GeoJSON", detect, read)
