"""The table of regions, and their plain form."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

from pixelwise.types import Region

_AXES = ("slice", "row", "column")


def regions_table(regions: Sequence[Region]) -> str:
    """Return a row per region as CSV: one column per measurement and unit, so that a column can be summed.

    Centroids and boxes are in pixels, the end of a box being exclusive; x, y and z are world coordinates.
    """
    ndim = max((len(each.centroid) for each in regions), default=2)
    axes = _AXES[-ndim:]
    positions = "xyz"[: max((len(each.position or ()) for each in regions), default=0)]
    sizes = list(dict.fromkeys((name, m.unit) for each in regions for name, m in each.measurements.items()))
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(
        [
            *("image", "region", "class", "pixels", "holes", "touches_border", "confidence"),
            *(f"centroid_{axis}" for axis in axes),
            *positions,
            *(f"{end}_{axis}" for end in ("first", "end") for axis in axes),
            *(f"{name}_{unit}" for name, unit in sizes),
        ]
    )
    for each in regions:
        missing = [""] * (ndim - len(each.centroid))
        world = [f"{value:.9g}" for value in each.position or ()]
        rows.writerow(
            [
                *(each.image, each.number, each.class_name, each.pixels),
                "" if each.holes is None else each.holes,
                "yes" if each.touches_border else "no",
                "" if each.confidence is None else f"{each.confidence:.4f}",
                *(*missing, *(f"{value:.6g}" for value in each.centroid)),
                *(*world, *[""] * (len(positions) - len(world))),
                *(value for end in (each.window.start, each.window.stop) for value in (*missing, *end)),
                *(_value(each, name, unit) for name, unit in sizes),
            ]
        )
    return text.getvalue()


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


def _value(region: Region, name: str, unit: str) -> str:
    found = region.measurements.get(name)
    return "" if found is None or found.unit != unit else f"{found.value:.6g}"
