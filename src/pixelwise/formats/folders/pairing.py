"""Pair images with masks by their names: equal, or with the same letters before or behind in every one.

Comes in: files under their names below a folder. Goes out: records, and what found no partner. Knows nothing of folders,
parts or pixels.

A name is tied to another where something before or behind it is the same for all: `masks/a_mask.png` belongs to
`images/a.png`, `gt_012.png` to `img_012.png`. Such a tie is taken only where no name is equal, where it gives most masks
their image, and where no other tie does so as well.
"""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pixelwise.formats.records import ORPHAN, Record, composed

Files = Mapping[str, Sequence[Path]]
_LOOKED_AT, _TRIED, _LONGEST = 24, 8, 200


@dataclass(frozen=True)
class Affix:
    """Hold what stands before and behind in every name; nothing, as it is made."""

    before: str = ""
    behind: str = ""

    def core(self, key: str) -> str | None:
        """Give a name without them; folders are left as they are; None where they do not stand there."""
        folder, slash, stem = key.rpartition("/")
        if len(stem) <= len(self.before) + len(self.behind):
            return None
        if not (stem.startswith(self.before) and stem.endswith(self.behind)):
            return None
        return folder + slash + stem[len(self.before) : len(stem) - len(self.behind)]

    def around(self, stem: str) -> str:
        """Put them around a stem."""
        return f"{self.before}{stem}{self.behind}"


@dataclass(frozen=True)
class Tie:
    """Say how the names of masks follow from those of images, and how many do.

    Args:
        image, mask: what is taken off either, before they are equal.
        count: images that find a mask by it.
        rival: another way that is as good; the two cannot be told apart.

    """

    image: Affix = Affix()
    mask: Affix = Affix()
    count: int = 0
    rival: Affix | None = None

    @property
    def plain(self) -> bool:
        """Say whether the names are equal as they are."""
        return self.image == self.mask == Affix()

    def words(self) -> str:
        """Show it on a name: "x.png with x_mask"."""
        return f"{self.image.around('x')} with {self.mask.around('x')}"


@dataclass(frozen=True)
class Paired:
    """Hold what pairing gave: records, some without mask, and files that are problems, each with the reason."""

    records: list[Record] = field(default_factory=list)
    odd: list[tuple[Path, str]] = field(default_factory=list)


def key_of(path: Path, folder: Path) -> str:
    """Name a file by its path below a folder, without suffix, with forward slashes, and `composed`."""
    start = "" if str(folder) == os.curdir else str(folder).rstrip(os.sep) + os.sep
    text = str(path).removeprefix(start)
    text = composed(text[: len(text) - len(path.suffix)])
    return text.replace(os.sep, "/") if os.sep != "/" else text


def by_key(paths: Iterable[Path], folder: Path) -> dict[str, list[Path]]:
    """Gather files by `key_of`, in their order."""
    files: dict[str, list[Path]] = defaultdict(list)
    for path in paths:
        files[key_of(path, folder)].append(path)
    return dict(files)


def pair(images: Files, masks: Files, tie: Tie = Tie()) -> Paired:
    """Pair by equal names once the tie's letters are off; an image without a mask stays, with None: lists may not name it.

    Each record's id is the image's name as it is.
    """
    done = Paired()
    image_files: dict[str, list[tuple[str, Path]]] = defaultdict(list)
    for key, paths in images.items():
        image_files[tie.image.core(key) or key] += [(key, path) for path in paths]
    truths: dict[str, list[Path]] = defaultdict(list)
    for key, paths in masks.items():
        truths[tie.mask.core(key) or key] += paths
    for core, named in image_files.items():
        own = truths.get(core, [])
        for twice, what in (([path for _, path in named], "images"), (own, "masks")):
            if len(twice) > 1:
                others = ", ".join(path.name for path in twice[1:])
                done.odd.append((twice[0], f"several {what} of the same name (also {others})"))
        if len(named) == 1 and len(own) < 2:
            done.records.append(Record(named[0][0], named[0][1], own[0] if own else None))
    done.odd.extend((paths[0], ORPHAN) for core, paths in truths.items() if core not in image_files)
    return done


def find_tie(images: Collection[str], masks: Collection[str]) -> Tie:
    """Find how the names of masks follow from those of images; `count` is 0 where they do not.

    Args:
        images: names below their folder, without suffix; a collection that is quick to ask.
        masks: the same of masks.

    """
    equal = sum(key in images for key in masks)
    orphans = [key for key in masks if key not in images]
    if not orphans or not images:
        return Tie(count=equal)
    ways = _around(images, orphans)
    if equal:
        # Names that are equal come first; but where every image has a_colour.png, too, either may be meant.
        rival = next((affix for affix, count in ways if 2 * count > max(equal, len(orphans) / 2)), None)
        return Tie(count=equal, rival=rival)
    if ways and 2 * ways[0][1] > min(len(images), len(masks)):
        best, count = ways[0]
        rival = next((affix for affix, other in ways[1:] if 2 * other > count), None)
        return Tie(mask=best, count=count, rival=rival)
    return _common(images, masks)


def _around(images: Collection[str], masks: Sequence[str]) -> list[tuple[Affix, int]]:
    """Find what stands around the names of images in those of masks: with the images that find a mask so, most first."""
    seen: Counter[Affix] = Counter()
    lengths = sorted({len(key.rpartition("/")[2]) for key in images})
    step = max(1, len(masks) // _LOOKED_AT)
    for key in masks[::step][:_LOOKED_AT]:
        folder, slash, stem = key.rpartition("/")
        if len(stem) > _LONGEST:
            continue
        for length in lengths:
            for start in range(len(stem) - length + 1):
                end = start + length
                if folder + slash + stem[start:end] in images and _apart(stem, start, end):
                    seen[Affix(stem[:start], stem[end:])] += 1
    ways = [
        (affix, len({c for key in masks if (c := affix.core(key)) in images})) for affix, _ in seen.most_common(_TRIED)
    ]
    return sorted(ways, key=lambda way: (-way[1], way[0].before, way[0].behind))


def _apart(stem: str, start: int, end: int) -> bool:
    """Keep numbers whole: 1 does not stand in 11, nor 7 in 17_mask."""
    cut_before = start > 0 and stem[start - 1].isdigit() and stem[start].isdigit()
    cut_behind = end < len(stem) and stem[end - 1].isdigit() and stem[end].isdigit()
    return not (cut_before or cut_behind)


def _common(images: Collection[str], masks: Collection[str]) -> Tie:
    """Take off what all images have in common, and what all masks have: taken only where every one then has its partner."""
    if len(images) != len(masks) or len(images) < 2:
        return Tie()
    image, mask = _shared(images), _shared(masks)
    left = {image.core(key) for key in images}
    if None in left or left != {mask.core(key) for key in masks}:
        return Tie()
    return Tie(image, mask, len(images))


def _shared(keys: Collection[str]) -> Affix:
    """Find the whole words that all names begin and end with: numbers, and words that go on, are not cut."""
    stems = [key.rpartition("/")[2] for key in keys]
    before = _beginning(stems).rstrip("0123456789")
    # A word ends with a sign, or where digits begin in all of them.
    if not (before and before[-1].isalpha() and all(stem[len(before) : len(before) + 1].isdigit() for stem in stems)):
        before = re.sub(r"[^_\-. ]+$", "", before)
    behind = _beginning([stem[len(before) :][::-1] for stem in stems])[::-1]
    return Affix(before, re.sub(r"^[^_\-. ]+", "", behind))


def _beginning(texts: Sequence[str]) -> str:
    """Give what all texts begin with: what the first and the last in order have in common."""
    first, last = min(texts), max(texts)
    same = (k for k, (one, other) in enumerate(zip(first, last, strict=False)) if one != other)
    return first[: next(same, min(len(first), len(last)))]
