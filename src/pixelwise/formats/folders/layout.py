"""Build the layout of a data set from its folders alone.

Every image below the root is accounted for: in a record, as a problem, or in a notice.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pixelwise.errors import ConfigError
from pixelwise.formats.dataset_root import DatasetRoot, make_layout
from pixelwise.formats.folders.globs import INVALID
from pixelwise.formats.folders.messages import advise_on_several_masks, nothing_found
from pixelwise.formats.folders.names import find_split, has_role, key_of, pair
from pixelwise.formats.folders.search import FolderPair, MaskRequest, Search, Tree
from pixelwise.formats.folders.side_by_side import find_side_by_side
from pixelwise.formats.records import ORPHAN, UNMASKED, Layout, Problem, Record, short
from pixelwise.imageio.unreadable import conversion, suffixes

_MOST_SHOWN = 4


def find_by_folders(dataset: DatasetRoot) -> Layout:
    """Find folders that belong together, otherwise images and masks side by side.

    Raises:
        DataError: no images and masks that match (PairingError: two equally good choices).
        ConfigError: `data.masks` or `data.valid` match nothing.
    """
    tree = Tree(dataset)
    request = MaskRequest.parse(dataset.config.masks, dataset.config.valid)
    search = Search(tree, request)
    pairs = search.pairs(tree.root)
    builder = _LayoutBuilder(tree)
    for folder_pair in pairs:
        builder.add_pair(folder_pair)
    builder.notices += [*_describe(pairs, tree.root), *search.notices]
    if not pairs:
        builder.add_side_by_side(request)
    _require_request_met(request, pairs, builder)
    if not builder.records and not builder.problems:
        raise nothing_found(tree)
    builder.drop_splits_without_masks()
    builder.drop_images_outside_splits()
    requested = request.folder or request.affix is not None
    reason = "not named by data.masks" if requested else "in no folder that goes with another"
    builder.account_for_the_rest(search.left_out, reason)
    dataset.use(*builder.accounted, *tree.unreadable)
    builder.notify(
        tree.unreadable, f"of kinds that cannot be read ({suffixes(tree.unreadable)})", conversion(tree.unreadable)
    )
    problems = [Problem(short(path, tree.root), why, builder.advice) for _, path, why in builder.problems]
    kind = "folders of images and masks" if pairs else "images and masks side by side"
    layout = make_layout(kind, builder.records, problems, builder.notices)
    return layout if layout.splits else replace(layout, splits={"pool": ()})


@dataclass
class _LayoutBuilder:
    """A layout under construction."""

    tree: Tree
    records: dict[str, list[Record]] = field(default_factory=lambda: defaultdict(list))
    problems: list[tuple[str, Path, str]] = field(default_factory=list)  # split, path and reason
    notices: list[str] = field(default_factory=list)
    image_folders: set[tuple[int, str]] = field(default_factory=set)  # depth and name; similar ones should have masks
    accounted: set[Path] = field(default_factory=set)  # files in a record, problem or notice
    advice: str = ""  # how to join masks, if images have several

    def add_pair(self, folders: FolderPair) -> None:
        """Add the files of a pair of folders."""
        base = [] if not folders.base or has_role("image", folders.base) else [folders.base]
        above = [*folders.parent.relative_to(self.tree.root).parts, *base]
        paired = pair(folders.images, folders.masks, folders.tie)
        for record in paired.records:
            split, id_ = _split_and_id([*above, *record.id.split("/")])
            valid = folders.valid[1].get(record.id) if folders.valid else None
            if folders.valid and valid is None:
                self.problems.append((split, record.image, INVALID))
            else:
                self._add(split, replace(record, id=id_, valid=valid))
        for path, why in paired.problems:
            is_mask = path.is_relative_to(folders.mask_folder)
            below = path.relative_to(folders.mask_folder if is_mask else folders.image_folder).parts
            self.problems.append((_split_and_id([*above, *below])[0], path, why))
        self.advice = self.advice or self._advise(folders, {path for path, why in paired.problems if why == ORPHAN})
        for files in (folders.images, folders.masks):
            self.accounted.update(path for paths in files.values() for path in paths)
        if folders.valid:
            self.accounted.update(folders.valid[1].values())
        self._add_image_folder(folders.image_folder)

    def _advise(self, folders: FolderPair, orphans: set[Path]) -> str:
        if not orphans:
            return ""
        lost = [key for key, paths in folders.masks.items() if paths[0] in orphans]
        cores = (folders.tie.mask.core(key) for key in folders.masks.keys() - set(lost))
        paired = {core for core in cores if core is not None}
        suffix = folders.masks[lost[0]][0].suffix
        template = f"{short(folders.mask_folder, self.tree.root)}/{{}}/{{stem}}{suffix}"
        image_folder = short(folders.image_folder, self.tree.root)
        return advise_on_several_masks(folders.images, paired, lost, image_folder, template)

    def add_side_by_side(self, request: MaskRequest) -> None:
        """Add images with masks in the same folder."""
        found = find_side_by_side(self.tree, request)
        for record in found.records:
            split, id_ = _split_and_id(record.id.split("/"))
            self._add(split, replace(record, id=id_))
        for path, why in found.problems:
            self.problems.append((_split_and_id(path.relative_to(self.tree.root).parts)[0], path, why))
        for folder in found.folders:
            self._add_image_folder(folder)
        if found.folders:
            self.notices.append(found.notice(self.tree.root))

    def _add(self, split: str, record: Record) -> None:
        self.records[split].append(record)
        self.accounted.update(path for path in (record.image, record.mask, record.valid) if path is not None)

    def _add_image_folder(self, folder: Path) -> None:
        parts = folder.relative_to(self.tree.root).parts
        if parts:
            self.image_folders.add((len(parts) - 1, parts[-1]))

    def has_masks(self) -> bool:
        """Whether any record has a mask."""
        return any(record.mask for records in self.records.values() for record in records)

    def drop_splits_without_masks(self) -> None:
        """Drop a val or test split whose ground truth is not published: images/test/ without masks/test/."""
        for split in ("val", "test"):
            records = self.records.get(split, [])
            unmasked = records and not any(record.mask for record in records)
            if unmasked and self.has_masks() and all(each[0] != split for each in self.problems):
                del self.records[split]
                self.notify([record.image for record in records], f"in {split}, which has no masks")

    def drop_images_outside_splits(self) -> None:
        """Drop the images in no split if there is a train split; make ids unique within each split."""
        if self.records.get("train"):
            lost = [record.image for record in self.records.pop("pool", [])]
            lost += [path for split, path, _ in self.problems if split == "pool"]
            self.problems = [each for each in self.problems if each[0] != "pool"]
            self.accounted.update(lost)
            self.notify(lost, "in no folder of a split")
        for split, records in self.records.items():
            ids = Counter(record.id for record in records)
            self.records[split] = [
                replace(each, id=key_of(each.image, self.tree.root)) if ids[each.id] > 1 else each for each in records
            ]

    def account_for_the_rest(self, left_out: Iterable[Path], reason: str) -> None:
        """Report the remaining images; those in folders like the ones with images are problems."""
        self.accounted.update(path for _, path, _ in self.problems)
        self.accounted.update(path for folder in left_out for path in self.tree.below(folder))
        splits = {split for split, *_ in self.problems} | set(self.records)
        unpublished: dict[str, list[Path]] = defaultdict(list)
        rest = []
        for path in self.tree.below(self.tree.root):
            if path in self.accounted:
                continue
            parts = path.relative_to(self.tree.root).parts
            split = _split_and_id(parts)[0]
            if split in ("val", "test") and split not in splits:
                unpublished[split].append(path)
            elif any((depth, name) in self.image_folders for depth, name in enumerate(parts[:-1])):
                self.problems.append((split, path, UNMASKED))
            else:
                rest.append(path)
        for split, paths in unpublished.items():
            self.notify(paths, f"in {split}, which has no masks")
        self.notify(rest, reason)
        self.accounted.update(rest, *unpublished.values())

    def notify(self, paths: Sequence[Path], where: str, advice: str = "") -> None:
        """Add a notice about files that are left out."""
        if paths:
            many = "1 file" if len(paths) == 1 else f"{len(paths)} files"
            first = f"{short(min(paths), self.tree.root)}{', …' if len(paths) > 1 else ''}"
            self.notices.append(
                f"{many} {where}: left out ({first}){f'. {advice}' if advice else ''}".removesuffix(".")
            )


def _split_and_id(names: Sequence[str]) -> tuple[str, str]:
    """Return the split that the folders of a path indicate, and the path without that folder."""
    index, split = find_split(names[:-1]) or (None, "pool")
    return split, "/".join(name for k, name in enumerate(names) if k != index)


def _describe(pairs: Sequence[FolderPair], root: Path) -> Iterator[str]:
    """Describe how images and masks were found, unless the names are images/ and masks/."""

    def several(texts: Iterable[str]) -> str:
        texts = list(dict.fromkeys(texts))
        return ", ".join(texts[:_MOST_SHOWN]) + (f" and {len(texts) - _MOST_SHOWN} more" if texts[_MOST_SHOWN:] else "")

    def folder(path: Path) -> str:
        return f"{short(path, root)}/" if path != root else "the folder itself"

    named = [each for each in pairs if each.base or each.image_folder == each.parent]
    if named:
        shown = (f"{folder(each.image_folder)} with {folder(each.mask_folder)}" for each in named)
        yield f"images and masks were found by the names of their folders: {several(shown)}"
    pool = [each.parent for each in pairs if find_split([*each.parent.relative_to(root).parts, each.base]) is None]
    if len(set(pool)) > 1:
        yield f"the images of several folders are combined: {several(map(folder, pool))}"
    tied = [each for each in pairs if not each.tie.plain]
    if tied:
        yield f"masks are named differently from their images: {several(each.tie.example() for each in tied)}"
    valid = [each.valid[0] for each in pairs if each.valid]
    if valid:
        yield f"pixels that are zero in {several(map(folder, valid))} are ignored (to use them: --set data.valid=none)"


def _require_request_met(request: MaskRequest, pairs: Sequence[FolderPair], builder: _LayoutBuilder) -> None:
    """Refuse a requested folder or name of masks that does not exist."""
    root = builder.tree.root
    folders = sorted(f"{short(path, root)}/" for path in builder.tree.folders if path != root)
    found = f"{', '.join(folders[:8])}{', …' if len(folders) > 8 else ''}" or "no folder"
    if request.folder and not pairs:
        raise ConfigError(
            "data.masks",
            expected=f"a folder {request.folder!r} of masks beside the images",
            found=found,
            do="Correct the name, or set the path of the images as well: --set 'data.images=images/*'.",
        )
    if request.affix is not None and not builder.has_masks():
        raise ConfigError(
            "data.masks",
            expected=f"masks named {request.affix.around('{stem}')}{request.suffix or '.png'} beside the images",
            found="none",
            do="Correct the template; {stem} is the image's name without suffix.",
        )
    if request.valid not in (None, "none") and not any(pair.valid for pair in pairs):
        raise ConfigError(
            "data.valid",
            expected=f"a folder {request.valid!r} beside the images, with a file for each",
            found=found,
            do="Correct the name, or leave it out.",
        )
