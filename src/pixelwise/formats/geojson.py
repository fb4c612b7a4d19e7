"""GeoTIFFs with areas in GeoJSON: footprints of buildings, fields, whatever was drawn over the rasters.

Comes in: a place. Goes out: a drawing per raster. Features are found on rasters by where they lie, carried into the raster's
coordinate reference system, and painted in the order of the file. Pixels at the raster's nodata value count in nothing.

The class stands in the property that `data.attribute` names, else in the first of `_ATTRIBUTES` that every feature has (where only
half or more have it, it is asked); else all are one class, named after a property that says "yes" in all of them (`building=yes`), or after the file.

A raster on which no feature lies holds nothing but background if it lies among the features, has a vector file of its own name,
or is named by `data.images`. Else nobody says that it was looked at, and it is asked.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import DataError, ImageError, MaskError
from pixelwise.formats.base import Format, ReadResult, drawn_labels, load_json, mentions, shape_name
from pixelwise.formats.dataset_root import DatasetRoot, make_layout, split_of_folder
from pixelwise.formats.geo_features import Feature, Features, is_collection, read_features
from pixelwise.formats.projection import carrier, plain_name
from pixelwise.formats.records import Problem, Record, Window, short
from pixelwise.formats.shapes import Drawing, Polygon, Region, Several, Shape
from pixelwise.grid import Grid
from pixelwise.imageio.extras import need
from pixelwise.imageio.images import read_header
from pixelwise.imageio.raster import Header, Refused
from pixelwise.imageio.safe_reading import reading

_RASTERS = (".tif", ".tiff")
_ATTRIBUTES = (
    "class",
    "class_name",
    "classname",
    "label",
    "category",
    "type",
    "landcover",
    "land_cover",
    "landuse",
    "crop",
)
_YES = {"yes", "true", "1"}
_MOST_CLASSES = 255
_LOOKED_INTO = 3
_LONG_EDGE = 64.0  # pixels: longer ones are cut, since a straight line in one system is a curve in another
_BLOCKS = 3  # along each side, where one raster has to give all parts
_SHOWN = 4


@dataclass(frozen=True, eq=False)
class _Raster:
    path: Path
    header: Header
    grid: Grid
    crs: str

    @property
    def size(self) -> tuple[int, int]:
        return self.header.size

    def world_box(self) -> NDArray[np.float64]:
        """Give the least and the greatest x and y of its corners: (2, 2)."""
        height, width = self.size
        corners = np.array([(0, 0), (0, width), (height, 0), (height, width)]) - 0.5
        world = self.grid.to_world(corners)
        return np.stack([world.min(0), world.max(0)])


def detect(place: DatasetRoot) -> str | None:
    """Recognise a feature collection beside GeoTIFFs."""
    if not any(path.suffix.lower() in _RASTERS for path in place.files):
        return None
    paths = [*place.annotations(".geojson"), *place.annotations(".json")[:_LOOKED_INTO]]
    found = next((path for path in paths if mentions(path, "FeatureCollection")), None)
    return None if found is None else f"{short(found, place.root)} holds features"


def read(place: DatasetRoot) -> ReadResult:
    """Read every vector file and the header of every raster, and paint the one onto the other.

    Raises:
        MaskError: features that cannot be understood, or whose place is not known.
        ImageError: a raster whose place is not known; with `data.skip_bad` it becomes a problem.
        DataError: no feature lies on a raster.

    """
    paths = [*place.annotations(".geojson"), *place.annotations(".json")]
    vectors = [read_features(path, plain) for path in paths if is_collection(plain := load_json(path))]
    if not vectors:
        raise DataError(place.root, expected="GeoJSON feature collections", found="none", do="Check data.annotations.")
    rasters, problems = _rasters(place)
    name, classes, told = _classes(place, vectors)
    labels, unlabelled = drawn_labels(place, classes)
    laid = _Laid(vectors)
    shapes = {
        raster.path: [Shape(shape_name(place, name(one)), area) for one, area in laid.on(raster)] for raster in rasters
    }
    empty = [raster for raster in rasters if not shapes[raster.path]]
    if len(empty) == len(rasters):
        raise _nowhere(place, rasters, vectors)
    strange = [raster for raster in empty if not _looked_at(place, raster, laid)]
    kept = [raster for raster in rasters if raster not in strange]
    asked = _asked(place, strange, kept)
    notices = [told, *laid.told(place.root)]
    if asked:
        notices.append(f"{len(asked)} of {len(rasters)} rasters lie far from all features: {asked[0].do}".rstrip("."))
    if len(empty) > len(strange):
        many = [short(raster.path, place.root) for raster in empty if raster not in strange]
        notices.append(f"no feature lies on {_few(many)}: {len(many)} of {len(rasters)} rasters hold background only")
    records, divided = _records(place, kept, shapes, laid, unlabelled)
    return ReadResult(make_layout("rasters with features", records, [*problems, *asked], [*notices, *divided]), labels)


def _records(
    place: DatasetRoot,
    rasters: Sequence[_Raster],
    shapes: Mapping[Path, list[Shape]],
    laid: _Laid,
    unlabelled: str | None,
) -> tuple[dict[str, list[Record]], list[str]]:
    """Make a record of every raster, or of its blocks where there is but one; and say so."""
    records: dict[str, list[Record]] = defaultdict(list)
    for raster in rasters:
        file, painted = laid.file_of(raster), tuple(shapes[raster.path])
        drawing = Drawing(file, painted, raster.size, unlabelled, place.config.overlap or "file")
        split = split_of_folder(raster.path, place.root) or "pool"
        id_ = place.images.id_of(raster.path)
        records[split].append(Record(id_, raster.path, file, source=drawing, nodata=raster.header.nodata))
    if len(rasters) > 1 or "pool" not in records:
        return records, []
    records["pool"] = _blocks(records["pool"][0], rasters[0].size)
    told = f"there is one raster only, so it is divided into {_BLOCKS}×{_BLOCKS} blocks"
    return records, [f"{told}: scores on a part of it say little of other places"]


def _rasters(place: DatasetRoot) -> tuple[list[_Raster], list[Problem]]:
    """Read the headers of all rasters, which must say where they lie."""
    rasters: list[_Raster] = []
    problems = []
    for path in place.images.paths:
        if path.suffix.lower() not in _RASTERS:
            problems.append(Problem(short(path, place.root), "image that is no GeoTIFF"))
            continue
        try:
            with reading(path, ImageError, "GeoTIFF"):
                rasters.append(_raster(path))
        except DataError as error:
            if not place.config.skip_bad:
                raise
            problems.append(Problem(error.where, f"expected {error.expected}, found {error.found}"))
    if not rasters:
        raise DataError(place.root, expected="GeoTIFFs that say where they lie", found="none", do="Check data.images.")
    return rasters, problems


def _raster(path: Path) -> _Raster:
    header = read_header(path)
    grid = header.grid
    if grid is None:
        found = "an image turned by its orientation tag" if header.orientation != 1 else "none that can be read"
        do = "Write its system and place into it: gdal_edit.py -a_srs EPSG:… -a_ullr LEFT TOP RIGHT BOTTOM."
        raise Refused("a GeoTIFF with a coordinate reference system and a place", found, do)
    return _Raster(path, header, grid, plain_name(grid.crs) or grid.crs if grid.crs else _own_system(path))


def _own_system(path: Path) -> str:
    """Read a system that has no code, as WKT, through GDAL: its GeoTIFF driver alone, and no file beside."""
    rasterio = need("rasterio", "geo", path)
    with (
        rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR", GDAL_PAM_ENABLED="NO", GDAL_HTTP_MAX_RETRY="0"),
        rasterio.open(str(path.resolve()), driver="GTiff") as file,
    ):
        if not file.crs:
            do = "Write it into the file: gdal_edit.py -a_srs EPSG:…."
            raise Refused("a coordinate reference system", "none", do)
        return str(file.crs.to_wkt())


# Where features lie ----------------------------------------------------------------------------------------------------


class _Laid:
    """Carry features onto rasters, and count those that lie on none.

    Args:
        vectors: the files.
    """

    def __init__(self, vectors: Sequence[Features]) -> None:
        self.vectors = vectors
        self.met = [np.zeros(len(one.areas), bool) for one in vectors]
        self.ways: dict[tuple[int, str], tuple[Callable[[Any], Any], Callable[[], str]]] = {}
        self.boxes: dict[tuple[int, str], NDArray[np.float64]] = {}
        self.used: set[tuple[int, str]] = set()
        self.files: dict[Path, Path] = {}

    def on(self, raster: _Raster) -> Iterable[tuple[Feature, Region]]:
        """Give the features that lie on a raster, each with its pixels."""
        low, high = raster.world_box()
        for place, vector in enumerate(self.vectors):
            boxes = self.box_of(place, raster.crs)
            near = (boxes[:, 0] < high).all(1) & (boxes[:, 1] > low).all(1)
            for number in np.flatnonzero(near).tolist():
                area = vector.areas[number]
                rings = [tuple(self._pixels(ring, place, raster) for ring in polygon) for polygon in area.polygons]
                points = np.concatenate([ring for polygon in rings for ring in polygon])
                if (points.max(0) <= 0).any() or (points.min(0) >= raster.size[::-1]).any():
                    continue
                self.met[place][number] = True
                self.used.add((place, raster.crs))
                self.files.setdefault(raster.path, vector.path)
                polygons = tuple(Polygon(polygon) for polygon in rings)
                yield area, polygons[0] if len(polygons) == 1 else Several(polygons)

    def box_of(self, place: int, crs: str) -> NDArray[np.float64]:
        """Give the boxes of a file's features in a system: (N, 2, 2), the least x and y first; none where out of its reach."""
        key = (place, crs)
        if key not in self.boxes:
            vector = self.vectors[place]
            self.ways[key] = carrier(vector.crs, crs, vector.path)
            rings = [np.concatenate(list(area.rings())) for area in vector.areas]
            world = self.ways[key][0](np.concatenate(rings)) if rings else np.zeros((0, 2))
            world = np.where(np.isfinite(world), world, np.nan)
            starts = np.cumsum([0, *map(len, rings)])[:-1]
            boxes = np.zeros((0, 2, 2))
            if rings:
                boxes = np.stack([np.minimum.reduceat(world, starts), np.maximum.reduceat(world, starts)], axis=1)
            self.boxes[key] = boxes
        return self.boxes[key]

    def _pixels(self, ring: NDArray[np.float64], place: int, raster: _Raster) -> NDArray[np.float64]:
        """Give a ring in pixels x, y, (0, 0) being the corner of the first; long edges are cut before they are carried over."""
        carry = self.ways[place, raster.crs][0]

        def pixels(points: NDArray[np.float64]) -> NDArray[np.float64]:
            return np.asarray(raster.grid.to_pixels(carry(points)))[:, ::-1] + 0.5

        found = pixels(ring)
        if self.vectors[place].crs == raster.crs:
            return found
        many = np.ceil(np.linalg.norm(np.diff(found, axis=0), axis=1) / _LONG_EDGE).clip(1, 1000).astype(int)
        if (many == 1).all():
            return found
        edge = np.repeat(np.arange(len(many)), many)
        share = (np.arange(len(edge)) - np.repeat(np.cumsum(many) - many, many)) / many[edge]
        return pixels(np.vstack([ring[edge] + share[:, np.newaxis] * (ring[edge + 1] - ring[edge]), ring[-1:]]))

    def surround(self, raster: _Raster) -> bool:
        """Say whether a raster meets the box around all features of a file."""
        low, high = raster.world_box()
        for place in range(len(self.vectors)):
            boxes = self.box_of(place, raster.crs)
            boxes = boxes[np.isfinite(boxes).all((1, 2))]
            if len(boxes) and (boxes[:, 0].min(0) < high).all() and (boxes[:, 1].max(0) > low).all():
                return True
        return False

    def file_of(self, raster: _Raster) -> Path:
        """Give the vector file that messages about a raster's mask name."""
        own = next((one.path for one in self.vectors if one.path.stem == raster.path.stem), self.vectors[0].path)
        return self.files.get(raster.path, own)

    def told(self, root: Path) -> list[str]:
        """Say what lies nowhere, what has no area, and what was carried from one system to another."""
        told = []
        for vector, met in zip(self.vectors, self.met, strict=True):
            name = short(vector.path, root)
            if not met.all():
                told.append(f"{int((~met).sum())} of {len(met)} features lie on no raster and are left out ({name})")
            if vector.without_area:
                told.append(f"{vector.without_area} features are points, lines or empty and cover no pixels ({name})")
        carried = {
            f"features in {self.vectors[place].crs} are carried into {crs[:40]}{self.ways[place, crs][1]()}"
            for place, crs in self.used
            if self.vectors[place].crs != crs
        }
        return told + sorted(carried)


def _looked_at(place: DatasetRoot, raster: _Raster, laid: _Laid) -> bool:
    """Say whether a raster without features was labelled all the same."""
    own = any(vector.path.stem == raster.path.stem for vector in laid.vectors)
    return place.config.images is not None or own or laid.surround(raster)


def _asked(place: DatasetRoot, strange: Sequence[_Raster], others: Sequence[_Raster]) -> list[Problem]:
    names = [short(raster.path, place.root) for raster in others]
    value = names[0] if len(names) == 1 else f"[{', '.join(names)}]"
    do = (
        f"Name those that are labelled: --set 'data.images={value}'."
        if len(names) <= _SHOWN
        else (
            "Name those that are labelled with data.images, or leave the others out with --skip-bad (data.skip_bad: true)."
        )
    )
    return [Problem(short(raster.path, place.root), "raster without a feature anywhere near", do) for raster in strange]


def _nowhere(place: DatasetRoot, rasters: Sequence[_Raster], vectors: Sequence[Features]) -> DataError:
    many = sum(len(vector.areas) for vector in vectors)
    systems = ", ".join(sorted({vector.crs for vector in vectors}))
    others = ", ".join(sorted({raster.crs[:40] for raster in rasters}))
    return DataError(
        place.root,
        expected="features that lie on the rasters",
        found=f"none of {many} features in {systems} on {len(rasters)} rasters in {others}",
        do="Check that the `crs` of the features is the one they were drawn in, and that they belong to these rasters.",
    )


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")


def _blocks(record: Record, size: tuple[int, int]) -> list[Record]:
    """Divide a raster into blocks, each a group of its own."""
    rows, columns = (np.linspace(0, side, _BLOCKS + 1).astype(int).tolist() for side in size)
    windows: list[Window] = [
        (top, left, bottom - top, right - left)
        for top, bottom in pairwise(rows)
        for left, right in pairwise(columns)
        if bottom > top and right > left
    ]
    return [
        replace(record, id=f"{record.id}/{k}", group=f"{record.id}/{k}", window=window)
        for k, window in enumerate(windows)
    ]


# What features are -----------------------------------------------------------------------------------------------------


def _classes(place: DatasetRoot, vectors: Sequence[Features]) -> tuple[Callable[[Feature], str], list[str], str]:
    """Find out what names the class of a feature: a function, all names, and what was decided, in words."""
    features = [feature for vector in vectors for feature in vector.areas]
    wanted = place.config.attribute
    shared: Counter[str] = Counter(key for one in features for key, value in one.properties.items() if _text(value))
    everywhere = [key for key, many in shared.items() if many == len(features)]
    if wanted is not None and wanted not in everywhere:
        found = f"{shared[wanted]} of {len(features)}" if wanted in shared else "none"
        do = f"Choose one that all have: {', '.join(sorted(everywhere)[:8]) or 'there is none'}."
        raise MaskError("data.attribute", expected=f"features with the property {wanted!r}", found=found, do=do)
    by_name = {key.lower(): key for key in everywhere}
    key = wanted or next((by_name[name] for name in _ATTRIBUTES if name in by_name), None)
    if key is None:
        where = vectors[0].path if len(vectors) == 1 else place.root
        _require_whole(where, shared, len(features))
    else:
        names = sorted({_text(one.properties[key]) for one in features})
        if {name.lower() for name in names} <= _YES:
            return lambda one: key, [key], f"the property {key!r} says {names[0]!r} everywhere: it names the one class"
        if len(names) <= _MOST_CLASSES:
            told = f"the property {key!r} names the classes ({_few(names)}); data.attribute names another"
            return lambda one: _text(one.properties[key]), names, told
    yes = [key for key in everywhere if all(_text(one.properties[key]).lower() in _YES for one in features)]
    only = yes[0] if len(yes) == 1 else vectors[0].path.stem if len(vectors) == 1 else "feature"
    told = f"no property names the classes: all features are {only!r}; data.attribute names one that does"
    return lambda one: only, [only], told


def _require_whole(path: Path, shared: Counter[str], total: int) -> None:
    """Raise where a property names the class of most features and not of all: they are not one class.

    Raises:
        MaskError: it does.
    """
    for key, many in sorted(shared.items()):
        if key.lower() in _ATTRIBUTES and total / 2 <= many < total:
            expected = f"a class for every feature, as its property {key!r}"
            do = f"Give the others a {key!r}, or take them out; or name another property by data.attribute."
            raise MaskError(path, expected=expected, found=f"{total - many} of {total} without", do=do)


def _text(value: Any) -> str:
    """Write a property as the name of a class; empty where it cannot be one."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():  # tables with a gap anywhere hold 3 as 3.0
        return str(int(value))
    return str(value).strip() if isinstance(value, str | int) else ""


FORMAT = Format("geojson", "GeoTIFFs with features in GeoJSON", detect, read)
