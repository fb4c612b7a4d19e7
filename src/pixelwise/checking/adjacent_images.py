"""Checks on related images in different splits: groups, video frames, tiles of a scene.

File names alone are weak evidence: crack_001 and crack_002 may or may not show the same object. Unless names suggest many
numbered groups (patients, slides), images of a group or sequence must also look more alike than others do.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from pixelwise.checking.findings import (
    EXAMPLES,
    SHOWN,
    Finding,
    Pair,
    grouping_advice,
    join_names,
    pair_finding,
    plural,
)
from pixelwise.checking.image_signature import distances, unpack
from pixelwise.checking.inspection import Inspection
from pixelwise.checking.survey import Survey
from pixelwise.datasets.sequences import parse_frame
from pixelwise.formats.records import SPLIT_FOLDERS, short

_GROUP_DISTANCE = 0.9  # of the typical distance: greatest median distance of images of a group
_FRAME_DISTANCE = 0.5  # of the typical distance: greatest median distance of consecutive frames
_MIN_FRAMES, _MAX_GAP = 5, 2.0
_SAMPLED_PAIRS = 4096
_MIN_FILLED = 0.3
_STRIPS = r"([^/]*?[0-9]+)[^/0-9]+[0-9]+[^/0-9]*\.[^./]+$"

_SPLITS = {word for words in SPLIT_FOLDERS.values() for word in words}
_SPLIT_IN_FOLDER = re.compile(rf"(?<![a-z])(?:{'|'.join(sorted(_SPLITS))})(?![a-z])", re.IGNORECASE)
_END = r"[^/0-9]*\.[^./]+$"
# From the most specific: the text before the last number, before the last two numbers, the folder.
_GROUP_RULES = (
    rf"([^/]*?)[-_. ]*[A-Za-z]*[0-9]+{_END}",
    rf"([^/]*?)[-_. ]*[A-Za-z]*[0-9]+[^/0-9]+[0-9]+{_END}",
    r"([^/]+)/[^/]+$",
)
_GROUPED_SHARE = 0.8
_MANY_GROUPS = 8

Groups = dict[str, list[Inspection]]
Tile = tuple[str, float, float]


@dataclass(frozen=True)
class SuggestedGroups:
    """Groups suggested by file names.

    Args:
        rule: the regular expression whose first group names them, as for `data.group`.
        names: the group of each image.
        conclusive: whether the names alone are sufficient evidence, since there are many groups.
    """

    rule: str
    names: tuple[str, ...]
    conclusive: bool


def suggest_groups(paths: Sequence[str]) -> list[SuggestedGroups]:
    """Find rules that divide images by name into several numbered groups, nearly all of more than one image."""
    found = []
    for rule in _GROUP_RULES:
        names = tuple(match[1] for path in paths if (match := re.search(rule, path)) is not None)
        if len(names) < len(paths) or any(name.strip("_-. ").lower() in _SPLITS for name in names):
            continue
        sizes = Counter(names)
        grouped = sum(size for name, size in sizes.items() if size > 1 and name)
        numbered = all(re.search(r"\d", name) for name in sizes)  # otherwise they may be classes: crack, scratch
        if numbered and 2 <= len(sizes) <= len(paths) / 2 and grouped >= _GROUPED_SHARE * len(paths):
            found.append(SuggestedGroups(rule, names, len(sizes) >= _MANY_GROUPS))
    return found


def parse_tile(path: str) -> Tile | None:
    """Return the scene of a file name and two coordinates, from the last two numbers.

    Examples are scene_512_1024, scene_x3_y7, tile_r2_c5 and 12.9716_77.5946. The folder is part of the scene, except for
    the name of a split.
    """
    number, axis = r"(-?\d+(?:\.\d+)?)", r"(?:[xyrc]|row|col)?_?"
    pure = PurePosixPath(path)
    match = re.search(rf"^(.*?){axis}{number}[_ ,x-]+{axis}{number}\D*$", pure.stem, re.IGNORECASE)
    folder = "" if len(pure.parts) < 2 else _SPLIT_IN_FOLDER.sub("", f"{pure.parent}/")
    return None if match is None else (folder + match[1], float(match[2]), float(match[3]))


def divided_groups(survey: Survey) -> Iterator[Finding]:
    """Find groups in more than one split, which only occurs if the splits are given."""
    grouped = [image for image in survey.inspections if survey.record(image).group is not None]
    divided = _divided([str(survey.record(image).group) for image in grouped], grouped)
    if divided:
        what = f"{plural(len(divided), 'group is', 'groups are')} in more than one split"
        why = "Images of a group are similar: scores on images related to training images are too optimistic."
        options = survey.redivide_options(_splits_of(divided))
        fix = f"Keep each group in one split{f'; or divide all images again: {options}' if options else ''}."
        total = len({survey.record(image).group for image in grouped})
        yield _group_finding("groups-across-parts", "error", divided, total, what, why, fix)


def _divided(names: Sequence[str], images: Sequence[Inspection]) -> Groups:
    """Return the groups that are in more than one split."""
    groups: Groups = {}
    for name, image in zip(names, images, strict=True):
        groups.setdefault(name, []).append(image)
    return {name: members for name, members in groups.items() if len({image.split for image in members}) > 1}


def _splits_of(groups: Groups) -> set[str]:
    return {image.split for members in groups.values() for image in members}


def _group_finding(kind: str, severity: str, groups: Groups, total: int, what: str, why: str, fix: str) -> Finding:
    where, examples = [], []
    for name, members in groups.items():
        first_of_split = {image.split: image.example for image in reversed(members)}
        splits = dict.fromkeys(image.split for image in members)
        where.append(f"{name}: {', '.join(splits)}")
        examples += [first_of_split[split] for split in splits]
    return Finding(kind, severity, what, tuple(where[:SHOWN]), len(groups), total, why, fix, tuple(examples[:EXAMPLES]))


def groups_in_names(survey: Survey) -> Iterator[Finding]:
    """Find groups suggested by names (0016E5_07959, patient12_slice3) in more than one split, if none are configured."""
    images = list(survey.usable)
    kind = "image"
    if any(survey.record(image).group is not None for image in images):
        kind, images = "volume", _volumes(survey, images)
    if len(survey.datasets) < 2 or not images:
        return
    for groups in suggest_groups(_paths(survey, images)):
        divided = _divided(groups.names, images)
        if not divided or not (groups.conclusive or _alike(images, groups)):
            continue
        total = len(set(groups.names))
        count = sum(len(members) for members in divided.values())
        what = f"file names suggest {total} groups, {len(divided)} of them in more than one split:"
        what += f" {join_names(sorted(divided), 4)} ({plural(count, kind, f'{kind}s')})"
        why = "If these are videos, patients, slides or scenes, scores on images related to training images are too"
        why += " optimistic."
        options = survey.redivide_options(_splits_of(divided))
        fix = f"Under data: in the YAML, write group: '{groups.rule}'"
        fix += f"; and, since the splits are given, divide all images again: {options}." if options else "."
        yield _group_finding("named-groups-across-parts", "warning", divided, total, what, why, fix)
        return


def _volumes(survey: Survey, images: Sequence[Inspection]) -> list[Inspection]:
    """Return one slice of each volume if every group is one volume file: a patient may have several volumes."""
    first: dict[Path, Inspection] = {}
    for image in images:
        record = survey.record(image)
        if record.plane is None:
            return []
        first.setdefault(record.image, image)
    groups = {survey.record(image).group for image in first.values()}
    return list(first.values()) if len(groups) == len(first) else []


def _paths(survey: Survey, images: Sequence[Inspection]) -> list[str]:
    """Return paths relative to the root, as for `data.group`."""
    root = survey.root
    return [short(survey.record(image).image, root) for image in images]


def _alike(images: Sequence[Inspection], groups: SuggestedGroups) -> bool:
    """Whether images of the same group look more alike than images of different groups."""
    kept = [(image, name) for image, name in zip(images, groups.names, strict=True) if image.signature]
    numbers: dict[str, int] = {}
    group = np.array([numbers.setdefault(name, len(numbers)) for _, name in kept], np.int64)
    if len(kept) < 2 or len(numbers) < 2:
        return False
    vectors = unpack([image.signature for image, _ in kept])
    first, second = np.random.default_rng(0).integers(0, len(kept), (2, 16 * _SAMPLED_PAIRS))
    same = (group[first] == group[second]) & (first != second)
    different = group[first] != group[second]
    pairs = [np.flatnonzero(selected)[:_SAMPLED_PAIRS] for selected in (same, different)]
    if min(map(len, pairs)) < 8:
        return False
    within, between = (float(np.median(distances(vectors, first[k], second[k]))) for k in pairs)
    return within < _GROUP_DISTANCE * between


def adjacent_frames(survey: Survey) -> Iterator[Finding]:
    """Find adjacent frames of a video, by number and by similarity, in different splits."""
    images = [image for image in survey.usable if image.signature]
    if len(survey.datasets) < 2 or len(images) < _MIN_FRAMES:
        return
    vectors = unpack([image.signature for image in images])
    first, second = np.random.default_rng(0).integers(0, len(images), (2, _SAMPLED_PAIRS))
    differ = first != second
    typical = float(np.median(distances(vectors, first[differ], second[differ])))
    pairs: list[Pair] = []
    for places, numbers in _sequences(_paths(survey, images)):
        splits = [images[place].split for place in places]
        steps = distances(vectors, places[:-1], places[1:])
        if len(places) <= _MIN_FRAMES or float(np.median(steps)) > _FRAME_DISTANCE * typical:
            continue
        usual_gap = _usual_gaps(numbers, splits)
        for k, gap in enumerate(np.diff(numbers).tolist()):
            near = 0 < gap <= _MAX_GAP * max(usual_gap[splits[k]], usual_gap[splits[k + 1]])
            if splits[k] != splits[k + 1] and near and steps[k] < typical:
                pairs.append((images[places[k]], images[places[k + 1]]))
    if pairs:
        what = f"{plural(len(pairs), 'pair of adjacent frames is', 'pairs of adjacent frames are')} in two splits"
        why = "Adjacent frames show the same objects: scores on them say little about other times and places."
        fix = f"Keep each video in one split: {grouping_advice(survey, pairs)}."
        yield pair_finding(survey, "frames-across-parts", "warning", pairs, what, why, fix, sign="→")


def _sequences(paths: Sequence[str]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield the positions and frame numbers of every sequence, in the order of the numbers."""
    sequences: dict[str, list[tuple[int, int]]] = {}
    for place, path in enumerate(paths):
        frame = parse_frame(path)
        if frame is not None:
            sequences.setdefault(frame[0], []).append((frame[1], place))
    for frames in sequences.values():
        numbers, places = np.array(sorted(frames), np.int64).T
        yield places, numbers


def _usual_gaps(numbers: NDArray[np.int64], splits: Sequence[str]) -> dict[str, float]:
    """Return the median step between the frame numbers of each split; that of all frames for a split of one image."""
    overall = float(np.median(np.diff(numbers)))
    gaps: dict[str, float] = {}
    for split in set(splits):
        inside = numbers[np.array(splits) == split]
        gaps[split] = float(np.median(np.diff(inside))) if len(inside) > 1 else overall
    return gaps


def adjacent_tiles(survey: Survey) -> Iterator[Finding]:
    """Find adjacent tiles of a scene, by coordinates in their names, in different splits."""
    images = list(survey.usable)
    if len(survey.datasets) < 2 or any(survey.record(image).group is not None for image in images):
        return
    scenes: dict[str, dict[tuple[float, float], Inspection]] = {}
    paths = _paths(survey, images)
    tiles = [parse_tile(path) for path in paths]
    for image, tile in zip(images, tiles, strict=True):
        if tile is not None:
            scenes.setdefault(tile[0], {})[tile[1:]] = image
    pairs = [pair for scene in scenes.values() for pair in _touching(scene)]
    if not pairs:
        return
    affected = {image.example for pair in pairs for image in pair if image.split != "train"}
    total = sum(image.split != "train" for image in images)
    what = f"names look like coordinates, and {len(affected)} of {total} images outside train are adjacent to one of"
    what += " another split"
    why = "Adjacent tiles share fields, roads and lighting: scores on them say little about other places."
    fix = "Keep whole scenes, or strips of them, in one split: data.group takes a .csv table with the columns image and"
    fix += " group."
    if _are_strips(paths, tiles):
        fix = (
            f"Under data: in the YAML, write group: '{_STRIPS}' to keep strips together. Keep whole scenes together if"
        )
        fix += " there are several."
    options = survey.redivide_options({image.split for pair in pairs for image in pair})
    fix += f" Since the splits are given, also divide all images again: {options}." if options else ""
    yield pair_finding(survey, "tiles-across-parts", "warning", pairs, what, why, fix, sign="|")


def _are_strips(paths: Sequence[str], tiles: Sequence[Tile | None]) -> bool:
    """Whether the expression for strips gives each scene and first coordinate its own group."""
    groups: dict[tuple[str, float], str] = {}
    for path, tile in zip(paths, tiles, strict=True):
        match = re.search(_STRIPS, path)
        if match is None or tile is None or groups.setdefault(tile[:2], match[1]) != match[1]:
            return False
    return len(set(groups.values())) == len(groups)


def _touching(scene: dict[tuple[float, float], Inspection]) -> Iterator[Pair]:
    """Yield adjacent tiles in different splits, if the coordinates form a grid."""
    xs, ys = (sorted({place[axis] for place in scene}) for axis in (0, 1))
    if len(xs) < 2 or len(ys) < 2 or len(scene) < _MIN_FILLED * len(xs) * len(ys):
        return
    columns_of, rows_of = ({value: k for k, value in enumerate(values)} for values in (ys, xs))
    grid = {(rows_of[x], columns_of[y]): image for (x, y), image in scene.items()}
    for (row, column), image in sorted(grid.items(), key=lambda item: item[0]):
        for place in ((row + 1, column), (row, column + 1)):
            other = grid.get(place)
            if other is not None and other.split != image.split:
                yield image, other


CHECKS = (divided_groups, groups_in_names, adjacent_frames, adjacent_tiles)
