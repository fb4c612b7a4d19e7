"""Find the pictures and masks of a data set in the folders people have, and pair them up.

Comes in: the `data` section and a root folder. Goes out: records (paths) per part, and every file that has no partner.
Knows nothing of pixels, classes or random division: no file is opened here.

What is understood without a word of configuration, at the root or in any number of folders below it (`roles` has the table
of names, so `images` stands for `imgs`, `photos`, … and `masks` for `labels`, `gt`, …):

    images/ masks/                          two folders whose names say it, and equal paths below them
    train_images/ train_masks/              the same with anything before or behind that both share
    train/ trainannot/                      a folder, and one of its name with a word for masks added
    a.png b.png masks/                      masks/ beside the pictures themselves
    a.jpg a_mask.png  or  a.jpg a.png       picture and mask side by side (where no two folders belong together)

    {train,val,test}/… or …/{train,val,test}/   a folder called after a part makes it, wherever in the path; else: one pool
    splits/{train,val,test}.txt                 divides a pool
    fov/, roi/ or valid/ beside images/         masks of valid pixels: what is zero there counts in nothing
    gt2/ beside gt/                             a second truth: left out
    images/{train,test}/ masks/train/           a val or test part without any mask: left out, as its truth is kept back

Masks may have more in their names than the pictures, if it is the same in all (`masks/a_mask.png`). Where two things fit
equally well, it is asked; `data.masks` then says which: a folder (`labels`), a name (`{stem}_gt.png`), or both.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pixelwise.config import PartConfig
from pixelwise.data.formats.folders.gathering import find_by_folders
from pixelwise.data.formats.folders.globs import find_by_globs
from pixelwise.data.formats.format import Format, Found, Picture, copy_picture
from pixelwise.data.formats.place import Place
from pixelwise.data.lists import divide_by_lists, find_lists
from pixelwise.data.masks import write_mask
from pixelwise.data.records import PARTS, Layout, Problem, short
from pixelwise.labels import Labels


def find_records(place: Place) -> Layout:
    """Find every picture and its mask.

    Raises:
        DataError: no folder, no pictures, no masks.
        PairingError: two things fit equally well, or a picture is listed in two parts.
        ConfigError: a template or list that makes no sense.

    """
    config = place.config
    by_name = config.images is not None or any(isinstance(getattr(config, part), PartConfig) for part in PARTS)
    layout = find_by_globs(config, place.root) if by_name else find_by_folders(place)
    lists = find_lists(config, place.root, place.base)
    if lists:
        layout = divide_by_lists(layout, lists, place.root)
    return _without_partners(layout, place.root)


def _without_partners(layout: Layout, root: Path) -> Layout:
    """Turn the pictures that still have no mask into problems."""
    lost = [record for records in layout.parts.values() for record in records if record.mask is None]
    problems = tuple(Problem(short(record.image, root), "picture without a mask") for record in lost)
    parts = {part: tuple(r for r in records if r.mask is not None) for part, records in layout.parts.items()}
    return Layout(layout.kind, parts, problems + layout.problems, layout.notices)


def _read(place: Place) -> Found:
    return Found(find_records(place))


class _Writer:
    """Write pictures and palette masks, in two folders for each part."""

    def __init__(self, out: Path, labels: Labels) -> None:
        self.out, self.labels = out, labels

    def add(self, picture: Picture) -> Path:
        """Write a mask as PNG that keeps the ids."""
        target = self.out / picture.part / "images" / f"{picture.id}{picture.image.suffix.lower()}"
        copy_picture(picture, target)
        mask = self.out / picture.part / "masks" / f"{picture.id}.png"
        mask.parent.mkdir(parents=True, exist_ok=True)
        write_mask(mask, picture.mask, self.labels)
        return target

    def close(self) -> dict[str, Any]:
        """Need no more than the folders."""
        return {"format": "masks"}


FORMAT = Format("masks", "folders of masks", lambda place: None, _read, _Writer)
