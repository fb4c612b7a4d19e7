"""Folders of images and masks, paired by the names of folders and files; no file is opened.

Without configuration, these layouts are detected, at the root or in any folders below it (`names` has the table of names, so
`images` stands for `imgs`, `photos`, … and `masks` for `labels`, `gt`, …):

    images/ masks/                          two folders, and equal paths below them
    train_images/ train_masks/              the same with a common prefix or suffix
    train/ trainannot/                      a folder, and one of its name with a word for masks added
    a.png b.png masks/                      masks/ in the folder of the images
    a.jpg a_mask.png  or  a.jpg a.png       image and mask side by side (if no two folders belong together)

    {train,val,test}/… or …/{train,val,test}/   a folder named after a split, anywhere in the path; otherwise: one pool
    splits/{train,val,test}.txt                 divides a pool
    fov/, roi/ or valid/ beside images/         masks of valid pixels: pixels that are zero there are ignored
    gt2/ beside gt/                             a second set of masks: left out
    images/{train,test}/ masks/train/           a val or test split without any mask is left out

The names of masks may have a prefix or suffix that all share (`masks/a_mask.png`). If there are two equally good choices,
an error lists them; `data.masks` then names a folder (`labels`), a file name (`{stem}_gt.png`), or both.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from pixelwise.formats.base import ExportImage, Format, ReadResult, copy_image
from pixelwise.formats.dataset_root import DatasetRoot
from pixelwise.formats.folders.globs import find_by_globs
from pixelwise.formats.folders.layout import find_by_folders
from pixelwise.formats.folders.search import FolderPair, MaskRequest, Search, Tree
from pixelwise.formats.records import UNMASKED, Layout, Problem, short
from pixelwise.formats.split_lists import divide_by_lists, find_lists
from pixelwise.imageio.masks import write_mask
from pixelwise.labels import Labels


def find_records(dataset: DatasetRoot) -> Layout:
    """Find every image and its mask.

    Raises:
        DataError: no images, or no masks.
        PairingError: two equally good choices, or an image is listed in two splits.
        ConfigError: an invalid template or list.
    """
    layout = find_by_globs(dataset) if dataset.named_splits else find_by_folders(dataset)
    lists = find_lists(dataset.config, dataset.root, dataset.base)
    if lists:
        dataset.use(*lists.values())
        layout = divide_by_lists(layout, lists, dataset.root)
    unmasked = [record for record in layout.records if record.mask is None]
    problems = tuple(Problem(short(record.image, dataset.root), UNMASKED) for record in unmasked)
    splits = {split: tuple(r for r in records if r.mask is not None) for split, records in layout.splits.items()}
    return replace(layout, splits=splits, problems=problems + layout.problems)


def find_folder_pairs(dataset: DatasetRoot) -> list[FolderPair]:
    """Find the folders of images and masks that belong together.

    Raises:
        PairingError: two folders fit equally well.
    """
    return Search(Tree(dataset), MaskRequest()).pairs(dataset.root)


def _read(dataset: DatasetRoot) -> ReadResult:
    return ReadResult(find_records(dataset))


def copy_into_folders(out: Path, image: ExportImage) -> tuple[Path, Path]:
    """Copy an image to images/ of its split; return the copy and the path of its mask in masks/."""
    target = out / image.split / "images" / f"{image.id}{image.image.suffix.lower()}"
    copy_image(image, target)
    mask = out / image.split / "masks" / f"{image.id}.png"
    mask.parent.mkdir(parents=True, exist_ok=True)
    return target, mask


class _Writer:
    """Writes images and palette masks in two folders per split."""

    def __init__(self, out: Path, labels: Labels) -> None:
        self.out = out
        self.labels = labels

    def add(self, image: ExportImage) -> Path:
        """Write a mask as PNG with the ids of the classes."""
        target, mask = copy_into_folders(self.out, image)
        write_mask(mask, image.mask, self.labels)
        return target

    def close(self) -> dict[str, Any]:
        """Return the `data` section; there are no further files."""
        return {"format": "masks"}


FORMAT = Format("masks", "folders of masks", lambda dataset: None, _read, _Writer)
