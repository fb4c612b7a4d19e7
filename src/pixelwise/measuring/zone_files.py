"""Read zones, such as districts: the polygons of a GeoPackage, a Shapefile or a GeoJSON file."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import DataError
from pixelwise.formats.vector_features import read_features
from pixelwise.imageio.extras import need

# The first bytes of a file, not its name, decide what reads it: GDAL has drivers that follow addresses in files of any name.
_STARTS = {".gpkg": b"SQLite format 3\x00", ".shp": b"\x00\x00\x27\x0a"}
_JSON = (".geojson", ".json")


@dataclass(frozen=True, eq=False)
class Zone:
    """A polygon or several, with a name.

    Args:
        number: 1…N in the order of the file.
        name: unique in the file.
        properties: its attributes.
        geometry: a shapely geometry that is valid and consists of polygons.
    """

    number: int
    name: str
    properties: Mapping[str, Any]
    geometry: Any


@dataclass(frozen=True, eq=False)
class Zones:
    """The zones of a file.

    Args:
        path: the file.
        crs: its coordinate reference system; None if it names none.
        zones: in the order of the file.
        notices: what was corrected or left out.
    """

    path: Path
    crs: str | None
    zones: tuple[Zone, ...]
    notices: tuple[str, ...] = ()


def read_zones(path: str | Path) -> Zones:
    """Read the zones of a file.

    Zones are named by the attribute `name`, otherwise by the first attribute with a different text for each, otherwise by their numbers.

    Raises:
        DataError: no such file, another format, several layers with areas, or no areas.
        ImageError: pyogrio or shapely is not installed.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if not path.is_file() or suffix not in (*_STARTS, *_JSON):
        found = f"a file of type {suffix or 'unknown'}" if path.is_file() else "nothing"
        do = "Convert it to GeoPackage." if path.is_file() else "Check the path."
        raise DataError(path, expected="a GeoPackage, Shapefile or GeoJSON file", found=found, do=do)
    crs, geometries, properties = _read_json(path) if suffix in _JSON else _read_layer(path)
    shapely = need("shapely", "geo", path)
    whole = np.isin(shapely.get_type_id(geometries), (3, 6)) & ~shapely.is_empty(geometries)
    chosen = np.flatnonzero(whole).tolist()
    if not chosen:
        raise DataError(path, expected="polygons", found="none", do="Choose a file with areas.")
    broken = [i for i in chosen if not shapely.is_valid(geometries[i])]
    for i in broken:
        geometries[i] = _repaired(shapely, geometries[i])
    names = _names([properties[i] for i in chosen])
    zones = tuple(
        Zone(k, name, properties[i], geometries[i]) for k, (i, name) in enumerate(zip(chosen, names, strict=True), 1)
    )
    notices = []
    if broken:
        listed = ", ".join(zone.name for zone, i in zip(zones, chosen, strict=True) if i in broken[:5])
        more = f" and {len(broken) - 5} more" if len(broken) > 5 else ""
        notices.append(f"{path}: repaired zones whose borders cross: {listed}{more}")
    if len(chosen) < len(geometries):
        notices.append(f"{path}: {len(geometries) - len(chosen)} features without an area were left out")
    return Zones(path, crs, zones, tuple(notices))


_Read = tuple[str | None, NDArray[np.object_], Sequence[dict[str, Any]]]


def _read_json(path: Path) -> _Read:
    """Read a GeoJSON file."""
    try:
        document = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        found = " ".join(str(error).split())[:120]
        raise DataError(path, expected="GeoJSON", found=found, do="Export it again.") from error
    plain = document if isinstance(document, dict) else {}
    if plain.get("type") == "Feature":
        plain = {"features": [plain]} | ({"crs": plain["crs"]} if "crs" in plain else {})
    if not isinstance(plain.get("features"), list):
        raise DataError(path, expected="a feature collection, as in RFC 7946", found="none", do="Export it again.")
    features = read_features(path, plain)
    # Those without an area are counted with the others.
    areas = np.concatenate([features.areas, np.full(features.without_area, None, object)])
    return features.crs, areas, [*features.properties, *({} for _ in range(features.without_area))]


def _read_layer(path: Path) -> _Read:
    """Read the layer of a GeoPackage or a Shapefile that has areas."""
    with path.open("rb") as file:
        start = file.read(16)
    if not start.startswith(_STARTS[path.suffix.lower()]):
        raise DataError(path, expected="a GeoPackage or a Shapefile", found="another format", do="Export it again.")
    pyogrio, shapely = need("pyogrio", "geo", path), need("shapely", "geo", path)
    try:
        with warnings.catch_warnings(action="ignore"):  # GDAL warns of what is then raised, and of harmless differences
            return _areas_of(path)
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError, shapely.errors.ShapelyError) as error:
        found = " ".join(str(error).split())[:160]
        raise DataError(path, expected="a readable file", found=found, do="Export it again.") from error


def _areas_of(path: Path) -> _Read:
    pyogrio, shapely = need("pyogrio", "geo", path), need("shapely", "geo", path)
    layers = [str(name) for name, kind in pyogrio.list_layers(path) if "Polygon" in str(kind) or kind == "Unknown"]
    if len(layers) != 1:
        do = "Save one layer as a file of its own."
        raise DataError(path, expected="one layer with areas", found=", ".join(layers[:8]) or "none", do=do)
    meta, _, geometries, fields = need("pyogrio.raw", "geo", path).read(path, layer=layers[0], force_2d=True)
    names = [str(name) for name in meta["fields"]]
    rows = [
        {name: _plain(values[i]) for name, values in zip(names, fields, strict=True)} for i in range(len(geometries))
    ]
    return meta["crs"], np.asarray(shapely.from_wkb(geometries), object), rows


def _plain(value: Any) -> Any:
    """Return an attribute as text or number, as for JSON."""
    value = value.item() if isinstance(value, np.generic) else value
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def _repaired(shapely: Any, geometry: Any) -> Any:
    """Return the polygons of an invalid geometry: within each, what an odd number of rings surround; those that overlap are united."""
    parts = shapely.get_parts(shapely.make_valid(shapely.get_parts(geometry)))
    parts = shapely.get_parts(parts)  # a collection may hold multipolygons
    return shapely.union_all(parts[shapely.get_type_id(parts) == 3])


def _names(properties: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a different name for each zone."""
    keys = sorted({key: None for each in properties for key in each}, key=lambda key: key.lower() != "name")
    for key in keys:
        values = [each.get(key) for each in properties]
        texts = [str(value).strip() for value in values if isinstance(value, str) and value.strip()]
        if len(set(texts)) == len(properties):
            return texts
    return [str(number) for number in range(1, len(properties) + 1)]
