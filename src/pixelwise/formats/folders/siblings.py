"""Pair folders of images with folders of masks that lie beside them, by the table in `roles`.

Comes in: the tree of a place. Goes out: pairs of folders with the files in them, and what was left aside. Knows nothing of
parts and opens no file.

Two folders belong together where they lie in one folder, one says images and the other masks, and the rest of their names
is equal (`images/` and `masks/`, `train_images/` and `train_masks/`); or where the masks' name is the other's with a word
added (`train/` and `trainannot/`). Where nothing says images, those that lie beside `masks/` in the same folder are
meant. Whatever lies deeper has the same path in both. Of two folders that fit equally well neither is taken: it is asked.
"""

from __future__ import annotations

import glob
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pixelwise.errors import PairingError
from pixelwise.formats.folders.pairing import Affix, Files, Tie, by_key, find_tie
from pixelwise.formats.folders.roles import MASKS, Role, find_split, fold, folder_roles, is_folder_of
from pixelwise.formats.folders.several import OBJECTS
from pixelwise.formats.folders.tree import Tree, Wanted, option
from pixelwise.formats.records import short

_NUMBER = re.compile(r"[_\-. ]*\(?[0-9]+\)?$")


@dataclass(frozen=True)
class Pair:
    """Hold two folders that belong together.

    Args:
        home: the folder that they lie in.
        image_folder, masks: the folders; `image_folder` is `home` where the images lie there themselves.
        images, truths: their files by name.
        tie: how the names of the masks follow from those of the images.
        base: what their names share.
        valid: the folder of masks of valid pixels, and its file for each name of an image.

    """

    home: Path
    image_folder: Path
    masks: Path
    images: Files
    truths: Files
    tie: Tie
    base: str = ""
    valid: tuple[Path, Mapping[str, Path]] | None = None


@dataclass
class Search:
    """Look for pairs of folders; `notices` and `aside` fill on the way.

    Args:
        tree: the place.
        wanted: what the configuration says.
        notices: what was decided.
        aside: folders that were left out, and told.

    """

    tree: Tree
    wanted: Wanted
    notices: list[str] = field(default_factory=list)
    aside: list[Path] = field(default_factory=list)

    def pairs(self, folder: Path) -> list[Pair]:
        """Find the pairs in a folder, else those below it; beside a pair, only in folders called after parts.

        Raises:
            PairingError: two folders fit equally well.

        """
        here = self._beside(folder)
        taken = {path for one in here for path in (one.image_folder, one.masks)} | set(self.aside)
        taken |= {one.valid[0] for one in here if one.valid}
        inner = [path for path in self.tree.folders[folder] if path not in taken]
        inner = [path for path in inner if not here or find_split([path.name])]
        return here + [one for path in inner for one in self.pairs(path)] or self._loose(folder)

    def _beside(self, home: Path) -> list[Pair]:
        folders = [path for path in self.tree.folders[home] if self.tree.holds(path)]
        masks = [(path, role) for path in folders for role in self._mask_roles(path)]
        found = list(_candidates(folders, masks, numbers=True)) or list(_candidates(folders, masks, numbers=False))
        if not found:
            return self._empty(home, folders)
        pairs = self._settle([self._match(home, *one) for one in found])
        self._tell_seconds(pairs, masks)
        return [self._with_valid(one, folders) for one in pairs]

    def _mask_roles(self, folder: Path) -> list[Role]:
        """Give what a folder of masks may belong to; the one that the configuration names may be called anything."""
        if not self.wanted.takes(folder, self.tree.root):
            return []
        roles = [role for role in folder_roles(folder.name) if role.kind == "mask"]
        return roles or ([Role("mask")] if self.wanted.folder else [])

    def _empty(self, home: Path, folders: Sequence[Path]) -> list[Pair]:
        """Take images/ and a folder of masks in which nothing lies yet: every image lacks its mask."""
        images = [path for path in folders if is_folder_of("image", path.name)]
        if len(images) != 1 or any(is_folder_of("mask", path.name) for path in folders):
            return []
        masks = next((home / name for name in MASKS if (home / name).is_dir()), None)
        if masks is None or masks in self.tree.folders or not self.wanted.takes(masks, self.tree.root):
            return []
        return [Pair(home, images[0], masks, by_key(self.tree.below(images[0]), images[0]), {}, Tie())]

    def _match(self, home: Path, image_folder: Path, masks: Path, base: str) -> Pair:
        images, truths = (
            by_key(self._images(image_folder, masks, home), image_folder),
            by_key(self._truths(masks), masks),
        )
        tie = self._tie(images, truths)
        if not tie.count:  # images/images/a.png and masks/masks/a.png, as archives within archives unpack
            bare, below = _without_roles(images), _without_roles(truths)
            other = self._tie(bare, below) if (bare, below) != (images, truths) else tie
            if other.count:
                return Pair(home, image_folder, masks, bare, below, other, base)
        return Pair(home, image_folder, masks, images, truths, tie, base)

    def _tie(self, images: Files, truths: Files) -> Tie:
        if self.wanted.name is None:
            return find_tie(images, truths)
        return Tie(mask=self.wanted.name, count=sum(self.wanted.name.core(key) in images for key in truths))

    def _images(self, images: Path, masks: Path, home: Path) -> Iterator[Path]:
        """Give the images of a pair; where they lie beside the masks, not those in folders of masks."""
        if images != home:
            yield from self.tree.below(images)
            return
        yield from self.tree.own.get(home, ())
        for path in self.tree.folders[home]:
            # A folder valid/ that the masks have as well is the part.
            valid = is_folder_of("valid", path.name) and masks / path.name not in self.tree.folders
            if path != masks and not valid and not is_folder_of("mask", path.name):
                yield from self.tree.below(path)

    def _truths(self, masks: Path) -> Iterator[Path]:
        """Give the masks in a folder: those that the configuration names, where it names them."""
        suffix, name = self.wanted.suffix, self.wanted.name
        for path in self.tree.below(masks):
            if (not suffix or path.suffix.lower() == suffix) and (name is None or name.core(path.stem) is not None):
                yield path

    def _settle(self, pairs: Sequence[Pair]) -> list[Pair]:
        """Take the pairs whose files match; every folder once."""
        good = [one for one in pairs if one.tie.count]
        for one in good:
            rivals = [
                other
                for other in good
                if other is not one and {other.image_folder, other.masks} & {one.image_folder, one.masks}
            ]
            if rivals:
                raise _which_folder(self.tree.root, [one, *rivals])
            if one.tie.rival is not None:
                raise which_names(self.tree.root, one)
        taken = {path for one in good for path in (one.image_folder, one.masks)}
        rest = [one for one in pairs if not {one.image_folder, one.masks} & taken]
        if len(rest) > 1 and len({one.image_folder for one in rest}) + len({one.masks for one in rest}) < 2 * len(rest):
            raise _which_folder(self.tree.root, rest)
        for one in pairs:
            if one not in good and one not in rest:
                lost = one.masks if one.image_folder in taken else one.image_folder
                if lost not in taken and lost not in self.aside:
                    self.aside.append(lost)
                    kept = one.image_folder if one.image_folder in taken else one.masks
                    names = (short(path, self.tree.root) for path in (lost, kept))
                    self.notices.append("{}/ holds no file that matches one in {}/, and is left out".format(*names))
        return good + rest

    def _tell_seconds(self, pairs: Sequence[Pair], masks: Iterable[tuple[Path, Role]]) -> None:
        """Leave gt2/ out where gt/ is the truth."""
        taken = {one.masks for one in pairs} | {one.image_folder for one in pairs}
        for path, role in masks:
            first = next((one.masks for one in pairs if Role("mask", role.base) in folder_roles(one.masks.name)), None)
            if role.number and path not in taken and path not in self.aside and first is not None:
                self.aside.append(path)
                name = short(path, self.tree.root)
                self.notices.append(f"{name}/ is a second truth beside {first.name}/ and is left out")

    def _with_valid(self, one: Pair, folders: Sequence[Path]) -> Pair:
        """Find the masks of valid pixels beside images/."""
        asked = self.wanted.valid
        candidates = [path for path in folders if path not in (one.image_folder, one.masks) and path not in self.aside]
        if asked is None:
            named = [path for path in candidates if is_folder_of("valid", path.name) and not one.base]
        else:
            named = [path for path in candidates if asked.strip("/") in (path.name, short(path, self.tree.root))]
        fitting = [(path, files) for path in named if (files := self._valid_files(path, one))]
        if len(fitting) > 1:
            shown = " and ".join(f"{short(path, self.tree.root)}/" for path, _ in fitting)
            raise PairingError(
                one.home,
                expected="one folder of masks of valid pixels",
                found=shown,
                do=f"Say which: {option('data.valid', fitting[0][0].name)}, or --set data.valid=none.",
            )
        return replace(one, valid=fitting[0]) if fitting else one

    def _valid_files(self, folder: Path, one: Pair) -> dict[str, Path]:
        """Give the mask of valid pixels for each image that has one in a folder."""
        files = by_key(self.tree.below(folder), folder)
        tie = find_tie(one.images, files)
        cores = {tie.mask.core(key) or key: paths[0] for key, paths in files.items()} if tie.count else {}
        own = {key: cores.get(tie.image.core(key) or key) for key in one.images}
        return {key: path for key, path in own.items() if path is not None}

    def _loose(self, home: Path) -> list[Pair]:
        """Take the images that lie in a folder themselves, with masks/ beside them in it."""
        masks = [path for path in self.tree.folders[home] if Role("mask") in self._mask_roles(path)]
        pairs = [self._match(home, home, path, "") for path in masks]
        good = [one for one in pairs if one.tie.count]
        return [self._with_valid(one, self.tree.folders[home]) for one in self._settle(good)]


def _candidates(
    folders: Sequence[Path], masks: Iterable[tuple[Path, Role]], *, numbers: bool
) -> Iterator[tuple[Path, Path, str]]:
    """Give every two folders whose names fit: images, masks, and what the names share; each two once."""
    seen = set()
    for path, role in masks:
        for other in folders:
            equal = [one for one in folder_roles(other.name) if one.kind == "image" and one.base == role.base]
            fits = any(one.number == role.number for one in equal) if numbers else bool(equal)
            fits = fits or (bool(role.base) and not role.number and fold(other.name) == role.base)
            if fits and other != path and (other, path) not in seen:
                seen.add((other, path))
                yield other, path, role.base


def _without_roles(files: Files) -> Files:
    """Take the folders out of names that say no more than images or masks."""
    bare: dict[str, list[Path]] = defaultdict(list)
    for key, paths in files.items():
        *folders, stem = key.split("/")
        kept = [name for name in folders if not is_folder_of("image", name) and not is_folder_of("mask", name)]
        bare["/".join([*kept, stem])] += paths
    return dict(bare)


def _which_folder(root: Path, pairs: Sequence[Pair]) -> PairingError:
    """Ask which of two folders is meant."""
    shown = [
        f"{short(one.image_folder, root)}/ with {short(one.masks, root)}/ ({one.tie.count} pair{'s' * (one.tie.count != 1)})"
        for one in pairs[:3]
    ]
    masks = list(dict.fromkeys(one.masks.name for one in pairs))
    if len(masks) > 1:
        do = f"Say which: {option('data.masks', masks[0])}, or {option('data.masks', masks[1])}."
    else:
        one = pairs[0]
        suffix = next((path.suffix for paths in one.truths.values() for path in paths), ".png")
        images = glob.escape(short(one.image_folder, root))
        template = f"{short(one.masks, root)}/{one.tie.mask.around('{stem}')}{suffix}"
        do = f"Say which: {option('data.images', f'{images}/*')} {option('data.masks', template)}."
    return PairingError(
        pairs[0].home, expected="one folder of images for one of masks", found=" and ".join(shown), do=do
    )


def which_names(root: Path, one: Pair) -> PairingError:
    """Ask which of two ways to name masks is meant."""
    assert one.tie.rival is not None
    key = next(key for key in one.images if any(one.tie.rival.core(other) == key for other in one.truths))
    stem = key.rpartition("/")[2]
    suffix = next(path.suffix for paths in one.truths.values() for path in paths)
    names = [affix.around(stem) + suffix for affix in (one.tie.mask, one.tie.rival)]
    templates = [affix.around("{stem}") + suffix for affix in (one.tie.mask, one.tie.rival)]
    which = ", or ".join(option("data.masks", template) for template in templates)
    numbered = _numbered(one.tie.mask, one.tie.rival)
    return PairingError(
        one.masks,
        expected="one mask for every image",
        found=f"{names[0]} and {names[1]} for {one.images[key][0].name}",
        do=f"{OBJECTS} If one is the truth: {which}." if numbered else f"Say which: {which}.",
    )


def _numbered(one: Affix, other: Affix) -> bool:
    """Say whether two ways to name masks differ in a number at the end only: a_1 and a_2, or a_mask and a_mask_1."""
    return one.before == other.before and _NUMBER.sub("", one.behind) == _NUMBER.sub("", other.behind)
