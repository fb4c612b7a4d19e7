"""Find which label volume belongs to which image volume: by what folders and files are called, else by where they lie.

Comes in: the volumes of a place, and the `data` section. Goes out: `Stack`s per part, and what found no partner. Knows
nothing of slices, classes or pixels.

    imagesTr/a.nii.gz labelsTr/a.nii.gz     folders with the names of `roles`, equal paths below them; of several channels
                                            (a_0000.nii.gz, a_0001.nii.gz) each is a band
    a_ct.nii.gz a_seg.nii.gz  series/       loose ones: files whose names hold a word for masks are masks, and belong to the
                                            image whose voxels they share, shape and affine alike; of several, to the one
                                            with the most folders and words in common

Where several fit equally well it is asked, and every pair is named with the options that choose it.
"""

from __future__ import annotations

import re
import shlex
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from pixelwise.config import SplitFilesConfig
from pixelwise.errors import ConfigError, DataError, MaskError, PairingError
from pixelwise.formats.dataset_root import DatasetRoot, split_of_folder, walk
from pixelwise.formats.folders.names import find_tie, pair
from pixelwise.formats.folders.names import MASKS, Role, folder_roles
from pixelwise.formats.records import ORPHAN, SPLIT_FOLDERS, SPLITS, Layout, Problem, Record, short
from pixelwise.formats.stacks import Stack
from pixelwise.imageio.dicom import is_dicom
from pixelwise.imageio.nifti import is_nifti
from pixelwise.imageio.nifti import read_header as read_nifti
from pixelwise.imageio.volumes import VolumeHeader, require_same_place

_UNMASKED = "volume without a mask"
_CHANNEL = re.compile(r"(.+)_([0-9]{4})")
_ENDS = {name: split for split, names in SPLIT_FOLDERS.items() for name in names} | {"ts": "test", "va": "val"}
_SHOWN = 6

# Files of DICOM have any name; those of these kinds are something else.
_OTHERS = {
    ".bmp", ".csv", ".gif", ".gz", ".html", ".jpeg", ".jpg", ".json", ".md", ".mha", ".nii", ".npy", ".npz", ".nrrd", ".pdf",
    ".png", ".py", ".tif", ".tiff", ".txt", ".webp", ".xls", ".xlsx", ".xml", ".yaml", ".yml", ".zip",
}  # fmt: skip
_FOLDERS_LOOKED_INTO, _FILES_LOOKED_INTO = 64, 3

Series = Mapping[Path, tuple[VolumeHeader, tuple[Path, ...]]]


@dataclass(eq=False)
class Volumes:
    """Hold the image volumes of a place while partners are found for them.

    Args:
        place: where they lie.
        series: header and files of each folder that holds a DICOM series.
        parts: image and mask by name, per part.
        more: further channels of an image.
        problems: what found no partner.
        notices: what was decided.
    """

    place: DatasetRoot
    series: Series = field(default_factory=dict)
    splits: dict[str, list[Record]] = field(default_factory=lambda: defaultdict(list))
    more: dict[Path, list[Path]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)

    def problem(self, path: Path, why: str) -> None:
        """Note what found no partner."""
        self.problems.append(Problem(short(path, self.place.root), why))

    def add(self, split: str, images: Mapping[str, list[Path]], masks: Mapping[str, list[Path]]) -> None:
        """Pair by names; a single image and a single mask belong together whatever they are called."""
        images = self._channels(images, masks)
        if len(images) == len(masks) == 1:
            (key,), (own,), (mask,) = images, images.values(), masks.values()
            if len(own) == len(mask) == 1:
                self.splits[split].append(Record(key, own[0], mask[0]))
                return
        paired = pair(images, masks, find_tie(images, masks))
        self.splits[split] += paired.records
        for path, why in paired.problems:
            self.problem(path, why)

    def _channels(self, images: Mapping[str, list[Path]], masks: Mapping[str, list[Path]]) -> dict[str, list[Path]]:
        """Gather channels under the name of their mask; the first stands for all."""
        whole: dict[str, list[Path]] = {}
        numbers: dict[str, list[int]] = defaultdict(list)
        for key, paths in images.items():
            found = _CHANNEL.fullmatch(key)
            if found is None or key in masks or found[1] not in masks or len(paths) > 1:
                whole[key] = paths
                continue
            numbers[found[1]].append(int(found[2]))
            if found[1] in whole:
                self.more.setdefault(whole[found[1]][0], []).extend(paths)
            else:
                whole[found[1]] = paths
        most = max(map(len, numbers.values()), default=0)
        for key, own in numbers.items():
            if own != list(range(most)):
                there = ", ".join(map(str, own))
                self.problem(whole[key][0], f"volume without its other channels (only {there} of {most})")
                del whole[key]
        return whole

    def stacks(self, layout: Layout) -> tuple[dict[str, list[Stack]], list[Problem]]:
        """Read the headers of all volumes.

        Raises:
            ImageError: one that cannot be read; with `data.skip_bad` it becomes a problem.
        """
        problems = list(layout.problems)
        stacks: dict[str, list[Stack]] = {}
        for split, records in layout.splits.items():
            stacks[split] = []
            for record in records:
                if record.mask is None:
                    problems.append(Problem(short(record.image, self.place.root), _UNMASKED))
                    continue
                try:
                    stacks[split].append(self._stack(record))
                except DataError as error:
                    if not self.place.config.skip_bad:
                        raise
                    problems.append(Problem(error.where, f"expected {error.expected}, found {error.found}"))
        return {split: own for split, own in stacks.items() if own}, problems

    def _stack(self, record: Record) -> Stack:
        """Read the headers of a volume, its further channels and its mask, which all must share their voxels."""
        assert record.mask is not None
        header, files = self.series.get(record.image) or (read_nifti(record.image), ())
        more = tuple(read_nifti(path) for path in self.more.get(record.image, ()))
        for other in (*more, read_nifti(record.mask, MaskError)):
            require_same_place(header, other)
        return Stack(record.id, header, record.mask, files, more)


def bare(name: str) -> str:
    """Take the suffix off a name, both of .nii.gz."""
    return re.sub(r"(?i)\.nii(\.gz)?$", "", name)


def key_below(path: Path, folder: Path) -> str:
    """Name a volume by its path below a folder, without suffix."""
    return bare(path.relative_to(folder).as_posix()) if path.is_relative_to(folder) else bare(path.name)


def by_key(paths: Iterable[Path], folder: Path) -> dict[str, list[Path]]:
    """Gather volumes by their names below a folder."""
    found: dict[str, list[Path]] = defaultdict(list)
    for path in paths:
        found[key_below(path, folder)].append(path)
    return dict(found)


# By the configuration --------------------------------------------------------------------------------------------------


def named_splits(place: DatasetRoot) -> dict[str, SplitFilesConfig]:
    """Give what the configuration names: parts, and "pool" for what stands under `data.images`."""
    named = {split: value for split in SPLITS if isinstance(value := getattr(place.config, split), SplitFilesConfig)}
    if place.config.images is not None:
        named["pool"] = SplitFilesConfig(images=place.config.images)
    return named


def named_volumes(place: DatasetRoot) -> list[Path]:
    """Find the files and folders that the configuration names as images; none where it makes no sense."""
    try:
        return [path for split in named_splits(place).values() for path in place.matching(split.images, "data.images")]
    except (DataError, ConfigError):
        return []


def files_of(found: Iterable[Path]) -> list[Path]:
    """Give files, and those below folders; hidden ones are left out."""
    return [file for path in found for file in ([path] if path.is_file() else sorted(walk(path)))]


def candidates(place: DatasetRoot) -> dict[Path, list[Path]]:
    """Gather, by folder, the files below the root, or among what the configuration names, that may be DICOM by their names."""
    files: Iterable[Path] = place.files
    if named_splits(place):
        files = files_of(named_volumes(place))
    found: dict[Path, list[Path]] = defaultdict(list)
    for path in dict.fromkeys(files):
        if path.suffix.lower() not in _OTHERS and path.name.upper() != "DICOMDIR":
            found[path.parent].append(path)
    return found


def first_series(place: DatasetRoot) -> Path | None:
    """Find a folder with DICOM in it, looking into a few files of each of the first folders."""
    folders = list(candidates(place).items())[:_FOLDERS_LOOKED_INTO]
    return next((folder for folder, paths in folders if any(map(is_dicom, paths[:_FILES_LOOKED_INTO]))), None)


def find_named(volumes: Volumes) -> None:
    """Pair what `data.images` and `data.masks` name, a folder, a glob or a template each.

    Raises:
        ConfigError: no masks named, a pattern that matches nothing, or a template that makes no sense.
    """
    place = volumes.place
    for name, split in named_splits(place).items():
        where = "data" if name == "pool" else f"data.{name}"
        masks = split.masks or place.config.masks
        if masks is None:
            do = "Add masks: --set 'data.masks=labels/{stem}.nii.gz', or a folder or glob."
            raise ConfigError(f"{where}.masks", expected="where the masks are", found="nothing", do=do)
        images = by_key(_images(volumes, place.matching(split.images, f"{where}.images")), place.root)
        if "{" not in masks:
            truths = by_key(_niftis(place.matching(masks, f"{where}.masks")), place.root)
            shortened = [{PurePosixPath(key).name: own for key, own in one.items()} for one in (images, truths)]
            volumes.add(
                name, *(shortened if list(map(len, shortened)) == [len(images), len(truths)] else (images, truths))
            )
            continue
        for key, own in images.items():
            path = place.root / _filled(masks, key, own[0], f"{where}.masks")
            volumes.splits[name].append(Record(key, own[0], path if path.is_file() else None))


def _images(volumes: Volumes, found: Iterable[Path]) -> list[Path]:
    """Give NIfTI files, those below named folders too, and the folders of series."""
    found = list(found)
    series = {path if path.is_dir() else path.parent for path in found} & set(volumes.series)
    inside = {folder for folder in volumes.series for path in found if path.is_dir() and folder.is_relative_to(path)}
    return sorted(series | inside) + _niftis(found)


def _niftis(found: Iterable[Path]) -> list[Path]:
    return sorted({path for path in files_of(found) if is_nifti(path)})


def _filled(template: str, key: str, image: Path, where: str) -> str:
    pure = PurePosixPath(key)
    try:
        return template.format(stem=pure.name, name=image.name, parent=pure.parent.as_posix())
    except (KeyError, IndexError, ValueError, AttributeError, TypeError) as error:
        expected = "a template with {stem}, {name} or {parent}"
        raise ConfigError(where, expected=expected, found=repr(template), do="Correct it.") from error


# By folders ------------------------------------------------------------------------------------------------------------


def find_by_folders(volumes: Volumes, paths: Sequence[Path]) -> bool:
    """Pair the volumes in folders that are called after images and masks; say whether there are any such."""
    place = volumes.place
    found: dict[tuple[Path, str], dict[str, dict[str, list[Path]]]] = {}
    outside = []
    for path in paths:
        folder, role = _role(path, place.root)
        if role is None:
            outside.append(path)
            continue
        kinds = found.setdefault((folder.parent, role.base), {"image": defaultdict(list), "mask": defaultdict(list)})
        kinds[role.kind][key_below(path, folder)].append(path)
    if not any(kinds["image"] and kinds["mask"] for kinds in found.values()):
        return False
    for (above, base), kinds in found.items():
        if not kinds["mask"]:
            lost = f"{len(kinds['picture'])} volumes below {short(above, place.root)}/ lie in a folder of images"
            volumes.notices.append(f"{lost} ({base or 'images'}) without one of masks, and are left out")
            continue
        for split, images, masks in _by_split(kinds["image"], kinds["mask"], base, place.root):
            volumes.add(split, images, masks)
    for own in volumes.splits.values():  # several folders of images may hold volumes of one name
        many = Counter(record.id for record in own)
        own[:] = [replace(one, id=key_below(one.image, place.root)) if many[one.id] > 1 else one for one in own]
    if outside:
        first = f"{short(outside[0], place.root)}{', …' if len(outside) > 1 else ''}"
        volumes.notices.append(f"{len(outside)} volumes in no folder of images or masks are left out ({first})")
    return True


def _role(path: Path, root: Path) -> tuple[Path, Role | None]:
    """Give the innermost folder whose name says what is in it, and what it says."""
    for folder in path.parents:
        if folder == root.parent:
            break
        roles = [role for role in folder_roles(folder.name) if role.kind != "valid" and not role.number]
        if roles and folder != root:
            return folder, roles[0]
    return path.parent, None


def _by_split(
    images: Mapping[str, list[Path]], masks: Mapping[str, list[Path]], base: str, root: Path
) -> Iterable[tuple[str, dict[str, list[Path]], dict[str, list[Path]]]]:
    """Divide images and masks by the parts that their folders name; labelsTs/ is test, labelsVa/ val."""

    def split(paths: list[Path]) -> str:
        return _ENDS.get(base) or split_of_folder(paths[0], root) or "pool"

    def of(files: Mapping[str, list[Path]], name: str) -> dict[str, list[Path]]:
        return {key: paths for key, paths in files.items() if split(paths) == name}

    for name in sorted({split(paths) for paths in (*images.values(), *masks.values())}):
        yield name, of(images, name), of(masks, name)


# By place --------------------------------------------------------------------------------------------------------------


def find_by_place(volumes: Volumes, paths: Sequence[Path]) -> None:
    """Pair loose volumes and series by the voxels they share.

    Raises:
        PairingError: several masks fit an image equally well, or several images a mask.
        ImageError: a volume that cannot be read; with `data.skip_bad` it becomes a problem.
    """
    masks = {path: None for path in paths if _is_mask(path)}
    images = [*volumes.series, *(path for path in paths if path not in masks)]
    headers = _headers(volumes, [*images, *masks])
    fits = {
        image: [mask for mask in masks if mask in headers and _same_place(headers[image], headers[mask])]
        for image in images
        if image in headers
    }
    chosen = {image: _nearest(image, own) for image, own in fits.items()}
    taken = [mask for best in chosen.values() for mask in best]
    if any(len(best) > 1 for best in chosen.values()) or len(set(taken)) < len(taken):
        raise ambiguous(volumes.place.root, chosen, "several that lie on the same voxels")
    for image, best in chosen.items():
        split = split_of_folder(image, volumes.place.root) or "pool"
        key = key_below(image, volumes.place.root)
        if best:
            volumes.splits[split].append(Record(key, image, best[0]))
        else:
            volumes.problem(image, f"{_UNMASKED} on its voxels")
    for mask in masks:
        if mask in headers and mask not in taken:
            volumes.problem(mask, ORPHAN)


def ambiguous(root: Path, pairs: Mapping[Path, Sequence[Path]], found: str) -> PairingError:
    """Ask which pair is meant, with the options that choose each.

    Args:
        root: of the data set.
        pairs: masks that may be meant, by image.
        found: what makes it ambiguous, in words.
    """
    listed = [(short(image, root), short(mask, root)) for image, masks in pairs.items() for mask in masks]
    shown = [
        f"--set {shlex.quote(f'data.images={image}')} --set {shlex.quote(f'data.masks={mask}')}"
        for image, mask in listed
    ]
    more = f" (and {len(listed) - _SHOWN} more)" if len(listed) > _SHOWN else ""
    return PairingError(
        root,
        expected="one mask for every volume and one volume for every mask",
        found=f"{found}: {'; '.join(f'{image} with {mask}' for image, mask in listed[:_SHOWN])}{more}",
        do=f"Choose one: {'; or '.join(shown[:_SHOWN])}.",
    )


def _is_mask(path: Path) -> bool:
    return bool(set(_words(path)) & set(MASKS))


def _words(path: Path) -> list[str]:
    return [word for word in re.split(r"[_\-. ]+", bare(path.name).lower()) if word]


def _headers(volumes: Volumes, paths: Iterable[Path]) -> dict[Path, VolumeHeader]:
    headers = {}
    for path in paths:
        try:
            headers[path] = volumes.series[path][0] if path in volumes.series else read_nifti(path)
        except DataError as error:
            if not volumes.place.config.skip_bad:
                raise
            volumes.problem(path, f"expected {error.expected}, found {error.found}")
    return headers


def _same_place(image: VolumeHeader, mask: VolumeHeader) -> bool:
    try:
        require_same_place(image, mask)
    except PairingError:
        return False
    return True


def _nearest(image: Path, masks: Sequence[Path]) -> list[Path]:
    """Keep the masks with the most folders, then words, in common with an image."""

    def common(mask: Path) -> tuple[int, int]:
        folders = sum(one == other for one, other in zip(image.parts, mask.parts, strict=False))
        return folders, len(set(_words(image)) & set(_words(mask)) - set(MASKS))

    best = max(map(common, masks), default=None)
    return [mask for mask in masks if common(mask) == best]
