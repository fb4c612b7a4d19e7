"""The files of a sample: the design, the points as CSV, GeoJSON and KML, and answers."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import DataError, nearest
from pixelwise.evaluation.score_counts import listed
from pixelwise.labels import Labels
from pixelwise.measuring.sampling import Sample, Stratum

SAMPLE, POINTS, ANSWERS, PAGE = "sample.json", "sample.csv", "answers.csv", "index.html"
GEOJSON, KML, CHIPS = "sample.geojson", "sample.kml", "chips"
RESULTS = (SAMPLE, POINTS, GEOJSON, KML, CHIPS, PAGE)
_VERSION = 1
_DIGITS = 12
_LARGEST_ANSWERS = 1 << 26
_PLACES = (("row", "column"), ("x", "y"), ("longitude", "latitude"))


@dataclass(frozen=True, eq=False)
class Design:
    """A sample as `sample.json` records it.

    Args:
        id: of the sample.
        map_file: name of the file of the map; `map_hash`: its SHA-256.
        labels: the classes.
        unit: of areas; `provenance`: where it comes from.
        sample: the strata and points.
        notices: what the areas that are estimated from it do not cover.
    """

    id: str
    map_file: str
    map_hash: str
    labels: Labels
    unit: str
    provenance: str
    sample: Sample
    notices: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the plain form."""
        sample, names = self.sample, self.labels.names
        plain: dict[str, Any] = {
            "version": _VERSION,
            "map": {"file": self.map_file, "sha256": self.map_hash},
            "labels": self.labels.to_dict(),
            "unit": self.unit,
            "provenance": self.provenance,
            "seed": sample.seed,
            "by_confidence": sample.by_confidence,
            "strata": [
                {
                    "class_index": each.class_index,
                    "class": names[each.class_index],
                    "confidence": [each.low, each.high],
                    "pixels": each.pixels,
                    "area": each.area,
                    "points": each.points,
                    "inclusion_probability": each.probability,
                }
                for each in sample.strata
            ],
            "points": [
                {"point": number, "row": int(row), "column": int(column), "stratum": int(stratum) + 1, "area": size}
                for number, ((row, column), stratum, size) in enumerate(
                    zip(sample.positions, sample.stratum, sample.sizes.tolist(), strict=True), 1
                )
            ],
            "excluded_pixels": sample.excluded.tolist(),
            "notices": list(self.notices),
        }
        return {"id": self.id or design_id(plain), **plain}


def design_id(plain: Mapping[str, Any]) -> str:
    """Return the id of a sample: digits of the SHA-256 of its plain form."""
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:_DIGITS]


def read_design(path: Path) -> Design:
    """Read `sample.json`.

    Raises:
        DataError: it cannot be read.
    """
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
        if plain["version"] != _VERSION:
            raise ValueError(f"version {plain['version']}")
        strata = tuple(
            Stratum(each["class_index"], each["pixels"], each["area"], each["points"], *each["confidence"])
            for each in plain["strata"]
        )
        points = sorted(plain["points"], key=lambda each: int(each["point"]))
        if [each["point"] for each in points] != list(range(1, len(points) + 1)):
            raise ValueError("points are missing")
        sample = Sample(
            strata,
            np.array([each["stratum"] - 1 for each in points], np.int64),
            np.array([(each["row"], each["column"]) for each in points], np.int64).reshape(-1, 2),
            np.array([each["area"] for each in points], np.float64),
            plain["seed"],
            plain["by_confidence"],
            np.array(plain["excluded_pixels"], np.int64),
        )
        about = (plain["id"], plain["map"]["file"], plain["map"]["sha256"], Labels.from_dict(plain["labels"]))
        return Design(*about, plain["unit"], plain["provenance"], sample, tuple(plain["notices"]))
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        do = "Restore the file that --sample wrote, or draw a new sample."
        raise DataError(path, expected="the record of a sample", found=str(error), do=do) from error


def points_table(design: Design, world: NDArray[Any] | None, degrees: NDArray[Any] | None) -> str:
    """Return the points as CSV, with an empty column for the answers and without the class of the map."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    places = [*(("longitude", "latitude") if degrees is not None else ()), *(("x", "y") if world is not None else ())]
    rows.writerow(["point", *places, "row", "column", "stratum", "inclusion_probability", "answer"])
    sample = design.sample
    for i, (row, column) in enumerate(sample.positions.tolist()):
        stratum = int(sample.stratum[i])
        known = [
            *([] if degrees is None else _degrees(degrees[i])),
            *([] if world is None else map(repr, world[i].tolist())),
        ]
        rows.writerow([i + 1, *known, row, column, stratum + 1, f"{sample.strata[stratum].probability:.6g}", ""])
    return text.getvalue()


def points_geojson(design: Design, degrees: NDArray[Any]) -> str:
    """Return the points as GeoJSON (RFC 7946): WGS 84, longitude first."""
    features = [
        {
            "type": "Feature",
            "id": number,
            "geometry": {"type": "Point", "coordinates": [float(each) for each in _degrees(at)]},
            "properties": {
                "point": number,
                "row": int(row),
                "column": int(column),
                "stratum": int(stratum) + 1,
                "inclusion_probability": design.sample.strata[stratum].probability,
                "answer": None,
            },
        }
        for number, (at, (row, column), stratum) in enumerate(
            zip(degrees, design.sample.positions, design.sample.stratum, strict=True), 1
        )
    ]
    return json.dumps({"type": "FeatureCollection", "features": features}, indent=1) + "\n"


def points_kml(name: str, degrees: NDArray[Any], corners: NDArray[Any]) -> str:
    """Return the points as KML (OGC 12-007), each with the border of its pixel.

    Args:
        name: of the map.
        degrees: (n, 2) longitude and latitude of the points.
        corners: (n, 4, 2) of the corners of their pixels.
    """
    placemarks = []
    for number, (at, border) in enumerate(zip(degrees, corners, strict=True), 1):
        ring = " ".join(",".join(_degrees(corner)) for corner in (*border, border[0]))
        placemarks.append(
            f"<Placemark><name>{number}</name><MultiGeometry><Point><coordinates>{','.join(_degrees(at))}</coordinates></Point>"
            f"<LineString><coordinates>{ring}</coordinates></LineString></MultiGeometry></Placemark>"
        )
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n<kml xmlns="http://www.opengis.net/kml/2.2"><Document>\n'
        f"<name>{escape(''.join(c for c in name if c.isprintable()))}</name>\n"
        + "\n".join(placemarks)
        + "\n</Document></kml>\n"
    )


def _degrees(at: Any) -> list[str]:
    """Format longitude and latitude: 9 decimals are 0.1 mm."""
    return [f"{float(each):.9f}" for each in at]


def unsure_word(names: Sequence[str]) -> str:
    """Return what an answer says that is unsure; no name of a class."""
    return "unsure" if "unsure" not in names else "?"


@dataclass(frozen=True, eq=False)
class Answers:
    """The answers of a file.

    Args:
        rows: of the table, with names of columns in lower case, and their lines in the file.
        answers: class index of each row; -1 if it has no answer, -2 if it is unsure.
    """

    rows: tuple[tuple[int, dict[str, str]], ...]
    answers: NDArray[np.int64]


def read_answers(path: Path, labels: Labels) -> Answers:
    """Read a table of answers, separated by commas, semicolons or tabs.

    Raises:
        DataError: no table, no column `answer`, or a class that does not exist.
    """
    try:
        if path.stat().st_size > _LARGEST_ANSWERS:
            raise ValueError("a file of more than 64 MB")
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        do = "Save the table as CSV in UTF-8."
        raise DataError(
            path, expected="a table of answers", found=str(getattr(error, "strerror", None) or error), do=do
        ) from error
    head = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=head.count)
    table = csv.reader(io.StringIO(text), delimiter=delimiter)
    names = [name.strip().lower() for name in next(table, [])]
    if "answer" not in names:
        do = "Use the answers.csv of the page, or fill in sample.csv."
        raise DataError(path, expected="a column named answer", found=listed(names, 8) or "nothing", do=do)
    rows, found = [], []
    for values in table:
        if not any(value.strip() for value in values):
            continue
        row = dict(zip(names, values, strict=False))
        rows.append((table.line_num, row))
        found.append(_class_of(row.get("answer", ""), labels, f"{path}, line {table.line_num}"))
    return Answers(tuple(rows), np.array(found, np.int64))


NO_ANSWER, UNSURE = -1, -2


def has_answers(path: Path) -> bool:
    """Whether a table of points exists and answers were written into it."""
    if not path.is_file():
        return False
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        return any((row.get("answer") or "").strip() for row in csv.DictReader(file))


def _class_of(answer: str, labels: Labels, where: str) -> int:
    """Return the class index of an answer: a name, in any case if that is unique, or an id."""
    names, text = labels.names, answer.strip()
    if answer in names or text in names:
        return names.index(answer if answer in names else text)
    if not text:
        return NO_ANSWER
    if text.lower() == unsure_word(names):
        return UNSURE
    same = [k for k, name in enumerate(names) if name.strip().casefold() == text.casefold()]
    if len(same) == 1:
        return same[0]
    if text.isdecimal() and int(text) in labels.ids:
        return labels.ids.index(int(text))
    raise DataError(
        where,
        expected=f"one of the classes {listed(names, 12)}, {unsure_word(names)}, or nothing",
        found=repr(text[:80]),
        do=nearest(text, names, "Correct the answer."),
    )


def numbered(answers: Answers, design: Design, path: Path) -> NDArray[np.int64]:
    """Return the answer of each point of a sample, (n,); -1 if there is none.

    Raises:
        DataError: no column `point`, answers of another sample, or a point that is unknown, elsewhere, or answered in two ways.
    """
    positions = design.sample.positions
    found = np.full(len(positions), NO_ANSWER, np.int64)
    for (line, row), answer in zip(answers.rows, answers.answers.tolist(), strict=True):
        where = f"{path}, line {line}"
        if row.get("sample", design.id).strip() not in (design.id, ""):
            do = f"Use the answers of this sample, or name the folder of the other one beside {SAMPLE}."
            raise DataError(where, expected=f"answers of the sample {design.id}", found=row["sample"][:40], do=do)
        number = row.get("point", "").strip()
        if not (number.isdecimal() and 1 <= int(number) <= len(positions)):
            do = "Keep the column point of sample.csv."
            raise DataError(where, expected=f"a point from 1 to {len(positions)}", found=number[:40] or "none", do=do)
        at = int(number) - 1
        place = [row[key].strip() for key in ("row", "column") if key in row]
        if len(place) == 2 and place != [str(each) for each in positions[at].tolist()]:
            expected = "row {} and column {}, where point {} of this sample is".format(*positions[at].tolist(), number)
            do = "Use the answers of this sample, or leave the columns row and column out."
            raise DataError(where, expected=expected, found=f"row {place[0]} and column {place[1]}"[:80], do=do)
        if answer == NO_ANSWER:
            continue
        if found[at] not in (NO_ANSWER, answer):
            do = "Keep one of the answers."
            raise DataError(where, expected=f"one answer for point {number}", found="two that differ", do=do)
        found[at] = answer
    return found


def placed(answers: Answers, path: Path) -> tuple[tuple[str, str], NDArray[np.float64]]:
    """Return the names of the columns of positions, and the positions (n, 2), in this order.

    Raises:
        DataError: no positions, or some that are no numbers.
    """
    columns = answers.rows[0][1].keys() if answers.rows else ()
    names = next((pair for pair in _PLACES if set(pair) <= set(columns)), None)
    if names is None:
        do = "Add the columns row and column, x and y in the coordinates of the map, or longitude and latitude."
        raise DataError(path, expected="positions of the points", found=listed(list(columns), 8) or "no rows", do=do)
    found = []
    for line, row in answers.rows:
        try:
            values = [float(row[name]) for name in names]
            if not np.isfinite(values).all():
                raise ValueError
        except (KeyError, ValueError):
            text = ", ".join(str(row.get(name)) for name in names)[:80]
            do = "Correct the line."
            raise DataError(
                f"{path}, line {line}", expected=f"numbers for {' and '.join(names)}", found=text, do=do
            ) from None
        found.append(values)
    return names, np.array(found)
