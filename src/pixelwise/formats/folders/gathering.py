"""Gather the records of a place whose folders no configuration names, and tell what was decided and what was left out.

Comes in: a place. Goes out: a layout. Every image below the root is in it: in a record, as a problem, or in a notice.
Knows nothing of pixels.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pixelwise.errors import ConfigError
from pixelwise.formats.dataset_root import DatasetRoot, make_layout
from pixelwise.formats.folders.beside import find_beside
from pixelwise.formats.folders.globs import INVALID
from pixelwise.formats.folders.pairing import key_of, pair
from pixelwise.formats.folders.roles import find_split, is_folder_of
from pixelwise.formats.folders.several import advise
from pixelwise.formats.folders.siblings import Pair, Search
from pixelwise.formats.folders.tree import Tree, Wanted
from pixelwise.formats.folders.unknown import nothing_here
from pixelwise.formats.records import ORPHAN, Layout, Problem, Record, short

_SHOWN = 4


def find_by_folders(place: DatasetRoot) -> Layout:
    """Find folders that belong together, else images and masks side by side.

    Raises:
        DataError: nothing that is understood (PairingError: two things fit equally well).
        ConfigError: `data.masks` or `data.valid` name nothing that is there.

    """
    tree, wanted = Tree(place), Wanted.read(place.config.masks, place.config.valid)
    search = Search(tree, wanted)
    pairs = search.pairs(tree.root)
    found = _Gathering(tree)
    for one in pairs:
        found.take(one)
    found.notices += [*_told(pairs, tree.root), *search.notices]
    if not pairs:
        found.take_beside(wanted)
    _require_wanted(wanted, pairs, found)
    if not found.records and not found.odd:
        raise nothing_here(tree)
    found.leave_parts_without_masks()
    found.leave_what_is_in_no_split()
    named = wanted.folder or wanted.name is not None
    found.leave_the_rest(search.aside, "not named by data.masks" if named else "in no folder that goes with another")
    found.leave_other_kinds()
    problems = [Problem(short(path, tree.root), why, found.advice) for _, path, why in found.odd]
    kind = "folders of images and masks" if pairs else "images and masks side by side"
    layout = make_layout(kind, found.records, problems, found.notices)
    return layout if layout.splits else replace(layout, splits={"pool": ()})


@dataclass
class _Gathering:
    """Fill up with what was found.

    Args:
        tree: the place.
        records: per part.
        odd: files without a partner: part, path, why.
        notices: what was decided.
        anchors: depth and name of the folders that images were taken from: others of that kind should have masks, too.
        told: files that are accounted for.
        advice: what to do where images have several masks each; "" where they have not.

    """

    tree: Tree
    records: dict[str, list[Record]] = field(default_factory=lambda: defaultdict(list))
    odd: list[tuple[str, Path, str]] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    anchors: set[tuple[int, str]] = field(default_factory=set)
    told: set[Path] = field(default_factory=set)
    advice: str = ""

    def take(self, one: Pair) -> None:
        """Take a pair of folders."""
        base = [] if not one.base or is_folder_of("image", one.base) else [one.base]
        above = [*one.home.relative_to(self.tree.root).parts, *base]
        paired = pair(one.images, one.truths, one.tie)
        for record in paired.records:
            split, id_ = _split_and_id([*above, *record.id.split("/")])
            valid = one.valid[1].get(record.id) if one.valid else None
            if one.valid and valid is None:
                self.odd.append((split, record.image, INVALID))
            else:
                self._add(split, replace(record, id=id_, valid=valid))
        for path, why in paired.odd:
            inside = path.is_relative_to(one.masks)
            below = path.relative_to(one.masks if inside else one.image_folder).parts
            self.odd.append((_split_and_id([*above, *below])[0], path, why))
        self.advice = self.advice or self._advise(one, {path for path, why in paired.odd if why == ORPHAN})
        for files in (one.images, one.truths):
            self.told.update(path for paths in files.values() for path in paths)
        if one.valid:
            self.told.update(one.valid[1].values())
        self._anchor(one.image_folder)

    def _advise(self, one: Pair, orphans: set[Path]) -> str:
        if not orphans:
            return ""
        lost = [key for key, paths in one.truths.items() if paths[0] in orphans]
        cores = (one.tie.mask.core(key) for key in one.truths.keys() - set(lost))
        paired = {core for core in cores if core is not None}
        template = f"{short(one.masks, self.tree.root)}/{{}}/{{stem}}{one.truths[lost[0]][0].suffix}"
        return advise(one.images, paired, lost, short(one.image_folder, self.tree.root), template)

    def take_beside(self, wanted: Wanted) -> None:
        """Take what lies side by side."""
        found = find_beside(self.tree, wanted)
        for record in found.records:
            split, id_ = _split_and_id(record.id.split("/"))
            self._add(split, replace(record, id=id_))
        for path, why in found.odd:
            self.odd.append((_split_and_id(path.relative_to(self.tree.root).parts)[0], path, why))
        for folder in found.folders:
            self._anchor(folder)
        if found.folders:
            self.notices.append(found.notice(self.tree.root))

    def _add(self, split: str, record: Record) -> None:
        self.records[split].append(record)
        self.told.update(path for path in (record.image, record.mask, record.valid) if path is not None)

    def _anchor(self, folder: Path) -> None:
        inside = folder.relative_to(self.tree.root).parts
        if inside:
            self.anchors.add((len(inside) - 1, inside[-1]))

    def leave_parts_without_masks(self) -> None:
        """Leave out a val or test part whose truth is kept back: images/test/ where there is no masks/test/."""
        masks = any(record.mask for own in self.records.values() for record in own)
        for split in ("val", "test"):
            own = self.records.get(split, [])
            lost = own and not any(record.mask for record in own) and all(one[0] != split for one in self.odd)
            if masks and lost:
                del self.records[split]
                self._tell([record.image for record in own], f"in {split}, which has no masks")

    def leave_what_is_in_no_split(self) -> None:
        """Leave out what lies beside the parts, where there is one to train on; and name every image of a part once."""
        if self.records.get("train"):
            lost = [record.image for record in self.records.pop("pool", [])]
            lost += [path for split, path, _ in self.odd if split == "pool"]
            self.odd = [one for one in self.odd if one[0] != "pool"]
            self.told.update(lost)
            self._tell(lost, "in no folder of a part")
        for split, own in self.records.items():
            names = Counter(record.id for record in own)
            self.records[split] = [
                replace(one, id=key_of(one.image, self.tree.root)) if names[one.id] > 1 else one for one in own
            ]

    def leave_the_rest(self, aside: Iterable[Path], why: str) -> None:
        """Tell the images that are neither images nor masks of the set; those that should have masks are problems."""
        self.told.update(path for _, path, _ in self.odd)
        self.told.update(path for folder in aside for path in self.tree.below(folder))
        left = [path for path in self.tree.below(self.tree.root) if path not in self.told]
        splits = {split for split, *_ in self.odd} | set(self.records)
        hidden: dict[str, list[Path]] = defaultdict(list)
        rest = []
        for path in left:
            inside = path.relative_to(self.tree.root).parts
            split = _split_and_id(inside)[0]
            if split in ("val", "test") and split not in splits:
                hidden[split].append(path)
            elif any((depth, name) in self.anchors for depth, name in enumerate(inside[:-1])):
                self.odd.append((split, path, "image without a mask"))
            else:
                rest.append(path)
        for split, paths in hidden.items():
            self._tell(paths, f"in {split}, which has no masks")
        self._tell(rest, why)

    def leave_other_kinds(self) -> None:
        """Tell the images and masks that no decoder here reads."""
        self._tell(self.tree.foreign, f"of kinds that are not read ({', '.join(self.tree.foreign_kinds())})")

    def _tell(self, paths: Sequence[Path], where: str) -> None:
        if paths:
            many = "1 file" if len(paths) == 1 else f"{len(paths)} files"
            first = f"{short(min(paths), self.tree.root)}{', …' if len(paths) > 1 else ''}"
            self.notices.append(f"{many} {where}: left out ({first})")


def _split_and_id(names: Sequence[str]) -> tuple[str, str]:
    """Tell a file's part by its folders, and its name without that one."""
    place, split = find_split(names[:-1]) or (None, "pool")
    return split, "/".join(name for k, name in enumerate(names) if k != place)


def _told(pairs: Sequence[Pair], root: Path) -> Iterator[str]:
    """Say what was taken for what, where the plainest names do not say it themselves."""

    def several(texts: Iterable[str]) -> str:
        texts = list(dict.fromkeys(texts))
        return ", ".join(texts[:_SHOWN]) + (f" and {len(texts) - _SHOWN} more" if len(texts) > _SHOWN else "")

    named = [one for one in pairs if one.base or one.image_folder == one.home]
    if named:
        shown = (f"{_folder(one.image_folder, root)} with {_folder(one.masks, root)}" for one in named)
        yield f"images and masks were found by the names of their folders: {several(shown)}"
    pool = [one.home for one in pairs if find_split([*one.home.relative_to(root).parts, one.base]) is None]
    if len(set(pool)) > 1:
        yield f"what lies in several folders is taken together: {several(_folder(home, root) for home in pool)}"
    tied = [one for one in pairs if not one.tie.plain]
    if tied:
        yield f"masks were found by a name that is not quite the image's: {several(one.tie.words() for one in tied)}"
    valid = [one.valid[0] for one in pairs if one.valid]
    if valid:
        many = several(_folder(folder, root) for folder in valid)
        yield f"what is zero in {many} counts in nothing (--set data.valid=none: it counts)"


def _folder(path: Path, root: Path) -> str:
    return f"{short(path, root)}/" if path != root else "the folder itself"


def _require_wanted(wanted: Wanted, pairs: Sequence[Pair], found: _Gathering) -> None:
    """Refuse wishes that meet nothing."""
    folders = sorted(f"{short(path, found.tree.root)}/" for path in found.tree.folders if path != found.tree.root)
    there = f"{', '.join(folders[:8])}{', …' if len(folders) > 8 else ''}" or "no folder"
    if wanted.folder and not pairs:
        raise ConfigError(
            "data.masks",
            expected=f"a folder {wanted.folder!r} of masks beside the images",
            found=there,
            do="Correct the name; or say where the images are, too: --set 'data.images=images/*'.",
        )
    if wanted.name is not None and not any(record.mask for own in found.records.values() for record in own):
        raise ConfigError(
            "data.masks",
            expected=f"masks called {wanted.name.around('{stem}')}{wanted.suffix or '.png'} beside the images",
            found="none",
            do="Correct the template; {stem} is the image's name without suffix.",
        )
    if wanted.valid not in (None, "none") and not any(one.valid for one in pairs):
        raise ConfigError(
            "data.valid",
            expected=f"a folder {wanted.valid!r} beside the images, with a file for each",
            found=there,
            do="Correct the name, or leave it out.",
        )
