"""Areas of classes in zones over several images: `pixelwise measure --zones districts.gpkg`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.api.measuring.tables import Column
from pixelwise.evaluation.score_counts import listed
from pixelwise.grid import Grid
from pixelwise.imageio.extras import need
from pixelwise.measuring.zones import Zones, ZoneTotal

# A zone of which a smaller share is on the images is pointed out.
_WHOLE = 0.999
# Images that share more pixels than these along an axis overlap; scenes that were cut with rounding do not.
_OVERLAP = 2.0
_NAMED = 5


@dataclass(frozen=True)
class Footprint:
    """Where an image (H, W) lies."""

    id: str
    grid: Grid
    shape: tuple[int, ...]


def zone_columns(totals: Sequence[ZoneTotal]) -> list[Column]:
    """Return a row per zone and class."""
    return [
        Column("zone", str, [each.zone for each in totals]),
        Column("class", str, [each.class_name for each in totals]),
        Column("pixels", float, [each.pixels for each in totals], ".6g"),
        Column("share", float, [each.share for each in totals], ".6f"),
        Column("area", float, [each.size.value for each in totals], ".6g"),
        Column("unit", str, [each.size.unit for each in totals]),
        Column("ignored_pixels", float, [each.ignored for each in totals], ".6g"),
        Column("inside", float, [each.inside for each in totals], ".6f"),
        Column("estimator", str, [each.size.estimator for each in totals]),
    ]


def plain_zones(totals: Sequence[ZoneTotal]) -> dict[str, Any]:
    """Return the plain form of zones; empty if there are none."""
    return {"zones": [asdict(each) for each in totals]} if totals else {}


def zone_notices(zones: Zones, totals: Sequence[ZoneTotal], images: Sequence[Footprint]) -> list[str]:
    """Return what was corrected in the zones, which of them the images do not show in full, and whether images overlap."""
    notices = list(zones.notices)
    cut = dict.fromkeys(each.zone for each in totals if each.inside is not None and 0 < each.inside < _WHOLE)
    if cut:
        notices.append(
            f"only a part of these zones is on the images, see the column inside: {listed(list(cut), _NAMED)}"
        )
    seen = {each.zone for each in totals if each.pixels + each.ignored > 0}
    missing = list(dict.fromkeys(each.zone for each in totals if each.zone not in seen))
    if missing:
        notices.append(f"these zones are not on the images: {listed(missing, _NAMED)}")
    both = _overlapping(zones, images)
    if both is not None:
        notices.append(f"{both[0]} and {both[1]} overlap: what both show counts twice in the zones")
    return notices


def _overlapping(zones: Zones, images: Sequence[Footprint]) -> tuple[str, str] | None:
    """Return two images of one reference system that overlap; None if none do."""
    shapely = need("shapely", "geo", zones.path)
    by_system: dict[str | None, list[Footprint]] = {}
    for image in images:
        by_system.setdefault(image.grid.crs, []).append(image)
    for group in by_system.values():
        places = np.array([shapely.Polygon(_inner_corners(image)) for image in group], object)
        first, second = shapely.STRtree(places).query(places, predicate="intersects")
        pairs = np.flatnonzero(first < second)
        if len(pairs):
            return group[int(first[pairs[0]])].id, group[int(second[pairs[0]])].id
    return None


def _inner_corners(image: Footprint) -> NDArray[np.floating]:
    """Return the corners of an image in world coordinates, half of `_OVERLAP` inside of its border."""
    bottom, right = (max(size - 0.5 - _OVERLAP / 2, 0.0) for size in image.shape)
    edge = min(_OVERLAP / 2 - 0.5, bottom, right)
    return image.grid.to_world(np.array([(edge, edge), (edge, right), (bottom, right), (bottom, edge)]))
