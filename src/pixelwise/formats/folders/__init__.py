"""Find the images and masks of a data set in the folders people have, and pair them up.

Comes in: the `data` section and a root folder. Goes out: records (paths) per part, and every file that has no partner.
Knows nothing of pixels, classes or random division: no file is opened here.

What is understood without a word of configuration, at the root or in any number of folders below it (`roles` has the table
of names, so `images` stands for `imgs`, `photos`, … and `masks` for `labels`, `gt`, …):

    images/ masks/                          two folders whose names say it, and equal paths below them
    train_images/ train_masks/              the same with anything before or behind that both share
    train/ trainannot/                      a folder, and one of its name with a word for masks added
    a.png b.png masks/                      masks/ beside the images themselves
    a.jpg a_mask.png  or  a.jpg a.png       image and mask side by side (where no two folders belong together)

    {train,val,test}/… or …/{train,val,test}/   a folder called after a part makes it, wherever in the path; else: one pool
    splits/{train,val,test}.txt                 divides a pool
    fov/, roi/ or valid/ beside images/         masks of valid pixels: what is zero there counts in nothing
    gt2/ beside gt/                             a second truth: left out
    images/{train,test}/ masks/train/           a val or test part without any mask: left out, as its truth is kept back

Masks may have more in their names than the images, if it is the same in all (`masks/a_mask.png`). Where two things fit
equally well, it is asked; `data.masks` then says which: a folder (`labels`), a name (`{stem}_gt.png`), or both.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pixelwise.config import SplitFilesConfig
from pixelwise.formats.base import ExportImage, Format, ReadResult, copy_image
from pixelwise.formats.dataset_root import DatasetRoot
from pixelwise.formats.folders.gathering import find_by_folders
from pixelwise.formats.folders.globs import find_by_globs
from pixelwise.formats.records import SPLITS, Layout, Problem, short
from pixelwise.formats.split_lists import divide_by_lists, find_lists
from pixelwise.imageio.masks import write_mask
from pixelwise.labels import Labels


def find_records(place: DatasetRoot) -> Layout:
    """Find every image and its mask.

    Raises:
        DataError: no folder, no images, no masks.
        PairingError: two things fit equally well, or an image is listed in two parts.
        ConfigError: a template or list that makes no sense.

    """
    config = place.config
    by_name = config.images is not None or any(isinstance(getattr(config, split), SplitFilesConfig) for split in SPLITS)
    layout = find_by_globs(config, place.root) if by_name else find_by_folders(place)
    lists = find_lists(config, place.root, place.base)
    if lists:
        layout = divide_by_lists(layout, lists, place.root)
    return _without_partners(layout, place.root)


def _without_partners(layout: Layout, root: Path) -> Layout:
    """Turn the images that still have no mask into problems."""
    lost = [record for records in layout.splits.values() for record in records if record.mask is None]
    problems = tuple(Problem(short(record.image, root), "image without a mask") for record in lost)
    splits = {split: tuple(r for r in records if r.mask is not None) for split, records in layout.splits.items()}
    return Layout(layout.kind, splits, problems + layout.problems, layout.notices)


def _read(place: DatasetRoot) -> ReadResult:
    return ReadResult(find_records(place))


class _Writer:
    """Write images and palette masks, in two folders for each part."""

    def __init__(self, out: Path, labels: Labels) -> None:
        self.out, self.labels = out, labels

    def add(self, image: ExportImage) -> Path:
        """Write a mask as PNG that keeps the ids."""
        target = self.out / image.split / "images" / f"{image.id}{image.image.suffix.lower()}"
        copy_image(image, target)
        mask = self.out / image.split / "masks" / f"{image.id}.png"
        mask.parent.mkdir(parents=True, exist_ok=True)
        write_mask(mask, image.mask, self.labels)
        return target

    def close(self) -> dict[str, Any]:
        """Need no more than the folders."""
        return {"format": "masks"}


FORMAT = Format("masks", "folders of masks", lambda place: None, _read, _Writer)
