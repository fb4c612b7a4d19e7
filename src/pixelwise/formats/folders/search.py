"""Find folders of images and the folders of masks that belong to them.

Two folders belong together if they have the same parent, one is named after images and the other after masks, and the rest
of their names is equal (`images/` and `masks/`, `train_images/` and `train_masks/`); or if the name of the masks is that of
the images with a word added (`train/` and `trainannot/`). If no folder is named after images, those in the parent of
`masks/` itself are used. Paths below both folders are equal. If two folders fit equally well, an error lists both.
"""

from __future__ import annotations

import glob
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from shlex import quote

import yaml

from pixelwise.errors import ConfigError, PairingError
from pixelwise.formats.dataset_root import DatasetRoot
from pixelwise.formats.folders.names import (
    MASKS,
    Affix,
    Files,
    Role,
    Tie,
    by_key,
    find_split,
    find_tie,
    folder_base,
    folder_roles,
    has_role,
)
from pixelwise.formats.records import short
from pixelwise.imageio import unreadable
from pixelwise.imageio.file_formats import IMAGE_SUFFIXES, image_files

# Images and volumes that cannot be read.
UNREADABLE = (*unreadable.IMAGE_SUFFIXES, *unreadable.VOLUME_SUFFIXES)
OBJECTS = (
    "If each of them is one object, merge them into one mask per image, with 0 for background and a number for each"
    " object: --set 'data.mask_values={objects: true}' reads such masks."
)
_PATTERN_CHARACTERS = set("{}*?[")
_NUMBER = re.compile(r"[_\-. ]*\(?[0-9]+\)?$")


def option(key: str, value: str) -> str:
    """Return a --set option, quoted for the shell and for YAML."""
    try:
        plain = yaml.safe_load(value) == value
    except yaml.YAMLError:
        plain = False
    return f"--set {quote(f'{key}={value if plain else json.dumps(value, ensure_ascii=False)}')}"


class Tree:
    """The images of a data set by folder, and those that cannot be read."""

    def __init__(self, dataset: DatasetRoot) -> None:
        self.root = dataset.root
        self.images: dict[Path, list[Path]] = defaultdict(list)
        self.folders: dict[Path, list[Path]] = {self.root: []}
        self.unreadable = [path for path in dataset.files if path.suffix.lower() in UNREADABLE]
        for path in dataset.files:
            self._add(path.parent)
        for path in image_files(dataset.files):
            self.images[path.parent].append(path)

    def _add(self, folder: Path) -> None:
        if folder not in self.folders:
            self._add(folder.parent)
            self.folders[folder] = []
            self.folders[folder.parent].append(folder)

    def below(self, folder: Path) -> Iterator[Path]:
        """Yield the images in a folder and its subfolders."""
        yield from self.images.get(folder, ())
        for child in self.folders.get(folder, ()):
            yield from self.below(child)

    def has_images(self, folder: Path) -> bool:
        """Whether there is an image in a folder or its subfolders."""
        return next(self.below(folder), None) is not None


@dataclass(frozen=True)
class MaskRequest:
    """What `data.masks` and `data.valid` request when `data.images` is not given."""

    folder: str = ""  # name or path of the folder of masks; "" for any
    affix: Affix | None = None  # around the stem of the image in the name of the mask; None if it has to be found
    suffix: str = ""  # file suffix of masks, with the dot; "" for any
    valid: str | None = None  # folder of masks of valid pixels; "none" for none; None for those of the table

    @classmethod
    def parse(cls, masks: str | None, valid: str | None) -> MaskRequest:
        """Parse `labels`, `{stem}_gt.png` or `labels/{stem}_gt.png`.

        Raises:
            ConfigError: another template or a pattern, which need `data.images`.
        """
        path = PurePosixPath(masks or "")
        template = path.name if "{" in path.name else ""
        folder = "" if masks is None else (path.parent if template else path).as_posix()
        folder = "" if folder == "." else folder
        invalid_template = template and not re.fullmatch(r"[^{}*?]*\{stem\}[^{}*?]*", template)
        for key, value, invalid in (
            ("masks", masks, invalid_template or _PATTERN_CHARACTERS & set(folder)),
            ("valid", valid, _PATTERN_CHARACTERS & set(valid or "")),
        ):
            if invalid:
                raise ConfigError(
                    f"data.{key}",
                    expected="the name of a folder, or of masks with {stem}, where data.images is not given",
                    found=repr(value),
                    do="Set the path of the images as well: --set 'data.images=images/*'.",
                )
        if not template:
            return cls(folder, valid=valid)
        before, _, behind = template.partition("{stem}")
        suffix = PurePosixPath(template).suffix if PurePosixPath(template).suffix.lower() in IMAGE_SUFFIXES else ""
        return cls(folder, Affix(before, behind[: len(behind) - len(suffix)]), suffix.lower(), valid)

    def accepts_folder(self, folder: Path, root: Path) -> bool:
        """Whether a folder of masks may be the requested one."""
        return not self.folder or self.folder.strip("/") in (folder.name, short(folder, root))

    def accepts(self, path: Path) -> bool:
        """Whether a mask has a requested name."""
        if self.suffix and path.suffix.lower() != self.suffix:
            return False
        return self.affix is None or self.affix.core(path.stem) is not None


@dataclass(frozen=True)
class FolderPair:
    """A folder of images and its folder of masks, with their files by name."""

    parent: Path
    image_folder: Path  # `parent` if it contains the images itself
    mask_folder: Path
    images: Files
    masks: Files
    tie: Tie
    base: str = ""  # what the names of the folders share
    valid: tuple[Path, Mapping[str, Path]] | None = None  # the folder of masks of valid pixels, and its file per image

    @property
    def folders(self) -> set[Path]:
        """Both folders."""
        return {self.image_folder, self.mask_folder}


@dataclass
class Search:
    """A search for pairs of folders, which also collects `notices` and the folders that are left out."""

    tree: Tree
    request: MaskRequest
    notices: list[str] = field(default_factory=list)
    left_out: list[Path] = field(default_factory=list)

    def pairs(self, folder: Path) -> list[FolderPair]:
        """Find the pairs in a folder, otherwise below it; beside a pair, only in folders named after splits.

        Raises:
            PairingError: two folders fit equally well.
        """
        here = self._sibling_pairs(folder)
        used = {path for pair in here for path in pair.folders} | set(self.left_out)
        used |= {pair.valid[0] for pair in here if pair.valid}
        inner = [path for path in self.tree.folders[folder] if path not in used]
        inner = [path for path in inner if not here or find_split([path.name])]
        return here + [pair for path in inner for pair in self.pairs(path)] or self._pairs_without_image_folder(folder)

    def _short(self, path: Path) -> str:
        return f"{short(path, self.tree.root)}/"

    def _sibling_pairs(self, parent: Path) -> list[FolderPair]:
        folders = [path for path in self.tree.folders[parent] if self.tree.has_images(path)]
        masks = [(path, role) for path in folders for role in self._mask_roles(path)]
        candidates = _candidates(folders, masks, numbers=True) or _candidates(folders, masks, numbers=False)
        if not candidates:
            return self._pair_without_masks(parent, folders)
        pairs = self._select([self._match(parent, *candidate) for candidate in candidates])
        self._leave_out_second_masks(pairs, masks)
        return [self._with_valid(pair, folders) for pair in pairs]

    def _mask_roles(self, folder: Path) -> list[Role]:
        """Return the roles of a folder of masks; the requested one may have any name."""
        if not self.request.accepts_folder(folder, self.tree.root):
            return []
        if not self.request.folder and self._is_field_of_view(folder):
            return []
        roles = [role for role in folder_roles(folder.name) if role.kind == "mask"]
        return roles or ([Role("mask")] if self.request.folder else [])

    def _is_field_of_view(self, folder: Path) -> bool:
        """Whether a folder is mask/ beside 1st_manual/, as in DRIVE: the masks of valid pixels."""
        manual = folder.parent / "1st_manual"
        return folder.name in ("mask", "masks") and manual in self.tree.folders and self.tree.has_images(manual)

    def _pair_without_masks(self, parent: Path, folders: Sequence[Path]) -> list[FolderPair]:
        """Return images/ and an empty folder of masks: every image lacks its mask."""
        images = [path for path in folders if has_role("image", path.name)]
        if len(images) != 1 or any(has_role("mask", path.name) for path in folders):
            return []
        masks = next((parent / name for name in MASKS if (parent / name).is_dir()), None)
        if masks is None or masks in self.tree.folders or not self.request.accepts_folder(masks, self.tree.root):
            return []
        return [FolderPair(parent, images[0], masks, by_key(self.tree.below(images[0]), images[0]), {}, Tie())]

    def _pairs_without_image_folder(self, parent: Path) -> list[FolderPair]:
        """Pair the images in a folder itself with masks/ in it."""
        folders = [path for path in self.tree.folders[parent] if Role("mask") in self._mask_roles(path)]
        pairs = [self._match(parent, parent, path, "") for path in folders]
        selected = self._select([pair for pair in pairs if pair.tie.count])
        return [self._with_valid(pair, self.tree.folders[parent]) for pair in selected]

    def _match(self, parent: Path, image_folder: Path, mask_folder: Path, base: str) -> FolderPair:
        images = by_key(self._images(parent, image_folder, mask_folder), image_folder)
        masks = by_key(filter(self.request.accepts, self.tree.below(mask_folder)), mask_folder)
        tie = self._tie(images, masks)
        if not tie.count:  # images/images/a.png and masks/masks/a.png, from archives in archives
            flat_images = _without_role_folders(images)
            flat_masks = _without_role_folders(masks)
            flat_tie = self._tie(flat_images, flat_masks)
            if flat_tie.count:
                return FolderPair(parent, image_folder, mask_folder, flat_images, flat_masks, flat_tie, base)
        return FolderPair(parent, image_folder, mask_folder, images, masks, tie, base)

    def _tie(self, images: Files, masks: Files) -> Tie:
        affix = self.request.affix
        if affix is None:
            return find_tie(images, masks)
        return Tie(mask=affix, count=sum(affix.core(key) in images for key in masks))

    def _images(self, parent: Path, image_folder: Path, mask_folder: Path) -> Iterator[Path]:
        """Yield the images of a pair; if they are beside the masks, without those in folders of masks."""
        if image_folder != parent:
            yield from self.tree.below(image_folder)
            return
        yield from self.tree.images.get(parent, ())
        for path in self.tree.folders[parent]:
            # A folder valid/ that also exists below the masks is a split.
            valid = has_role("valid", path.name) and mask_folder / path.name not in self.tree.folders
            if path != mask_folder and not valid and not has_role("mask", path.name):
                yield from self.tree.below(path)

    def _select(self, pairs: Sequence[FolderPair]) -> list[FolderPair]:
        """Keep the pairs whose files match; every folder may occur once.

        Raises:
            PairingError: two pairs, or two names of masks, fit equally well.
        """
        matching = [pair for pair in pairs if pair.tie.count]
        for pair in matching:
            rivals = [other for other in matching if other is not pair and other.folders & pair.folders]
            if rivals:
                raise self._which_folder([pair, *rivals])
            if pair.tie.rival is not None:
                raise _which_name(pair)
        used = {path for pair in matching for path in pair.folders}
        rest = [pair for pair in pairs if not pair.folders & used]
        if len(rest) > 1 and any(a.folders & b.folders for a in rest for b in rest if a is not b):
            raise self._which_folder(rest)
        for pair in pairs:
            unused = pair.folders - used
            if pair not in matching and pair not in rest and unused:
                lost = unused.pop()
                if lost not in self.left_out:
                    self.left_out.append(lost)
                    (kept,) = pair.folders - {lost}
                    lost_name, kept_name = self._short(lost), self._short(kept)
                    self.notices.append(f"{lost_name} holds no file that matches one in {kept_name} and is left out")
        return matching + rest

    def _leave_out_second_masks(self, pairs: Sequence[FolderPair], masks: Iterable[tuple[Path, Role]]) -> None:
        """Leave out gt2/ if there is gt/."""
        used = {path for pair in pairs for path in pair.folders}
        for path, role in masks:
            folders = [pair.mask_folder for pair in pairs]
            first = next((each for each in folders if Role("mask", role.base) in folder_roles(each.name)), None)
            if role.number and path not in used and path not in self.left_out and first is not None:
                self.left_out.append(path)
                text = f"{self._short(path)} is a second set of masks beside {first.name}/ and is left out"
                self.notices.append(text)

    def _with_valid(self, pair: FolderPair, folders: Sequence[Path]) -> FolderPair:
        """Add the folder of masks of valid pixels, if there is one."""
        requested = self.request.valid
        folders = [path for path in folders if path not in pair.folders and path not in self.left_out]
        matching: list[tuple[Path, dict[str, Path]]] = []
        for path in folders:
            if requested is None:
                named = (has_role("valid", path.name) or self._is_field_of_view(path)) and not pair.base
            else:
                named = requested.strip("/") in (path.name, short(path, self.tree.root))
            if named and (files := self._valid_files(path, pair)):
                matching.append((path, files))
        if len(matching) > 1:
            raise PairingError(
                pair.parent,
                expected="one folder of masks of valid pixels",
                found=" and ".join(self._short(path) for path, _ in matching),
                do=f"Choose one: {option('data.valid', matching[0][0].name)}, or --set data.valid=none.",
            )
        return replace(pair, valid=matching[0]) if matching else pair

    def _valid_files(self, folder: Path, pair: FolderPair) -> dict[str, Path]:
        """Return the mask of valid pixels of each image that has one in a folder."""
        files = by_key(self.tree.below(folder), folder)
        tie = find_tie(pair.images, files)
        by_core = {tie.mask.core(key) or key: paths[0] for key, paths in files.items()} if tie.count else {}
        return {key: path for key in pair.images if (path := by_core.get(tie.image.core(key) or key)) is not None}

    def _which_folder(self, pairs: Sequence[FolderPair]) -> PairingError:
        """Return the error that lists several matching folders, with the options that choose one."""
        shown = [
            f"{self._short(pair.image_folder)} with {self._short(pair.mask_folder)}"
            f" ({pair.tie.count} pair{'s' * (pair.tie.count != 1)})"
            for pair in pairs[:3]
        ]
        first = pairs[0]
        masks = list(dict.fromkeys(pair.mask_folder.name for pair in pairs))
        if len(masks) > 1:
            options = ", or ".join(option("data.masks", name) for name in masks[:2])
        else:
            suffix = next((path.suffix for paths in first.masks.values() for path in paths), ".png")
            images = f"{glob.escape(short(first.image_folder, self.tree.root))}/*"
            template = f"{self._short(first.mask_folder)}{first.tie.mask.around('{stem}')}{suffix}"
            options = f"{option('data.images', images)} {option('data.masks', template)}"
        expected = "one folder of images for one of masks"
        return PairingError(first.parent, expected=expected, found=" and ".join(shown), do=f"Choose one: {options}.")


def _candidates(
    folders: Sequence[Path], masks: Iterable[tuple[Path, Role]], *, numbers: bool
) -> list[tuple[Path, Path, str]]:
    """Return each two folders whose names match, once: images, masks, and what the names share."""
    found: dict[tuple[Path, Path], tuple[Path, Path, str]] = {}
    for path, role in masks:
        for other in folders:
            equal = [each for each in folder_roles(other.name) if each.kind == "image" and each.base == role.base]
            fits = any(each.number == role.number for each in equal) if numbers else bool(equal)
            fits = fits or (bool(role.base) and not role.number and folder_base(other.name) == role.base)
            if fits and other != path:
                found.setdefault((other, path), (other, path, role.base))
    return list(found.values())


def _without_role_folders(files: Files) -> Files:
    """Remove folders named after images or masks from names."""
    flat: dict[str, list[Path]] = defaultdict(list)
    for key, paths in files.items():
        *folders, stem = key.split("/")
        kept = [name for name in folders if not has_role("image", name) and not has_role("mask", name)]
        flat["/".join([*kept, stem])] += paths
    return dict(flat)


def _which_name(pair: FolderPair) -> PairingError:
    """Return the error that lists two names of masks, with the options that choose one."""
    rival = pair.tie.rival
    assert rival is not None
    key = next(key for key in pair.images if any(rival.core(other) == key for other in pair.masks))
    suffix = next(path.suffix for paths in pair.masks.values() for path in paths)
    affixes = (pair.tie.mask, rival)
    names = " and ".join(affix.around(key.rpartition("/")[2]) + suffix for affix in affixes)
    which = ", or ".join(option("data.masks", affix.around("{stem}") + suffix) for affix in affixes)
    # Names that differ only in a number at the end: a_1 and a_2, or a_mask and a_mask_1.
    before, behind = ({affix.before for affix in affixes}, {_NUMBER.sub("", affix.behind) for affix in affixes})
    numbered = len(before) == len(behind) == 1
    return PairingError(
        pair.mask_folder,
        expected="one mask for every image",
        found=f"{names} for {pair.images[key][0].name}",
        do=f"{OBJECTS} If one is the ground truth: {which}." if numbered else f"Choose one: {which}.",
    )
