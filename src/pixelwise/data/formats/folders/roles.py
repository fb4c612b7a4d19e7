"""What the names of folders and files say: here are pictures, here are masks, and which belong together.

Comes in: names. Goes out: roles. Knows nothing of where the files lie. The table is short on purpose: a name that is not in
it is never guessed at, and the error shows the table.

    pictures   image(s) img(s) JPEGImages picture(s) photo(s) input(s)
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

from pixelwise.data.records import PART_FOLDERS

PICTURES = ("images", "image", "imgs", "img", "jpegimages", "pictures", "picture", "photos", "photo", "inputs", "input")
MASKS = (
    "masks", "mask", "labels", "label", "annotations", "annotation", "annots", "annot", "gt", "groundtruth", "ground_truth",
    "truth", "segmentations", "segmentation", "segmentationclass", "seg", "targets", "target",
)  # fmt: skip
VALID = ("fov", "roi", "valid")
SHOWN_PICTURES = "images/, imgs/, JPEGImages/, photos/, inputs/"
SHOWN_MASKS = "masks/, labels/, annotations/, gt/, groundtruth/, segmentations/, targets/"
# Words of files only: too short to say anything of a folder.
_PICTURE_ENDS = (*PICTURES, "sat", "rgb")
_CAPITALS = {"L", "P"}  # CamVid's a_L.png and its copies
_PARTS = {name: part for part, names in PART_FOLDERS.items() for name in names} | {"tr": "train", "ts": "test"}


@dataclass(frozen=True)
class Role:
    """Say what a name may mean.

    Args:
        kind: "picture", "mask" or "valid".
        base: what is left of the name, in small letters for folders: its partner has the same.
        number: a number behind the word, 0 where there is none.

    """

    kind: str
    base: str = ""
    number: int = 0


def _words(words: Sequence[str]) -> str:
    return "|".join(sorted(words, key=lambda word: -len(word)))


_BEHIND = {
    kind: re.compile(rf"(.*?)_?({_words(words)})_?([0-9]*)") for kind, words in (("picture", PICTURES), ("mask", MASKS))
}
_BEFORE = {
    kind: re.compile(rf"(?i:{_words(words)})(?:_|(?=[A-Z]))(.+)")
    for kind, words in (("picture", PICTURES), ("mask", (*MASKS, "ann")))  # ann_dir/ is the partner of img_dir/
}
_STEM_BEHIND = {
    kind: re.compile(rf"(.+)[_\-. ](?:{_words(words)})(?:[_\- ]?([0-9]+))?", re.I)
    for kind, words in (("mask", MASKS), ("picture", _PICTURE_ENDS))
}
_STEM_BEFORE = {
    kind: re.compile(rf"(?:{_words(words)})[_\-. ](.+)", re.I)
    for kind, words in (("mask", MASKS), ("picture", _PICTURE_ENDS))
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


def find_part(folders: Sequence[str]) -> tuple[int, str] | None:
    """Find the outermost folder that is called after a part: its place in the list, and the part."""
    for place, name in enumerate(folders):
        low = name.lower()
        part = _PARTS.get(low) or _PARTS.get(low.rstrip("0123456789_-"))
        if part is not None:
            return place, part
    return None
