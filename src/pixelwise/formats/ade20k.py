"""ADE20K's scene parsing benchmark: images/ and annotations/ with training/ and validation/, masks of ids 0–150.

Comes in: a place. Goes out: images and masks paired by name, and 150 classes. Id 0 is "other" and counts in nothing; ids
1–150 stay what they are in the files and in `Labels.ids`. So what elsewhere is called reduce_zero_label is no step that could
be done twice or forgotten: `Labels.encode` takes id 1 to the first class, and `Labels.decode` gives it back on writing. A mask
with 255 in it is refused, for there somebody took off the 1 already, and every class would be read as its neighbour.

Names are the first of each list in objectInfo150.txt (or .csv) where it lies there, and of the benchmark else. There is no
writer: 0 means "other" here, so that labels of another set would lose their first class in every tool that knows the layout.

The full ADE20K (`_seg.png` with objects in red and green, more than 3000 names) is recognised and refused: its index is a
pickle, and most of its names occur a few times.

Source: the MIT Scene Parsing Benchmark, objectInfo150.txt (names), and its instance track (which 100 classes are things).
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from pixelwise.errors import DataError, LabelsError, MaskError
from pixelwise.formats.base import Format, ReadResult
from pixelwise.formats.dataset_root import DatasetRoot
from pixelwise.formats.folders import find_records
from pixelwise.formats.records import Layout, short
from pixelwise.imageio.images import read_mask_values
from pixelwise.imageio.masks import MaskRule
from pixelwise.imageio.safe_reading import read_text
from pixelwise.labels import Labels

_TABLES = ("objectInfo150.txt", "objectInfo150.csv")
_FOLDER = "ADEChallengeData2016"
_OWN_NAMES = re.compile(r"ADE_(train|val)_\d{8}")
_LOOKED_INTO = 8

# The first name of each class, 1–150; * where the instance track counts its objects.
_CLASSES = """
wall, building, sky, floor, tree, ceiling, road, bed*, windowpane*, grass, cabinet*, sidewalk, person*, earth, door*, table*,
mountain, plant, curtain*, chair*, car*, water, painting*, sofa*, shelf*, house, sea, mirror*, rug, field, armchair*, seat*,
fence*, desk*, rock, wardrobe*, lamp*, bathtub*, railing*, cushion*, base, box*, column*, signboard*, chest of drawers*,
counter*, sand, sink*, skyscraper, fireplace*, refrigerator*, grandstand, path, stairs*, runway, case*, pool table*, pillow*,
screen door*, stairway, river, bridge, bookcase*, blind, coffee table*, toilet*, flower*, book*, hill, bench*, countertop*,
stove*, palm*, kitchen island*, computer*, swivel chair*, boat*, bar, arcade machine*, hovel, bus*, towel*, light*, truck*,
tower, chandelier*, awning*, streetlight*, booth*, television*, airplane*, dirt track, apparel*, pole*, land, bannister*,
escalator, ottoman*, bottle*, buffet, poster, stage, van*, ship*, fountain*, conveyer belt, canopy, washer*, plaything*,
swimming pool, stool*, barrel*, basket*, waterfall, tent, bag*, minibike*, cradle, oven*, ball*, food*, step*, tank,
trade name*, microwave*, pot*, animal*, bicycle*, lake, dishwasher*, screen*, blanket, sculpture*, hood*, sconce*, vase*,
traffic light*, tray*, ashcan*, fan*, pier, crt screen, plate*, monitor*, bulletin board*, shower, radiator*, glass*, clock*,
flag*
"""


def detect(place: DatasetRoot) -> str | None:
    """Recognise the benchmark's tables or folder; else its folders and the names of its images, where the masks fit."""
    if place.config.images is not None:
        return None
    full = _full(place)
    if full is not None:
        return f"{full} is of the full ADE20K"
    root = _root(place)
    if not all((root / name).is_dir() for name in ("images", "annotations")):
        return None
    table = next((name for name in (*_TABLES, "sceneCategories.txt") if (root / name).is_file()), None)
    if table is not None:
        return f"{table} lies beside images/ and annotations/"
    if root.name == _FOLDER:
        return f"the folder is called {_FOLDER}"
    own = [path for path in place.files if _OWN_NAMES.fullmatch(path.stem) and "annotations" in path.parts]
    if own and _highest(own) <= 150:
        return f"{short(own[0], place.root)} is called as ADE20K's masks are, and holds no id above 150"
    return None


def read(place: DatasetRoot) -> ReadResult:
    """Pair images and masks, and name the classes.

    Raises:
        DataError: the full ADE20K, no images, or a table that is not understood.
        MaskError: masks of which the 1 was taken off already.

    """
    full = _full(place)
    if full is not None:
        raise DataError(
            place.root,
            expected=f"the scene parsing benchmark ({_FOLDER}): images/ and annotations/ with ids 0–150",
            found=f"the full ADE20K ({full}), whose masks hold objects of 3000 kinds in red and green",
            do="Use the benchmark, which has the same images with 150 classes; or write masks of the classes you want.",
        )
    root = _root(place)
    layout = find_records(replace(place, root=root))
    masks = [record.mask for records in layout.splits.values() for record in records if record.mask is not None]
    _require_untouched(masks)
    labels, source = _labels(place, root)
    notice = f"{labels.num_classes} classes by {source}; id 0 (other) counts in nothing"
    layout = Layout(f"ADE20K: {layout.kind}", layout.splits, layout.problems, (*layout.notices, notice))
    return ReadResult(layout, labels, MaskRule(binary=False))


def _root(place: DatasetRoot) -> Path:
    """Give the folder of the benchmark, which may lie in the one that was named."""
    inside = place.root / _FOLDER
    return inside if inside.is_dir() else place.root


def _full(place: DatasetRoot) -> str | None:
    """Name a file that only the full ADE20K has."""
    named = (path for path in place.files if path.name == "index_ade20k.pkl" or path.name.endswith("_seg.png"))
    wanted = (p for p in named if p.suffix == ".pkl" or _OWN_NAMES.fullmatch(p.stem.removesuffix("_seg")))
    return next((short(path, place.root) for path in wanted), None)


def _some(masks: Sequence[Path]) -> Sequence[Path]:
    return masks[:: max(len(masks) // _LOOKED_INTO, 1)][:_LOOKED_INTO]


def _highest(masks: Sequence[Path]) -> int:
    """Give the highest value in some masks; beyond all ids where none can be read, or one is of colours."""
    highest = -1
    for path in _some(masks):
        try:
            values = read_mask_values(path).values
        except DataError:
            continue
        highest = max(highest, int(values.max()) if values.ndim == 2 else 256)
    return highest if highest >= 0 else 256


def _require_untouched(masks: Sequence[Path]) -> None:
    """Refuse masks with 255: some are looked into, and the others refuse it by name when they are read."""
    for path in _some(masks):
        try:
            values = read_mask_values(path).values
        except DataError:
            continue  # told where the mask is used
        many = int(np.count_nonzero(values == 255)) if values.ndim == 2 else 0
        if many:
            raise MaskError(
                path,
                expected="ids 0 (other) and 1–150, as the benchmark has them",
                found=f"255 in {many} pixel{'s' * (many != 1)}, as where 1 was already taken off (reduce_zero_label)",
                do=(
                    "Use the masks as they were published; or, where ids begin with 0 (wall), set data.format: masks and"
                    " data.labels: {names: [wall, …], ignore_index: 255}."
                ),
            )


def _labels(place: DatasetRoot, root: Path) -> tuple[Labels, str]:
    """Name the classes by the table, else by the benchmark; `data.ignored` counts in nothing."""
    table = next((root / name for name in _TABLES if (root / name).is_file()), None)
    rows = benchmark() if table is None else _read_table(table)
    counted = {id_: row for id_, row in rows.items() if row[0] not in place.config.ignored}
    if not counted:
        raise LabelsError("data.ignored", expected="a class that counts", found="none", do="Take some out of the list.")
    names, things = zip(*counted.values(), strict=True)
    void = (0, *(id_ for id_ in rows if id_ not in counted))  # the first is what is written for ignored pixels
    source = "the benchmark's own names" if table is None else table.name
    return Labels(names, tuple(counted), countable=things, ignore_ids=void), source


def benchmark() -> dict[int, tuple[str, bool]]:
    """Give name and whether its objects can be counted, per id 1–150."""
    names = [name.strip() for name in _CLASSES.replace("\n", " ").split(",")]
    return {id_: (name.rstrip("*"), name.endswith("*")) for id_, name in enumerate(names, 1)}


def _read_table(path: Path) -> dict[int, tuple[str, bool]]:
    """Read Idx, Ratio, Train, Val, perhaps Stuff, and Name, separated by tabs, commas or spaces."""
    lines = [line for line in read_text(path).splitlines() if line.strip()]
    head, *rest = [_cells(line, path.suffix) for line in lines] or [[]]
    columns = [cell.lower() for cell in head]
    rows: dict[int, tuple[str, bool]] = {}
    own = benchmark()
    for number, cells in enumerate(rest, 2):
        row = dict(zip(columns, cells, strict=False))
        index, name = row.get("idx", ""), re.split(r"[,;]", row.get("name", ""))[0].strip()
        if not re.fullmatch(r"[1-9]\d{0,4}", index) or not name or int(index) in rows:
            where = f"{path}, line {number}"
            found = repr(lines[number - 1][:80])
            raise LabelsError(where, expected="a new Idx from 1 on, and a Name", found=found, do="Correct the line.")
        taken = {name for name, _ in rows.values()}
        thing = row.get("stuff", "") == "0" if "stuff" in row else own.get(int(index), ("", False))[1]
        rows[int(index)] = (f"{name} {index}" if name in taken else name, thing)
    if not rows:
        raise LabelsError(path, expected="the columns Idx and Name", found="no row", do="Copy the file again.")
    return rows


def _cells(line: str, suffix: str) -> list[str]:
    if suffix == ".csv":
        return [cell.strip() for cell in next(csv.reader([line]))]
    if "\t" in line:
        return [cell.strip() for cell in line.split("\t")]
    cells = line.split()
    # A name may hold spaces, and stands last; before it are numbers only.
    first = next((place for place, cell in enumerate(cells) if not re.fullmatch(r"[\d.]+", cell)), len(cells))
    return cells if first == 0 else [*cells[:first], " ".join(cells[first:])]


FORMAT = Format("ade20k", "ADE20K (scene parsing)", detect, read)
