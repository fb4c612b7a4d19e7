"""What `measure` finds, and the tables that it writes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pixelwise.api.measuring.region_table import plain_regions, region_columns
from pixelwise.api.measuring.tables import Column, csv_text, write_parquet
from pixelwise.api.measuring.totals import TotalsReport
from pixelwise.api.measuring.verdicts import verdict_columns
from pixelwise.api.measuring.zone_table import plain_zones, zone_columns
from pixelwise.measuring.rules import Verdict
from pixelwise.measuring.zones import ZoneTotal
from pixelwise.storage import write_atomic, write_json
from pixelwise.types import Measurement, Region

MEASUREMENTS = "measurements.json"
TABLES = ("classes", "regions", "zones", "verdicts")
FILES = (*(f"{name}.{suffix}" for name in TABLES for suffix in ("csv", "parquet")), MEASUREMENTS)


@dataclass(frozen=True)
class ClassSize:
    """The size of one class in one image.

    Args:
        image: the image file.
        name: of the class.
        pixels: number of predicted pixels.
        share: of the pixels of the image, 0…1.
        size: area or volume, with its interval; its note says what the interval covers, or why there is none.
        provenance: where the unit comes from, or why there is none.
    """

    image: str
    name: str
    pixels: int
    share: float
    size: Measurement
    provenance: str


@dataclass(frozen=True)
class Measured:
    """What `measure` found.

    Args:
        classes: one entry per image and class.
        regions: connected pixels of one class, image by image.
        zones: one entry per zone and class, summed over the images.
        totals: estimated totals over all images; None without labelled images.
        verdicts: of each image; None without rules.
        notices: what was assumed or left out.
    """

    classes: tuple[ClassSize, ...]
    regions: tuple[Region, ...] = ()
    zones: tuple[ZoneTotal, ...] = ()
    totals: TotalsReport | None = None
    verdicts: tuple[Verdict, ...] | None = None
    notices: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the plain form of `measurements.json`."""
        plain: dict[str, Any] = {"classes": [asdict(each) for each in self.classes], **plain_regions(self.regions)}
        plain |= plain_zones(self.zones)
        plain |= {} if self.totals is None else {"totals": self.totals.to_dict()}
        plain |= {} if self.verdicts is None else {"verdicts": [asdict(each) for each in self.verdicts]}
        return plain | {"notices": list(self.notices)}


def write_result(result: Measured, folder: Path, *, parquet: bool) -> None:
    """Write `measurements.json` and the tables that apply, as CSV and on request as Parquet."""
    write_json(folder / MEASUREMENTS, result.to_dict())
    tables = {"classes": _class_columns(result), "regions": region_columns(result.regions)}
    if result.zones:
        tables["zones"] = zone_columns(result.zones)
    if result.verdicts is not None:
        tables["verdicts"] = verdict_columns(result.verdicts)
    for name, columns in tables.items():
        write_atomic(folder / f"{name}.csv", csv_text(columns))
        if parquet:
            write_parquet(folder / f"{name}.parquet", columns)


def _class_columns(result: Measured) -> list[Column]:
    """Return a row per image and class."""
    classes, sizes = result.classes, [each.size for each in result.classes]
    return [
        Column("image", str, [each.image for each in classes]),
        Column("class", str, [each.name for each in classes]),
        Column("pixels", int, [each.pixels for each in classes]),
        Column("share", float, [each.share for each in classes], ".6f"),
        Column("size", float, [size.value for size in sizes], ".6g"),
        Column("unit", str, [size.unit for size in sizes]),
        Column("low", float, [size.low for size in sizes], ".6g"),
        Column("high", float, [size.high for size in sizes], ".6g"),
        Column("provenance", str, [each.provenance for each in classes]),
        Column("note", str, [size.note for size in sizes]),
    ]
