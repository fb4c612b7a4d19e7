"""Describe the folder layouts and classes of public data sets, for the modules that read them."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from pixelwise.config import SplitFilesConfig
from pixelwise.formats.dataset_root import DatasetRoot, split_of_folder
from pixelwise.formats.folders import find_records
from pixelwise.formats.records import SPLITS, Layout, short
from pixelwise.imageio.file_formats import image_files

_CLASS = re.compile(r"(.+?)(\*?)((?: -?\d+)*)")


def parse_classes(text: str) -> list[tuple[str, bool, list[int]]]:
    """Parse a class list: names, separated by commas, with * if countable, and numbers such as ids and colours."""
    matches = (_CLASS.fullmatch(item.strip()) for item in text.replace("\n", " ").split(","))
    return [(m[1], bool(m[2]), [int(number) for number in m[3].split()]) for m in matches if m is not None]


@dataclass(frozen=True)
class FolderLayout:
    """Where a data set has its images and masks.

    Args:
        images: the folder of images; {split} is any folder at the root that is named after a split.
        masks: template of the masks, without suffix; {images} is the folder of images.
        requires: files at the root, of which one must exist; () if none is needed.
        holds_ids: masks hold ids even if they have a palette.
    """

    images: str
    masks: str
    requires: tuple[str, ...] = ()
    holds_ids: bool = False


Splits = dict[str, SplitFilesConfig]


def find_layout(dataset: DatasetRoot, layouts: Iterable[FolderLayout]) -> tuple[FolderLayout, Splits] | None:
    """Return the first of several folder layouts that matches a data set, and its files per split or for "pool"."""
    root = dataset.root
    folders = _images_by_folder(dataset)
    children = sorted(path for path in folders if path.parent == root)
    for layout in layouts:
        if layout.requires and not any((root / name).is_file() for name in layout.requires):
            continue
        candidates = [("pool", root / layout.images)]
        if layout.images == "{split}":
            candidates = [(split, path) for path in children if (split := split_of_folder(path / "x", root))]
        splits: Splits = {}
        for split, images in candidates:
            masks = root / layout.masks.format(images=images.name, stem="{stem}")
            ending = masks.name.removeprefix("{stem}")
            suffixes = Counter(path.suffix for path in folders.get(masks.parent, ()) if path.stem.endswith(ending))
            if images in folders and suffixes and split not in splits:
                globs = sorted({f"{images.name}/*{path.suffix}" for path in folders[images]})
                suffix = suffixes.most_common(1)[0][0]
                splits[split] = SplitFilesConfig(images=globs, masks=f"{short(masks, root)}{suffix}")
        if splits:
            return layout, splits
    return None


def read_layout(dataset: DatasetRoot, splits: Splits, list_of_val: str = "valid.txt") -> Layout:
    """Pair the files of a folder layout as if a data.yaml named them; what the configuration names has priority.

    Raises:
        DataError: no images, or no masks.
        ConfigError: an invalid template or list.
    """
    if dataset.named_splits:
        return find_records(dataset)
    root = dataset.root
    update: dict[str, object] = {split: files for split, files in splits.items() if split != "pool"}
    if "pool" in splits:
        update |= {"images": splits["pool"].images, "masks": splits["pool"].masks}
        if (root / list_of_val).is_file() and not any(getattr(dataset.config, split) for split in SPLITS):
            update["val"] = list_of_val
            dataset.use(root / list_of_val)
    layout = find_records(replace(dataset, config=dataset.config.model_copy(update=update)))
    used = {(root / pattern).parent for files in splits.values() for pattern in (files.images[0], files.masks or "")}
    unused = tuple(
        f"{folder.name}/: {len(paths)} images are left out; no masks are beside them, or the split has another folder"
        for folder, paths in sorted(_images_by_folder(dataset).items())
        if folder.parent == root and folder not in used and split_of_folder(folder / "x", root)
    )
    return replace(layout, notices=(*layout.notices, *unused))


def _images_by_folder(dataset: DatasetRoot) -> dict[Path, list[Path]]:
    folders: dict[Path, list[Path]] = defaultdict(list)
    for path in image_files(dataset.files):
        folders[path.parent].append(path)
    return folders
