"""Pair image volumes with label volumes by the names of folders and files, otherwise by their position in space.

    imagesTr/a.nii.gz labelsTr/a.nii.gz     folders as in `folders.names`, equal paths below them; several channels
                                            (a_0000.nii.gz, a_0001.nii.gz) become bands
    a_ct.nii.gz a_seg.nii.gz  series/       otherwise: files with a word for masks in their name, or .seg.nrrd, are masks, and belong to the
                                            image with the same shape and affine; among several, to the one with most folders
                                            and words in common

If several fit equally well, an error lists every pair with the options that choose it.
"""

from __future__ import annotations

import re
import shlex
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from pixelwise.errors import ConfigError, DataError, MaskError, PairingError
from pixelwise.formats.dataset_root import SPLIT_NAMES, DatasetRoot, files_in, fill_template, split_of_folder
from pixelwise.formats.folders.names import MASKS, Role, find_tie, folder_roles, pair
from pixelwise.formats.records import ORPHAN, Layout, Problem, Record, short
from pixelwise.formats.volume_slices import Volume
from pixelwise.imageio.dicom import is_dicom, may_be_dicom
from pixelwise.imageio.unreadable import VOLUME_SUFFIXES
from pixelwise.imageio.volume_files import is_volume, read_header
from pixelwise.imageio.volumes import VolumeHeader, require_same_place

UNMASKED = "volume without a mask"
_CHANNEL = re.compile(r"(.+)_([0-9]{4})")
_FOLDER_ENDINGS = SPLIT_NAMES | {"ts": "test", "va": "val"}
_MOST_SHOWN = 6
_SLICER = ".seg.nrrd"  # of segmentations of 3D Slicer

_MOST_FOLDERS = 64
_FILES_PER_FOLDER = 3

Series = Mapping[Path, tuple[VolumeHeader, tuple[Path, ...]]]
Named = Mapping[str, list[Path]]


@dataclass(eq=False)
class VolumePairs:
    """The image volumes of a data set and the masks found so far."""

    dataset: DatasetRoot
    series: Series = field(default_factory=dict)  # header and files of each folder with a DICOM series
    splits: dict[str, list[Record]] = field(default_factory=lambda: defaultdict(list))
    channels: dict[Path, list[Path]] = field(default_factory=dict)  # further channels of an image
    problems: list[Problem] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)

    def add_problem(self, path: Path, why: str) -> None:
        """Report a volume without a partner."""
        self.problems.append(Problem(short(path, self.dataset.root), why))

    def skip(self, error: DataError) -> Problem:
        """Return a problem for an unreadable volume, with `data.skip_bad`; otherwise raise the error."""
        if not self.dataset.config.skip_bad:
            raise error
        return Problem.from_error(error, short(Path(error.where), self.dataset.root))

    def add(self, split: str, images: Named, masks: Named) -> None:
        """Pair by names; a single image and a single mask belong together in any case."""
        images = self._group_channels(images, masks)
        if len(images) == len(masks) == 1:
            (key,), (image_files,), (mask_files,) = images, images.values(), masks.values()
            if len(image_files) == len(mask_files) == 1:
                self.splits[split].append(Record(key, image_files[0], mask_files[0]))
                return
        paired = pair(images, masks, find_tie(images, masks))
        self.splits[split] += paired.records
        for path, why in paired.problems:
            self.add_problem(path, why)

    def _group_channels(self, images: Named, masks: Named) -> dict[str, list[Path]]:
        """Group channels under the name of their mask; the first represents all."""
        grouped: dict[str, list[Path]] = {}
        numbers: dict[str, list[int]] = defaultdict(list)
        for key, paths in images.items():
            match = _CHANNEL.fullmatch(key)
            if match is None or key in masks or match[1] not in masks or len(paths) > 1:
                grouped[key] = paths
                continue
            numbers[match[1]].append(int(match[2]))
            if match[1] in grouped:
                self.channels.setdefault(grouped[match[1]][0], []).extend(paths)
            else:
                grouped[match[1]] = paths
        most = max(map(len, numbers.values()), default=0)
        for key, present in numbers.items():
            if present != list(range(most)):
                shown = ", ".join(map(str, present))
                self.add_problem(grouped.pop(key)[0], f"volume without its other channels (only {shown} of {most})")
        return grouped

    def volumes(self, layout: Layout) -> tuple[dict[str, list[Volume]], list[Problem]]:
        """Read the headers of all volumes.

        Raises:
            ImageError: an unreadable volume; with `data.skip_bad` it becomes a problem.
        """
        problems = list(layout.problems)
        volumes: dict[str, list[Volume]] = defaultdict(list)
        for split, records in layout.splits.items():
            for record in records:
                if record.mask is None:
                    problems.append(Problem(short(record.image, self.dataset.root), UNMASKED))
                    continue
                try:
                    volumes[split].append(self._volume(record, record.mask))
                except DataError as error:
                    problems.append(self.skip(error))
        return dict(volumes), problems

    def _volume(self, record: Record, mask: Path) -> Volume:
        """Read the headers of a volume, its further channels and its mask, which must all have the same voxels."""
        header, files = self.series.get(record.image) or (read_header(record.image), ())
        more = tuple(read_header(path) for path in self.channels.get(record.image, ()))
        for other in (*more, read_header(mask, MaskError)):
            require_same_place(header, other)
        return Volume(record.id, header, mask, files, more)


def _key(path: Path, folder: Path) -> str:
    """Return the path of a volume below a folder, without suffix (.nii.gz and .seg.nrrd are one each)."""
    name = path.relative_to(folder).as_posix() if path.is_relative_to(folder) else path.name
    return re.sub(r"(?i)\.(nii(\.gz)?|(seg\.)?nrrd|nhdr)$", "", name)


def _by_key(paths: Iterable[Path], folder: Path) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = defaultdict(list)
    for path in paths:
        found[_key(path, folder)].append(path)
    return dict(found)


def _volume_files(paths: Iterable[Path]) -> list[Path]:
    return sorted({path for path in files_in(paths) if is_volume(path)})


# DICOM series --------------------------------------------------------------------------------------------------------


def volume_files(dataset: DatasetRoot) -> Sequence[Path]:
    """Return the files below the root, or those that the configuration names as images; none if it is invalid."""
    try:
        named = [dataset.matching(split.images, "data.images") for split in dataset.named_splits.values()]
    except (DataError, ConfigError):
        return []
    return files_in(path for paths in named for path in paths) if named else dataset.files


def unreadable_volumes(dataset: DatasetRoot) -> list[Path]:
    """Return the volumes below the root, or among those that the configuration names, in formats that cannot be read."""
    return [path for path in volume_files(dataset) if path.suffix.lower() in VOLUME_SUFFIXES]


def dicom_candidates(dataset: DatasetRoot) -> dict[Path, list[Path]]:
    """Return the files that may be DICOM by their names, by folder."""
    found: dict[Path, list[Path]] = defaultdict(list)
    for path in dict.fromkeys(volume_files(dataset)):
        if may_be_dicom(path):
            found[path.parent].append(path)
    return found


def first_series(dataset: DatasetRoot) -> Path | None:
    """Return a folder with DICOM files, judged by a few files in each of the first folders."""
    folders = list(dicom_candidates(dataset).items())[:_MOST_FOLDERS]
    return next((folder for folder, paths in folders if any(map(is_dicom, paths[:_FILES_PER_FOLDER]))), None)


# Pairing by the configuration ----------------------------------------------------------------------------------------


def find_named(volumes: VolumePairs) -> None:
    """Pair what `data.images` and `data.masks` name; each is a folder, a glob or a template.

    Raises:
        ConfigError: no masks named, a pattern that matches nothing, or an invalid template.
    """
    dataset = volumes.dataset
    for name, split in dataset.named_splits.items():
        where = "data" if name == "pool" else f"data.{name}"
        template = split.masks or dataset.config.masks
        if template is None:
            do = "Add masks: --set 'data.masks=labels/{stem}.nii.gz', or a folder or glob."
            raise ConfigError(f"{where}.masks", expected="where the masks are", found="nothing", do=do)
        matching = dataset.matching(split.images, f"{where}.images")
        images = _by_key(named_series(volumes, matching) + _volume_files(matching), dataset.root)
        if "{" in template:
            for key, paths in images.items():
                parent, _, stem = key.rpartition("/")
                mask = dataset.root / fill_template(template, stem, paths[0], parent or ".", f"{where}.masks")
                volumes.splits[name].append(Record(key, paths[0], mask if mask.is_file() else None))
            continue
        masks = _by_key(_volume_files(dataset.matching(template, f"{where}.masks")), dataset.root)
        stems = [{PurePosixPath(key).name: paths for key, paths in files.items()} for files in (images, masks)]
        unique = len(stems[0]) == len(images) and len(stems[1]) == len(masks)
        volumes.add(name, *(stems if unique else (images, masks)))


def named_series(volumes: VolumePairs, paths: Sequence[Path]) -> list[Path]:
    """Return the folders of series that paths name: a folder, one above it, or files in it."""
    folders = {path if path.is_dir() else path.parent for path in paths} & set(volumes.series)
    folders |= {f for f in volumes.series for path in paths if path.is_dir() and f.is_relative_to(path)}
    return sorted(folders)


# Pairing by the names of folders -------------------------------------------------------------------------------------


def find_by_folders(volumes: VolumePairs, paths: Sequence[Path]) -> bool:
    """Pair the volumes in folders that are named after images and masks; return whether there are any."""
    root = volumes.dataset.root
    found: dict[tuple[Path, str], dict[str, dict[str, list[Path]]]] = {}
    outside = []
    for path in paths:
        folder, role = _role(path, root)
        if role is None:
            outside.append(path)
            continue
        kinds = found.setdefault((folder.parent, role.base), {"image": defaultdict(list), "mask": defaultdict(list)})
        kinds[role.kind][_key(path, folder)].append(path)
    if not any(kinds["image"] and kinds["mask"] for kinds in found.values()):
        return False
    for (parent, base), kinds in found.items():
        if kinds["mask"]:
            for split, images, masks in _by_split(kinds["image"], kinds["mask"], base, root):
                volumes.add(split, images, masks)
        else:
            count = len(kinds["image"])
            folder_name = f"{short(parent, root)}/ ({base or 'images'})"
            volumes.notices.append(
                f"{count} volumes in a folder of images below {folder_name} have no folder of masks: left out"
            )
    for records in volumes.splits.values():  # several folders may have volumes of one name
        ids = Counter(record.id for record in records)
        records[:] = [replace(each, id=_key(each.image, root)) if ids[each.id] > 1 else each for each in records]
    if outside:
        first = f"{short(outside[0], root)}{', …' if len(outside) > 1 else ''}"
        volumes.notices.append(f"{len(outside)} volumes in no folder of images or masks are left out ({first})")
    return True


def _role(path: Path, root: Path) -> tuple[Path, Role | None]:
    """Return the innermost folder, below the root, that is named after images or masks, and its role."""
    for folder in path.parents:
        if folder in (root, root.parent):
            break
        roles = [role for role in folder_roles(folder.name) if role.kind != "valid" and not role.number]
        if roles:
            return folder, roles[0]
    return path.parent, None


def _by_split(images: Named, masks: Named, base: str, root: Path) -> Iterator[tuple[str, Named, Named]]:
    """Divide images and masks by the splits that their folders indicate; labelsTs/ is test, labelsVa/ val."""
    divided: dict[str, tuple[dict[str, list[Path]], dict[str, list[Path]]]] = {}
    for kind, files in enumerate((images, masks)):
        for key, paths in files.items():
            split = _FOLDER_ENDINGS.get(base) or split_of_folder(paths[0], root) or "pool"
            divided.setdefault(split, ({}, {}))[kind][key] = paths
    for split in sorted(divided):
        yield split, *divided[split]


# Pairing by position -------------------------------------------------------------------------------------------------


def find_by_position(volumes: VolumePairs, paths: Sequence[Path]) -> None:
    """Pair volumes and series by shape and affine.

    Raises:
        PairingError: several masks fit an image equally well, or several images a mask.
        ImageError: an unreadable volume; with `data.skip_bad` it becomes a problem.
    """
    root = volumes.dataset.root
    masks = [path for path in paths if is_named_mask(path)]
    images = [*volumes.series, *(path for path in paths if path not in set(masks))]
    headers: dict[Path, VolumeHeader] = {}
    for path in (*images, *masks):
        try:
            headers[path] = volumes.series[path][0] if path in volumes.series else read_header(path)
        except DataError as error:
            volumes.problems.append(volumes.skip(error))
    chosen = {
        image: _nearest(image, [m for m in masks if m in headers and _same_place(headers[image], headers[m])])
        for image in images
        if image in headers
    }
    used = [mask for best in chosen.values() for mask in best]
    if any(len(best) > 1 for best in chosen.values()) or len(set(used)) < len(used):
        raise ambiguous(root, chosen, "several with the same voxels")
    for image, best in chosen.items():
        if best:
            split = split_of_folder(image, root) or "pool"
            volumes.splits[split].append(Record(_key(image, root), image, best[0]))
        else:
            volumes.add_problem(image, f"{UNMASKED} on its voxels")
    for mask in masks:
        if mask in headers and mask not in used:
            volumes.add_problem(mask, ORPHAN)


def ambiguous(root: Path, pairs: Mapping[Path, Sequence[Path]], found: str) -> PairingError:
    """Return the error that lists the pairs (masks by image), with the options that choose each."""
    listed = [(short(image, root), short(mask, root)) for image, masks in pairs.items() for mask in masks]
    shown = "; ".join(f"{image} with {mask}" for image, mask in listed[:_MOST_SHOWN])
    more = f" (and {len(listed) - _MOST_SHOWN} more)" if len(listed) > _MOST_SHOWN else ""
    options = "; or ".join(
        f"--set {shlex.quote(f'data.images={image}')} --set {shlex.quote(f'data.masks={mask}')}"
        for image, mask in listed[:_MOST_SHOWN]
    )
    expected = "one mask for every volume and one volume for every mask"
    return PairingError(root, expected=expected, found=f"{found}: {shown}{more}", do=f"Choose one: {options}.")


def is_named_mask(path: Path) -> bool:
    """Whether the name of a file has a word for masks, or is that of a segmentation of 3D Slicer."""
    return not set(_words(path)).isdisjoint(MASKS) or path.name.lower().endswith(_SLICER)


def _words(path: Path) -> list[str]:
    return [word for word in re.split(r"[_\-. ]+", _key(path, path.parent).lower()) if word]


def _same_place(image: VolumeHeader, mask: VolumeHeader) -> bool:
    try:
        require_same_place(image, mask)
    except PairingError:
        return False
    return True


def _nearest(image: Path, masks: Sequence[Path]) -> list[Path]:
    """Return the masks with most folders, then words, in common with an image."""

    def common(mask: Path) -> tuple[int, int]:
        folders = sum(a == b for a, b in zip(image.parts, mask.parts, strict=False))
        return folders, len(set(_words(image)) & set(_words(mask)) - set(MASKS))

    best = max(map(common, masks), default=None)
    return [mask for mask in masks if common(mask) == best]
