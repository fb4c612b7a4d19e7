"""Pair images and masks by the names of folders and files.

One short table of words decides whether a name indicates images, masks or masks of valid pixels:

    images   image(s) img(s) JPEGImages picture(s) photo(s) input(s)
    masks    mask(s) label(s) annotation(s) annot gt groundtruth truth segmentation(s) seg SegmentationClass target(s)
             1st_manual (DRIVE, where mask/ beside it is the field of view)
    valid    fov roi valid

A folder has the word itself (`masks/`) or a prefix or suffix that its partner shares: `train_masks/`, `trainannot/`,
`masks_train/`, `labelsTr/`, and `ann_dir/` beside `img_dir/`; a number at the end (`gt2/`) marks another of the same kind.
A file has the word before or after a separator: `a_mask.png`, `mask-a.png`, `a_L.png`.

Names below two folders are paired by a `Tie`: they are equal, or equal without a prefix and suffix common to all images or
all masks (`images/a.png` and `masks/a_mask.png`, `img_012.png` and `gt_012.png`).
"""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from pixelwise.formats.dataset_root import SPLIT_NAMES
from pixelwise.formats.records import ORPHAN, Record, composed

Files = Mapping[str, Sequence[Path]]

IMAGES = ("images", "image", "imgs", "img", "jpegimages", "pictures", "picture", "photos", "photo", "inputs", "input")
MASKS = (
    "masks", "mask", "labels", "label", "annotations", "annotation", "annots", "annot", "gt", "groundtruth", "ground_truth",
    "truth", "segmentations", "segmentation", "segmentationclass", "seg", "targets", "target", "1st_manual",
)  # fmt: skip
VALID = ("fov", "roi", "valid")
SHOWN_MASKS = "masks/, labels/, annotations/, gt/, groundtruth/, segmentations/, targets/"
_CAPITALS = {"L", "P"}  # CamVid's a_L.png and its copies
_SPLITS = SPLIT_NAMES | {"tr": "train", "ts": "test"}
_SAMPLED = 24
_MOST_AFFIXES = 8
_LONGEST_STEM = 200


@dataclass(frozen=True)
class Role:
    """A possible meaning of a name."""

    kind: str  # "image", "mask" or "valid"
    base: str = ""  # the rest of the name, in lower case for folders; the partner has the same
    number: int = 0  # a number after the word


def _any_of(words: Iterable[str]) -> str:
    return "|".join(sorted(words, key=len, reverse=True))


_FOLDER_SUFFIX = {
    kind: re.compile(rf"(.*?)_?({_any_of(words)})_?([0-9]*)") for kind, words in (("image", IMAGES), ("mask", MASKS))
}
_FOLDER_PREFIX = {
    kind: re.compile(rf"(?i:{_any_of(words)})(?:_|(?=[A-Z]))(.+)")
    for kind, words in (("image", IMAGES), ("mask", (*MASKS, "ann")))
}
_FILE_WORDS = {"mask": MASKS, "image": (*IMAGES, "sat", "rgb")}
_FILE_SUFFIX = {
    kind: re.compile(rf"(.+)[_\-. ](?:{_any_of(words)})(?:[_\- ]?([0-9]+))?", re.I)
    for kind, words in _FILE_WORDS.items()
}
_FILE_PREFIX = {kind: re.compile(rf"(?:{_any_of(words)})[_\-. ](.+)", re.I) for kind, words in _FILE_WORDS.items()}


@lru_cache(maxsize=4096)
def folder_roles(name: str) -> tuple[Role, ...]:
    """Return all possible roles of a folder name, the shortest base first: "mask_images" is both images and masks."""
    text = re.sub(r"[\- .]", "_", name)
    roles = {Role("valid")} if text.lower() in VALID else set()
    for kind, pattern in _FOLDER_SUFFIX.items():
        if found := pattern.fullmatch(text.lower()):
            roles.add(Role(kind, found[1], int(found[3] or 0)))
    for kind, pattern in _FOLDER_PREFIX.items():
        if found := pattern.fullmatch(text):
            roles.add(Role(kind, found[1].lower()))
    return tuple(sorted(roles, key=lambda role: (len(role.base), role.number, role.kind)))


def has_role(kind: str, name: str) -> bool:
    """Whether a folder name is a word of the table, without prefix or suffix."""
    return Role(kind) in folder_roles(name)


def folder_base(name: str) -> str:
    """Return a folder name in the form of `Role.base`."""
    return re.sub(r"[\- .]", "_", name).lower()


def stem_role(stem: str) -> Role | None:
    """Return the role of a file name without suffix, or None."""
    for kind, pattern in _FILE_SUFFIX.items():
        if found := pattern.fullmatch(stem):
            return Role(kind, found[1], int(found[2] or 0))
    head, _, tail = stem.rpartition("_")
    if head and tail in _CAPITALS:
        return Role("mask", head)
    matches = ((kind, pattern.fullmatch(stem)) for kind, pattern in _FILE_PREFIX.items())
    return next((Role(kind, found[1]) for kind, found in matches if found), None)


def find_split(folders: Sequence[str]) -> tuple[int, str] | None:
    """Return the index of the outermost folder that is named after a split, and the split."""
    for index, name in enumerate(folders):
        split = _SPLITS.get(name.lower()) or _SPLITS.get(name.lower().rstrip("0123456789_-"))
        if split is not None:
            return index, split
    return None


# Pairing by the names of files ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Affix:
    """A prefix and suffix common to all names."""

    before: str = ""
    behind: str = ""

    def core(self, key: str) -> str | None:
        """Return a name without the affix, with its folders; None if it does not have it."""
        folder, slash, stem = key.rpartition("/")
        if len(stem) <= len(self.before) + len(self.behind):
            return None
        if not (stem.startswith(self.before) and stem.endswith(self.behind)):
            return None
        return folder + slash + stem[len(self.before) : len(stem) - len(self.behind)]

    def around(self, stem: str) -> str:
        """Return a stem with the affix."""
        return f"{self.before}{stem}{self.behind}"


@dataclass(frozen=True)
class Tie:
    """How the names of masks follow from those of images: the affixes to remove before names are compared."""

    image: Affix = Affix()
    mask: Affix = Affix()
    count: int = 0  # images that find a mask
    rival: Affix | None = None  # another affix of masks that fits equally well

    @property
    def plain(self) -> bool:
        """Whether names are compared as they are."""
        return self.image == self.mask == Affix()

    def example(self) -> str:
        """Return an example: "x with x_mask"."""
        return f"{self.image.around('x')} with {self.mask.around('x')}"


@dataclass(frozen=True)
class Paired:
    """Records, of which some have no mask, and files with a problem, each with the reason."""

    records: list[Record] = field(default_factory=list)
    problems: list[tuple[Path, str]] = field(default_factory=list)


def key_of(path: Path, folder: Path) -> str:
    """Return the path of a file below a folder, without suffix, with forward slashes, in Unicode form NFC."""
    start = "" if str(folder) == os.curdir else str(folder).rstrip(os.sep) + os.sep
    text = str(path).removeprefix(start)
    text = composed(text[: len(text) - len(path.suffix)])
    return text.replace(os.sep, "/") if os.sep != "/" else text


def by_key(paths: Iterable[Path], folder: Path) -> dict[str, list[Path]]:
    """Group files by `key_of`, in order."""
    files: dict[str, list[Path]] = defaultdict(list)
    for path in paths:
        files[key_of(path, folder)].append(path)
    return dict(files)


def pair(images: Files, masks: Files, tie: Tie = Tie()) -> Paired:
    """Pair images and masks by a tie. An image without a mask is kept with mask None: a list may not name it.

    The id of a record is the unchanged name of the image.
    """
    done = Paired()
    images_by_core: dict[str, list[tuple[str, Path]]] = defaultdict(list)
    for key, paths in images.items():
        images_by_core[tie.image.core(key) or key] += [(key, path) for path in paths]
    masks_by_core: dict[str, list[Path]] = defaultdict(list)
    for key, paths in masks.items():
        masks_by_core[tie.mask.core(key) or key] += paths
    for core, named in images_by_core.items():
        own = masks_by_core.get(core, [])
        for paths, kind in (([path for _, path in named], "images"), (own, "masks")):
            if len(paths) > 1:
                others = ", ".join(path.name for path in paths[1:])
                done.problems.append((paths[0], f"several {kind} of the same name (also {others})"))
        if len(named) == 1 and len(own) < 2:
            done.records.append(Record(named[0][0], named[0][1], own[0] if own else None))
    done.problems.extend((paths[0], ORPHAN) for core, paths in masks_by_core.items() if core not in images_by_core)
    return done


def find_tie(images: Collection[str], masks: Collection[str]) -> Tie:
    """Find how the names of masks follow from those of images; `count` is 0 if they do not.

    Args:
        images: names below their folder, without suffix; a collection with fast lookup.
        masks: the same for masks.
    """
    equal = sum(key in images for key in masks)
    unmatched = [key for key in masks if key not in images]
    if not unmatched or not images:
        return Tie(count=equal)
    affixes = _affixes(images, unmatched)
    if equal:
        # Equal names have priority; but if every image also has a_colour.png, either may be meant.
        rival = next((affix for affix, count in affixes if 2 * count > max(equal, len(unmatched) / 2)), None)
        return Tie(count=equal, rival=rival)
    if affixes and 2 * affixes[0][1] > min(len(images), len(masks)):
        best, count = affixes[0]
        rival = next((affix for affix, other in affixes[1:] if 2 * other > count), None)
        return Tie(mask=best, count=count, rival=rival)
    return _tie_without_common_affixes(images, masks)


def _affixes(images: Collection[str], masks: Sequence[str]) -> list[tuple[Affix, int]]:
    """Find affixes around image names in mask names, with the number of images that find a mask, most first."""
    seen: Counter[Affix] = Counter()
    lengths = sorted({len(key.rpartition("/")[2]) for key in images})
    for key in masks[:: max(1, len(masks) // _SAMPLED)][:_SAMPLED]:
        folder, slash, stem = key.rpartition("/")
        if len(stem) > _LONGEST_STEM:
            continue
        for length in lengths:
            for start in range(len(stem) - length + 1):
                end = start + length
                if folder + slash + stem[start:end] in images and not _cuts_number(stem, start, end):
                    seen[Affix(stem[:start], stem[end:])] += 1
    affixes = [
        (affix, len({core for key in masks if (core := affix.core(key)) in images}))
        for affix, _ in seen.most_common(_MOST_AFFIXES)
    ]
    return sorted(affixes, key=lambda item: (-item[1], item[0].before, item[0].behind))


def _cuts_number(stem: str, start: int, end: int) -> bool:
    """Whether a range begins or ends within a number: 1 in 11, 7 in 17_mask."""
    return any(0 < k < len(stem) and stem[k - 1].isdigit() and stem[k].isdigit() for k in (start, end))


def _tie_without_common_affixes(images: Collection[str], masks: Collection[str]) -> Tie:
    """Remove what all images have in common, and what all masks have; only if every file then has a partner."""
    if len(images) != len(masks) or len(images) < 2:
        return Tie()
    image = _common_affix(images)
    mask = _common_affix(masks)
    cores = {image.core(key) for key in images}
    if None in cores or cores != {mask.core(key) for key in masks}:
        return Tie()
    return Tie(image, mask, len(images))


def _common_affix(keys: Collection[str]) -> Affix:
    """Find the whole words that all names begin and end with, without cutting numbers or longer words."""
    stems = [key.rpartition("/")[2] for key in keys]
    before = _common_prefix(stems).rstrip("0123456789")
    # A word ends at a separator, or where a number begins in all names.
    if not (before and before[-1].isalpha() and all(stem[len(before) : len(before) + 1].isdigit() for stem in stems)):
        before = re.sub(r"[^_\-. ]+$", "", before)
    behind = _common_prefix([stem[len(before) :][::-1] for stem in stems])[::-1]
    return Affix(before, re.sub(r"^[^_\-. ]+", "", behind))


def _common_prefix(texts: Sequence[str]) -> str:
    first, last = min(texts), max(texts)
    return first[: next((k for k, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))]
