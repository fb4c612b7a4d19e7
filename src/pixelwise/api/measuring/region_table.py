"""The table of regions, and their plain form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pixelwise.api.measuring.tables import Column
from pixelwise.types import Region

_AXES = ("slice", "row", "column")


def region_columns(regions: Sequence[Region]) -> list[Column]:
    """Return a row per region: one column per measurement and unit, so that a column can be summed.

    Centroids and boxes are in pixels, the end of a box being exclusive; x, y and z are world coordinates.
    """
    ndim = max((len(each.centroid) for each in regions), default=2)
    positions = max((len(each.position or ()) for each in regions), default=0)
    sizes = list(dict.fromkeys((name, m.unit) for each in regions for name, m in each.measurements.items()))
    return [
        Column("image", str, [each.image for each in regions]),
        Column("region", int, [each.number for each in regions]),
        Column("class", str, [each.class_name for each in regions]),
        Column("pixels", int, [each.pixels for each in regions]),
        Column("holes", int, [each.holes for each in regions]),
        Column("touches_border", str, ["yes" if each.touches_border else "no" for each in regions]),
        Column("confidence", float, [each.confidence for each in regions], ".4f"),
        *(
            _column(f"centroid_{axis}", float, [each.centroid for each in regions], axis, ".6g")
            for axis in _AXES[-ndim:]
        ),
        *(
            Column(name, float, [_at(each.position or (), axis) for each in regions], ".9g")
            for axis, name in enumerate("xyz"[:positions])
        ),
        *(_column(f"first_{axis}", int, [each.window.start for each in regions], axis) for axis in _AXES[-ndim:]),
        *(_column(f"end_{axis}", int, [each.window.stop for each in regions], axis) for axis in _AXES[-ndim:]),
        *(
            Column(f"{name}_{unit}", float, [_value(each, name, unit) for each in regions], ".6g")
            for name, unit in sizes
        ),
    ]


def plain_regions(regions: Sequence[Region]) -> dict[str, Any]:
    """Return the plain form of regions: `regions`, and `estimators` by the name of a size, which are the same for all."""
    named = {name: m.estimator for each in regions for name, m in each.measurements.items()}
    return {"regions": [_plain(each) for each in regions], "estimators": named}


def _plain(region: Region) -> dict[str, Any]:
    keys = ("image", "number", "class_name", "pixels", "centroid", "position", "touches_border", "holes", "confidence")
    box = {"start": region.window.start, "stop": region.window.stop}
    sizes = {}
    for name, found in region.measurements.items():
        bounds = {} if found.low is None else {"low": found.low, "high": found.high}
        sizes[name] = {"value": found.value, "unit": found.unit, **bounds} | (
            {"note": found.note} if found.note else {}
        )
    return {key: getattr(region, key) for key in keys} | box | {"sizes": sizes}


def _column(
    name: str, kind: type[int] | type[float], places: Sequence[Sequence[float]], axis: str, form: str = ""
) -> Column:
    """Return the coordinates along an axis of "slice", "row" and "column"; images have no slice."""
    place = _AXES.index(axis) - len(_AXES)
    return Column(name, kind, [each[place] if len(each) >= -place else None for each in places], form)


def _at(values: Sequence[float], axis: int) -> float | None:
    return values[axis] if axis < len(values) else None


def _value(region: Region, name: str, unit: str) -> float | None:
    found = region.measurements.get(name)
    return None if found is None or found.unit != unit else found.value
