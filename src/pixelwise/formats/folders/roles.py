"""What the names of folders and files say: here are images, here are masks, and which belong together.

Comes in: names. Goes out: roles. Knows nothing of where the files lie. The table is short on purpose: a name that is not in
it is never guessed at, and the error shows the table.

    images   image(s) img(s) JPEGImages image(s) photo(s) input(s)
    masks      mask(s) label(s) annotation(s) annot gt groundtruth truth segmentation(s) seg SegmentationClass target(s)
    valid      fov roi valid                          zero where pixels do not count

A folder has the name itself (`masks/`), or with something before or behind that its partner shares: `train_masks/`,
`trainannot/`, `masks_train/`, `labelsTr/`, and `ann_dir/` beside `img_dir/`. A number behind (`gt2/`) is another of the same. A file has it before or behind
an underscore, dash, dot or space: `a_mask.png`, `mask-a.png`, `a_L.png`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from pixelwise.formats.records import SPLIT_FOLDERS

IMAGES = ("images", "image", "imgs", "img", "jpegimages", "pictures", "picture", "photos", "photo", "inputs", "input")
MASKS = (
    "masks", "mask", "labels", "label", "annotations", "annotation", "annots", "annot", "gt", "groundtruth", "ground_truth",
    "truth", "segmentations", "segmentation", "segmentationclass", "seg", "targets", "target",
)  # fmt: skip
VALID = ("fov", "roi", "valid")
SHOWN_IMAGES = "images/, imgs/, JPEGImages/, photos/, inputs/"
SHOWN_MASKS = "masks/, labels/, annotations/, gt/, groundtruth/, segmentations/, targets/"
# Words of files only: too short to say anything of a folder.
_IMAGE_ENDS = (*IMAGES, "sat", "rgb")
_CAPITALS = {"L", "P"}  # CamVid's a_L.png and its copies
_SPLITS = {name: split for split, names in SPLIT_FOLDERS.items() for name in names} | {"tr": "train", "ts": "test"}


@dataclass(frozen=True)
class Role:
    """Say what a name may mean.

    Args:
        kind: "image", "mask" or "valid".
        base: what is left of the name, in small letters for folders: its partner has the same.
        number: a number behind the word, 0 where there is none.

    """

    kind: str
    base: str = ""
    number: int = 0


def _words(words: Sequence[str]) -> str:
    return "|".join(sorted(words, key=lambda word: -len(word)))


_BEHIND = {
    kind: re.compile(rf"(.*?)_?({_words(words)})_?([0-9]*)") for kind, words in (("image", IMAGES), ("mask", MASKS))
}
_BEFORE = {
    kind: re.compile(rf"(?i:{_words(words)})(?:_|(?=[A-Z]))(.+)")
    for kind, words in (("image", IMAGES), ("mask", (*MASKS, "ann")))  # ann_dir/ is the partner of img_dir/
}
_STEM_BEHIND = {
    kind: re.compile(rf"(.+)[_\-. ](?:{_words(words)})(?:[_\- ]?([0-9]+))?", re.I)
    for kind, words in (("mask", MASKS), ("image", _IMAGE_ENDS))
}
_STEM_BEFORE = {
    kind: re.compile(rf"(?:{_words(words)})[_\-. ](.+)", re.I)
    for kind, words in (("mask", MASKS), ("image", _IMAGE_ENDS))
}


@lru_cache(maxsize=4096)
def folder_roles(name: str) -> tuple[Role, ...]:
    """Give everything that a folder's name may mean, the plainest first: "mask_images" is either kind."""
    text = re.sub(r"[\- .]", "_", name)
    low = text.lower()
    roles = [Role("valid")] if low in VALID else []
    for kind, pattern in _BEHIND.items():
        if found := pattern.fullmatch(low):
            roles.append(Role(kind, found[1], int(found[3] or 0)))
    for kind, pattern in _BEFORE.items():
        if found := pattern.fullmatch(text):
            roles.append(Role(kind, found[1].lower()))
    return tuple(sorted(set(roles), key=lambda role: (len(role.base), role.number, role.kind)))


def is_folder_of(kind: str, name: str) -> bool:
    """Say whether a folder is called as the table has it, with nothing before or behind."""
    return Role(kind) in folder_roles(name)


def fold(name: str) -> str:
    """Write a folder's name as `Role.base` has it."""
    return re.sub(r"[\- .]", "_", name).lower()


def stem_role(stem: str) -> Role | None:
    """Give what a file's name without suffix says, and the stem that is left; None where it says nothing."""
    for kind, pattern in _STEM_BEHIND.items():
        if found := pattern.fullmatch(stem):
            return Role(kind, found[1], int(found[2] or 0))
    head, _, tail = stem.rpartition("_")
    if head and tail in _CAPITALS:
        return Role("mask", head)
    for kind, pattern in _STEM_BEFORE.items():
        if found := pattern.fullmatch(stem):
            return Role(kind, found[1])
    return None


def find_split(folders: Sequence[str]) -> tuple[int, str] | None:
    """Find the outermost folder that is called after a part: its place in the list, and the part."""
    for place, name in enumerate(folders):
        low = name.lower()
        split = _SPLITS.get(low) or _SPLITS.get(low.rstrip("0123456789_-"))
        if split is not None:
            return place, split
    return None
