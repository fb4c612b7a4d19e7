"""ADE20K's scene parsing benchmark: images/ and annotations/ with training/ and validation/, masks of ids 0–150.

Id 0 ("other") is ignored; ids 1–150 are kept in `Labels.ids`, so the step known as reduce_zero_label is neither needed nor
done twice: `Labels.encode` maps id 1 to the first class, and `Labels.decode` maps it back. Masks that contain 255 are refused:
1 was already subtracted, and every class would be read as its neighbour.

Class names are the first of each list in objectInfo150.txt (or .csv), otherwise those of the benchmark. There is no writer:
tools that know the layout take id 0 for "other" and would drop the first class of another data set.

The full ADE20K (`_seg.png` with objects in red and green, more than 3000 names) is detected and refused: its index is a
pickle, and most of its names occur only a few times.

Source: the MIT Scene Parsing Benchmark, objectInfo150.txt (names), and its instance track (the 100 countable classes).
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
from pixelwise.formats.colour_maps import Entry, by_value, highest_value, sample_masks
from pixelwise.formats.dataset_root import DatasetRoot
from pixelwise.formats.folders import find_records
from pixelwise.formats.presets import parse_classes
from pixelwise.formats.records import short
from pixelwise.imageio.masks import MaskRule
from pixelwise.imageio.safe_reading import read_text

_TABLES = ("objectInfo150.txt", "objectInfo150.csv")
_FOLDER = "ADEChallengeData2016"
_FILE_NAMES = re.compile(r"ADE_(train|val)_\d{8}")
_SAMPLED = 8
_OTHER = Entry("other", id=0, ignored=True)

# The first name of each class, 1–150; * if its objects are annotated in the instance track.
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


def detect(dataset: DatasetRoot) -> str | None:
    """Recognise the benchmark's tables or folder, otherwise its folders and names of images if the ids match."""
    if dataset.config.images is not None:
        return None
    full = _find_full(dataset)
    if full is not None:
        return f"{full} is of the full ADE20K"
    root = _benchmark_root(dataset)
    if not all((root / name).is_dir() for name in ("images", "annotations")):
        return None
    table = next((name for name in (*_TABLES, "sceneCategories.txt") if (root / name).is_file()), None)
    if table is not None:
        return f"{table} beside images/ and annotations/"
    if root.name == _FOLDER:
        return f"the folder is named {_FOLDER}"
    masks = [path for path in dataset.files if _FILE_NAMES.fullmatch(path.stem) and "annotations" in path.parts]
    if 0 <= highest_value(masks, _SAMPLED) <= 150:
        return f"{short(masks[0], dataset.root)} is named like ADE20K's masks, and has no id above 150"
    return None


def read(dataset: DatasetRoot) -> ReadResult:
    """Pair images and masks, and name the classes.

    Raises:
        DataError: the full ADE20K, no images, or an invalid table.
        MaskError: masks from which 1 was already subtracted.
    """
    full = _find_full(dataset)
    if full is not None:
        raise DataError(
            dataset.root,
            expected=f"the scene parsing benchmark ({_FOLDER}): images/ and annotations/ with ids 0–150",
            found=f"the full ADE20K ({full}), whose masks hold objects of 3000 kinds in red and green",
            do="Use the benchmark, which has the same images with 150 classes; or write masks of the classes you want.",
        )
    root = _benchmark_root(dataset)
    layout = find_records(replace(dataset, root=root))
    _require_original_ids(layout.masks)
    table = next((root / name for name in _TABLES if (root / name).is_file()), None)
    dataset.use(*(root / name for name in (*_TABLES, "sceneCategories.txt")))
    entries = benchmark() if table is None else _read_table(table)
    labels, _ = by_value(table or "ADE20K", (_OTHER, *entries), dataset.config.ignored)
    source = "the benchmark" if table is None else table.name
    notice = f"{labels.num_classes} classes of {source}; id 0 (other) is ignored"
    layout = replace(layout, kind=f"ADE20K: {layout.kind}", notices=(*layout.notices, notice))
    return ReadResult(layout, labels, MaskRule(binary=False))


def _benchmark_root(dataset: DatasetRoot) -> Path:
    """Return the folder of the benchmark, which may be in the root."""
    inside = dataset.root / _FOLDER
    return inside if inside.is_dir() else dataset.root


def _find_full(dataset: DatasetRoot) -> str | None:
    """Return a file that only the full ADE20K has."""
    for path in dataset.files:
        segmentation = path.name.endswith("_seg.png") and _FILE_NAMES.fullmatch(path.stem.removesuffix("_seg"))
        if path.name == "index_ade20k.pkl" or segmentation:
            return short(path, dataset.root)
    return None


def _require_original_ids(masks: Sequence[Path]) -> None:
    """Refuse masks with 255 in a sample; in others, 255 is an error when they are read."""
    for path, raw in sample_masks(masks, _SAMPLED):
        count = int(np.count_nonzero(raw.values == 255)) if raw.values.ndim == 2 else 0
        if count:
            pixels = f"{count} pixel{'s' * (count != 1)}"
            raise MaskError(
                path,
                expected="ids 0 (other) and 1–150, as in the benchmark",
                found=f"255 in {pixels}: 1 was probably already subtracted (reduce_zero_label)",
                do=(
                    "Use the masks as they were published; or, if ids begin with 0 (wall), set data.format: masks and"
                    " data.labels: {names: [wall, …], ignore_index: 255}."
                ),
            )


def benchmark() -> list[Entry]:
    """Return the 150 classes of the benchmark."""
    return [Entry(name, None, id_, False, thing) for id_, (name, thing, _) in enumerate(parse_classes(_CLASSES), 1)]


def _read_table(path: Path) -> list[Entry]:
    """Read Idx, Ratio, Train, Val, perhaps Stuff, and Name, separated by tabs, commas or spaces."""
    lines = [line for line in read_text(path).splitlines() if line.strip()]
    head, *rest = [_cells(line, path.suffix) for line in lines] or [[]]
    columns = [cell.lower() for cell in head]
    countable = {each.id: each.countable for each in benchmark()}
    entries: dict[int, Entry] = {}
    for number, cells in enumerate(rest, 2):
        row = dict(zip(columns, cells, strict=False))
        index = row.get("idx", "")
        name = re.split(r"[,;]", row.get("name", ""))[0].strip()
        if not re.fullmatch(r"[1-9]\d{0,4}", index) or not name or int(index) in entries:
            where = f"{path}, line {number}"
            found = repr(lines[number - 1][:80])
            raise LabelsError(where, expected="a new Idx from 1 on, and a Name", found=found, do="Correct the line.")
        if any(each.name == name for each in entries.values()):
            name = f"{name} {index}"
        thing = row["stuff"] == "0" if "stuff" in row else countable.get(int(index), False)
        entries[int(index)] = Entry(name, None, int(index), False, thing)
    if not entries:
        raise LabelsError(path, expected="the columns Idx and Name", found="no row", do="Copy the file again.")
    return list(entries.values())


def _cells(line: str, suffix: str) -> list[str]:
    if suffix == ".csv":
        return [cell.strip() for cell in next(csv.reader([line]))]
    if "\t" in line:
        return [cell.strip() for cell in line.split("\t")]
    match = re.fullmatch(r"((?:[\d.]+\s+)+)(.*)", line.strip())  # a name may contain spaces, after numbers only
    return [*match[1].split(), match[2]] if match else line.split()


FORMAT = Format("ade20k", "ADE20K (scene parsing)", detect, read)
