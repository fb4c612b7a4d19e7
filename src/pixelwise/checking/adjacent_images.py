"""Checks on what belongs together and lies apart: groups, frames of a video, tiles of a scene.

Comes in: a `Survey`; names and sketches are looked at. Goes out: findings. Knows nothing of masks.

Names alone say little: crack_001 and crack_002 may be of one tile or of two. Unless names are telling (many groups, each with
a number: patients, slides), images of one group or sequence must also look more alike than others do.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pixelwise.checking.file_names import Groups, number_frames, place_tiles, suggest_groups
from pixelwise.checking.findings import EXAMPLES, SHOWN, Finding, listed, some
from pixelwise.checking.image_signature import unpack
from pixelwise.checking.inspection import Seen
from pixelwise.checking.survey import Survey
from pixelwise.checking.wording import Twins, anew, in_groups, tell_pairs
from pixelwise.formats.records import short

_ALIKE = 0.9  # of the usual distance: images of a group belong together
_FLOWING = 0.5  # of the usual distance: neighbours by number are frames of a video
_FEWEST_FRAMES, _GAPS = 5, 2.0
_DRAWN = 4096
_FILLED = 0.3
_STRIPS = r"([^/]*?[0-9]+)[^/0-9]+[0-9]+[^/0-9]*\.[^./]+$"


def torn_groups(survey: Survey) -> Iterator[Finding]:
    """Find groups that lie in different parts (which happens only where the parts were given)."""
    grouped = [one for one in survey.seen if survey.record(one).group is not None]
    torn = _torn([str(survey.record(one).group) for one in grouped], grouped)
    if torn:
        what = f"{some(len(torn), 'group lies', 'groups lie')} in more than one part"
        why = "Images of one group are alike: the model is scored on what it has nearly seen."
        options = anew(survey, _parts_of(torn))
        fix = f"Give each group to one part{f'; or divide all images anew: {options}' if options else ''}."
        total = len({survey.record(one).group for one in grouped})
        yield _about_groups("groups-across-parts", "error", torn, total, what, why, fix)


def _torn(names: Sequence[str], seen: Sequence[Seen]) -> dict[str, list[Seen]]:
    """Gather the groups that reach over several parts."""
    groups: dict[str, list[Seen]] = {}
    for name, one in zip(names, seen, strict=True):
        groups.setdefault(name, []).append(one)
    return {name: own for name, own in groups.items() if len({one.split for one in own}) > 1}


def _parts_of(torn: dict[str, list[Seen]]) -> set[str]:
    return {one.split for own in torn.values() for one in own}


def _about_groups(
    kind: str, severity: str, torn: dict[str, list[Seen]], total: int, what: str, why: str, fix: str
) -> Finding:
    where = tuple(f"{name}: {', '.join(dict.fromkeys(one.split for one in own))}" for name, own in torn.items())
    shown = [one.example for own in torn.values() for one in _one_of_each_split(own)]
    return Finding(kind, severity, what, where[:SHOWN], len(torn), total, why, fix, tuple(shown[:EXAMPLES]))


def _one_of_each_split(own: Sequence[Seen]) -> list[Seen]:
    return list({one.split: one for one in reversed(own)}.values())[::-1]


def groups_in_names(survey: Survey) -> Iterator[Finding]:
    """Find groups that names tell (0016E5_07959, patient12_slice3) and that lie in different parts, where none are given."""
    seen = [one for one in survey.seen if one.error is None]
    kind = "image"
    if any(survey.record(one).group is not None for one in seen):
        kind, seen = "volume", _volumes(survey, seen)
    if len(survey.datasets) < 2 or not seen:
        return
    for groups in suggest_groups(_paths(survey, seen)):
        torn = _torn(groups.names, seen)
        if not torn or not (groups.telling or _alike(seen, groups)):
            continue
        total = len(set(groups.names))
        images = sum(len(own) for own in torn.values())
        what = f"names tell {total} groups, and {some(len(torn), 'of them lies', 'of them lie')} in more than one part"
        what += f": {listed(sorted(torn), 4)} ({some(images, kind, f'{kind}s')})"
        why = "If these are videos, patients, slides or scenes, the model is scored on what it has nearly seen."
        options = anew(survey, _parts_of(torn))
        fix = f"Under data: in the YAML, write group: '{groups.rule}'"
        fix += f"; and, since the parts are given, divide all images anew: {options}." if options else "."
        yield _about_groups("named-groups-across-parts", "warning", torn, total, what, why, fix)
        return


def _volumes(survey: Survey, seen: Sequence[Seen]) -> list[Seen]:
    """Give a slice of each volume, where every group is a volume in a file of its own: of one patient there may be several."""
    first: dict[Path, Seen] = {}
    for one in seen:
        record = survey.record(one)
        if record.plane is None:
            return []
        first.setdefault(record.image, one)
    own = {survey.record(one).group for one in first.values()}
    return list(first.values()) if len(own) == len(first) else []


def _paths(survey: Survey, seen: Sequence[Seen]) -> list[str]:
    """Name the images as `data.group` sees them: relative to the root."""
    root = survey.root
    return [short(survey.record(one).image, root) for one in seen]


def _alike(seen: Sequence[Seen], groups: Groups) -> bool:
    """Tell whether images of one group look more alike than images of two."""
    kept = [(one, name) for one, name in zip(seen, groups.names, strict=True) if one.waves]
    numbers: dict[str, int] = {}
    own = np.array([numbers.setdefault(name, len(numbers)) for _, name in kept], np.int64)
    if len(kept) < 2 or len(numbers) < 2:
        return False
    vectors = unpack([one.waves for one, _ in kept])
    rng = np.random.default_rng(0)
    one, two = rng.integers(0, len(kept), (2, 16 * _DRAWN))
    apart = own[one] != own[two]
    together = (own[one] == own[two]) & (one != two)
    pairs = [np.flatnonzero(which)[:_DRAWN] for which in (together, apart)]
    if min(map(len, pairs)) < 8:
        return False
    within, between = (float(np.median(_distance(vectors, one[p], two[p]))) for p in pairs)
    return within < _ALIKE * between


def _distance(vectors: NDArray[np.float32], one: NDArray[np.int64], two: NDArray[np.int64]) -> NDArray[np.float32]:
    return 1 - np.einsum("nd,nd->n", vectors[one], vectors[two])


def frames(survey: Survey) -> Iterator[Finding]:
    """Find images that are neighbours in a video, by number and by looks, and lie in different parts."""
    seen = [one for one in survey.good if one.waves]
    if len(survey.datasets) < 2 or len(seen) < _FEWEST_FRAMES:
        return
    vectors = unpack([one.waves for one in seen])
    rng = np.random.default_rng(0)
    one, two = rng.integers(0, len(seen), (2, _DRAWN))
    usual = float(np.median(_distance(vectors, one[one != two], two[one != two])))
    twins: list[Twins] = []
    for places, numbers in _sequences(number_frames(_paths(survey, seen))):
        splits = [seen[place].split for place in places]
        apart = _distance(vectors, places[:-1], places[1:])
        if len(places) <= _FEWEST_FRAMES or float(np.median(apart)) > _FLOWING * usual:
            continue
        usual_gap = _usual_gaps(numbers, splits)
        for k, gap in enumerate(np.diff(numbers).tolist()):
            near = gap <= _GAPS * max(usual_gap[splits[k]], usual_gap[splits[k + 1]])
            if splits[k] != splits[k + 1] and near and apart[k] < usual:
                twins.append((seen[places[k]], seen[places[k + 1]]))
    if twins:
        what = (
            f"{some(len(twins), 'pair of neighbouring frames lies', 'pairs of neighbouring frames lie')} in two parts"
        )
        why = (
            "Frames that follow each other show the same things: scores on them say little about another day and place."
        )
        fix = f"Give whole videos to a part: {in_groups(survey, twins)}."
        yield tell_pairs(survey, "frames-across-parts", "warning", twins, what, why, fix, sign="→")


def _sequences(frames: Sequence[tuple[str, int] | None]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Give the places and numbers of every sequence, in the order of the numbers."""
    found: dict[str, list[tuple[int, int]]] = {}
    for place, frame in enumerate(frames):
        if frame is not None:
            found.setdefault(frame[0], []).append((frame[1], place))
    for own in found.values():
        own.sort()
        yield np.array([place for _, place in own], np.int64), np.array([number for number, _ in own], np.int64)


def _usual_gaps(numbers: NDArray[np.int64], splits: Sequence[str]) -> dict[str, float]:
    """Give the median step between the numbers of each part; that of all where a part has one image."""
    everywhere = float(np.median(np.diff(numbers)))
    gaps: dict[str, float] = {}
    for split in set(splits):
        own = numbers[[one == split for one in splits]]
        gaps[split] = float(np.median(np.diff(own))) if len(own) > 1 else everywhere
    return gaps


def tiles(survey: Survey) -> Iterator[Finding]:
    """Find tiles of one scene, by coordinates in their names, that touch and lie in different parts."""
    seen = list(survey.good)
    if len(survey.datasets) < 2 or any(survey.record(one).group is not None for one in seen):
        return
    scenes: dict[str, dict[tuple[float, float], Seen]] = {}
    paths = _paths(survey, seen)
    places = place_tiles(paths)
    for one, tile in zip(seen, places, strict=True):
        if tile is not None:
            scenes.setdefault(tile[0], {})[tile[1:]] = one
    twins = [pair for scene in scenes.values() for pair in _touching(scene)]
    if not twins:
        return
    held = {one.example for pair in twins for one in pair if one.split != "train"}
    others = sum(one.split != "train" for one in seen)
    what = f"names look like coordinates, and {len(held)} of {others} images outside train touch one of another part"
    why = "Neighbouring tiles share fields, roads and light: scores on them say little about another place."
    fix = "Give whole scenes, or whole strips of one, to a part: data.group takes a .csv table with the columns image and group."
    if _named_strips(paths, places):
        fix = f"Under data: in the YAML, write group: '{_STRIPS}': strips stay whole. Whole scenes are better, if there are some."
    options = anew(survey, {one.split for pair in twins for one in pair})
    fix += f" The parts are given: divide all images anew, too: {options}." if options else ""
    yield tell_pairs(survey, "tiles-across-parts", "warning", twins, what, why, fix, sign="|")


def _named_strips(paths: Sequence[str], places: Sequence[tuple[str, float, float] | None]) -> bool:
    """Tell whether the expression for strips gives each scene and first coordinate a group of its own."""
    groups: dict[tuple[str, float], str] = {}
    for path, place in zip(paths, places, strict=True):
        match = re.search(_STRIPS, path)
        if match is None or place is None or groups.setdefault(place[:2], match[1]) != match[1]:
            return False
    return len(set(groups.values())) == len(groups)


def _touching(scene: dict[tuple[float, float], Seen]) -> Iterator[Twins]:
    """Give the neighbours that lie in different parts, where coordinates make a grid at all."""
    xs, ys = (np.unique([place[axis] for place in scene]) for axis in (0, 1))
    if len(xs) < 2 or len(ys) < 2 or len(scene) < _FILLED * len(xs) * len(ys):
        return
    order = {axis: {value: k for k, value in enumerate(values.tolist())} for axis, values in ((0, xs), (1, ys))}
    grid = {(order[0][x], order[1][y]): one for (x, y), one in scene.items()}
    for (row, column), one in sorted(grid.items(), key=lambda item: item[0]):
        for place in ((row + 1, column), (row, column + 1)):
            other = grid.get(place)
            if other is not None and other.split != one.split:
                yield one, other


CHECKS = (torn_groups, groups_in_names, frames, tiles)
