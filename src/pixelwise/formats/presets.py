"""Declarations of public data sets: where their images and masks are, and their classes."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path, PurePosixPath

from pixelwise.config import SplitFilesConfig
from pixelwise.formats.dataset_root import DatasetRoot, split_of_folder
from pixelwise.formats.folders import find_records
from pixelwise.formats.records import SPLITS, Layout
from pixelwise.imageio.images import IMAGE_SUFFIXES

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


@dataclass(frozen=True)
class LayoutMatch:
    """A folder layout found in a data set."""

    dataset: DatasetRoot
    layout: FolderLayout
    splits: dict[str, tuple[str, str, str]]  # image folder, mask folder and ending of the masks, per split or "pool"

    @property
    def reason(self) -> str:
        """Why the layout matches."""
        images, masks, _ = next(iter(self.splits.values()))
        table = next((name for name in self.layout.requires if (self.dataset.root / name).is_file()), None)
        return f"{images}/ with {masks}/{f' and {table}' if table else ''}"

    @cached_property
    def _images(self) -> dict[Path, list[Path]]:
        return _images_by_folder(self.dataset)

    def read(self, kind: str, list_of_val: str = "valid.txt") -> Layout:
        """Pair the files as if a data.yaml named them; what the configuration names has priority.

        Raises:
            DataError: no images, or no masks.
            ConfigError: an invalid template or list.

        """
        dataset = self.dataset
        config = dataset.config
        notices: tuple[str, ...] = ()
        if not dataset.named_splits:
            named = {split: self._files(*folders) for split, folders in self.splits.items()}
            pool = named.pop("pool", None)
            update: dict[str, object] = dict(named)
            if pool is not None:
                update |= {"images": pool.images, "masks": pool.masks}
                if (dataset.root / list_of_val).is_file() and not any(getattr(config, split) for split in SPLITS):
                    update["val"] = list_of_val
            config = config.model_copy(update=update)
            notices = self._unused_folders()
        layout = find_records(replace(dataset, config=config))
        return replace(layout, kind=kind, notices=(*layout.notices, *notices))

    def _files(self, images: str, masks: str, ending: str) -> SplitFilesConfig:
        root = self.dataset.root
        suffix = _suffix(self._images[root / masks], ending) or ".png"
        globs = sorted({f"{images}/*{path.suffix}" for path in self._images[root / images]})
        return SplitFilesConfig(images=globs, masks=f"{masks}/{{stem}}{ending}{suffix}")

    def _unused_folders(self) -> tuple[str, ...]:
        """Report folders named after a split that have no folder of masks, or are the second of a split."""
        root = self.dataset.root
        used = {root / name for images, masks, _ in self.splits.values() for name in (images, masks)}
        return tuple(
            f"{folder.name}/: {len(paths)} images are left out; no masks are beside them, or the split has another folder"
            for folder, paths in sorted(self._images.items())
            if folder.parent == root and folder not in used and split_of_folder(folder / "x", root)
        )


def find_layout(dataset: DatasetRoot, layouts: Iterable[FolderLayout]) -> LayoutMatch | None:
    """Return the first of several folder layouts that matches a data set."""
    root = dataset.root
    folders = _images_by_folder(dataset)
    for layout in layouts:
        if layout.requires and not any((root / name).is_file() for name in layout.requires):
            continue
        candidates = {"pool": [layout.images]}
        if layout.images == "{split}":
            children = sorted(path for path in folders if path.parent == root)
            candidates = {
                split: [path.name for path in children if split_of_folder(path / "x", root) == split]
                for split in SPLITS
            }
        splits: dict[str, tuple[str, str, str]] = {}
        for split, names in candidates.items():
            for images in names:
                template = PurePosixPath(layout.masks.format(images=images, stem="{stem}"))
                masks, ending = template.parent.as_posix(), template.name.removeprefix("{stem}")
                if root / images in folders and _suffix(folders.get(root / masks, ()), ending):
                    splits.setdefault(split, (images, masks, ending))
        if splits:
            return LayoutMatch(dataset, layout, splits)
    return None


def _images_by_folder(dataset: DatasetRoot) -> dict[Path, list[Path]]:
    folders: dict[Path, list[Path]] = defaultdict(list)
    for path in dataset.files:
        if path.suffix.lower() in IMAGE_SUFFIXES:
            folders[path.parent].append(path)
    return folders


def _suffix(files: Sequence[Path], ending: str) -> str | None:
    """Return the most common suffix of the files whose stem has an ending."""
    suffixes = Counter(path.suffix for path in files if path.stem.endswith(ending))
    return suffixes.most_common(1)[0][0] if suffixes else None
