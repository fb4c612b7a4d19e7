"""What the names of images tell of what belongs together: videos, patients, slides; places in a sequence or on a grid.

Comes in: paths relative to the data set's root. Goes out: groups with the regular expression that names them, numbers in
sequences, places of tiles. Knows nothing of pixels or parts.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from pixelwise.formats.records import SPLIT_FOLDERS

_SPLITS = {word for words in SPLIT_FOLDERS.values() for word in words}
_IN_A_FOLDER = re.compile(rf"(?<![a-z])(?:{'|'.join(sorted(_SPLITS))})(?![a-z])", re.IGNORECASE)
_END = r"[^/0-9]*\.[^./]+$"
# From the most particular: what stands before the last number, before the last two, the folder.
_RULES = (
    rf"([^/]*?)[-_. ]*[A-Za-z]*[0-9]+{_END}",
    rf"([^/]*?)[-_. ]*[A-Za-z]*[0-9]+[^/0-9]+[0-9]+{_END}",
    r"([^/]+)/[^/]+$",
)
_LEAST_IN_GROUPS = 0.8
_FEW = 8


@dataclass(frozen=True)
class Groups:
    """Hold groups that names suggest.

    Args:
        rule: the regular expression whose first group names them: what `data.group` takes.
        names: the group of each image, in order.
        telling: whether the names alone say so: there are many, as of patients and slides.
    """

    rule: str
    names: tuple[str, ...]
    telling: bool


def suggest_groups(paths: Sequence[str]) -> list[Groups]:
    """Find the ways in which names may tell groups: several, each with a number in its name, nearly all images in company."""
    found = []
    for rule in _RULES:
        matches = [re.search(rule, path) for path in paths]
        names = tuple(match[1] for match in matches if match is not None)
        if len(names) < len(paths) or any(name.strip("_-. ").lower() in _SPLITS for name in names):
            continue
        sizes = Counter(names)
        together = sum(size for name, size in sizes.items() if size > 1 and name)
        numbered = all(
            re.search(r"\d", name) for name in sizes
        )  # else they may be called after classes: crack, scratch
        if numbered and 2 <= len(sizes) <= len(paths) / 2 and together >= _LEAST_IN_GROUPS * len(paths):
            found.append(Groups(rule, names, len(sizes) >= _FEW))
    return found


def number_frames(paths: Sequence[str]) -> list[tuple[str, int] | None]:
    """Give the sequence of each name, which is the name without its last number, and that number; None where there is none."""
    found: list[tuple[str, int] | None] = []
    for path in paths:
        match = re.search(r"^(.*?)(\d{1,12})(\D*)$", PurePosixPath(path).stem)
        found.append(None if match is None else (f"{match[1]}#{match[3]}", int(match[2])))
    return found


def place_tiles(paths: Sequence[str]) -> list[tuple[str, float, float] | None]:
    """Give the scene of each name and two coordinates in it, by the last two numbers; None where there are none.

    Names such as scene_512_1024, scene_x3_y7, tile_r2_c5, 12.9716_77.5946. A scene is also its folder, but for the part which
    that names.
    """
    number, axis = r"(-?\d+(?:\.\d+)?)", r"(?:[xyrc]|row|col)?_?"
    pattern = re.compile(rf"^(.*?){axis}{number}[_ ,x-]+{axis}{number}\D*$", re.IGNORECASE)
    found: list[tuple[str, float, float] | None] = []
    for path in paths:
        pure = PurePosixPath(path)
        match = pattern.search(pure.stem)
        home = "" if len(pure.parts) < 2 else _IN_A_FOLDER.sub("", f"{pure.parent}/")
        found.append(None if match is None else (home + match[1], float(match[2]), float(match[3])))
    return found
