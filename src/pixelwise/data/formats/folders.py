"""Find the pictures and masks of a data set in the folders people have, and pair them up.

Comes in: the `data` section of a configuration and a root folder. Goes out: records (paths) per part, and every file
that has no partner. Knows nothing of pixels, classes or random division: no file is opened here.

What is understood without a word of configuration, `masks` standing for any of `MASK_FOLDERS`:

    images/ masks/                          one pool (divided later)
    images/ masks/ splits/{train,val,test}.txt
    {train,val,test}/images/ {train,val,test}/masks/
    images/{train,val,test}/ masks/{train,val,test}/

Pictures and masks belong together where their paths below images/ and masks/ are equal up to the suffix.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from pixelwise.config import DataConfig, PartConfig
from pixelwise.data.formats.format import Format, Found, Picture, copy_picture
from pixelwise.data.formats.place import Place, walk
from pixelwise.data.images import IMAGE_SUFFIXES
from pixelwise.data.lists import divide_by_lists, find_lists
from pixelwise.data.masks import write_mask
from pixelwise.data.records import ORPHAN, PART_FOLDERS, PARTS, Layout, Problem, Record, short
from pixelwise.errors import ConfigError, DataError, PairingError
from pixelwise.labels import Labels

MASK_FOLDERS = ("masks", "labels", "annotations", "gt", "groundtruth")

Files = Mapping[str, Sequence[Path]]


def find_records(config: DataConfig, root: Path, base: Path) -> Layout:
    """Find every picture and its mask.

    Args:
        config: the `data` section; its globs and templates are relative to `root`.
        root: the data set's folder.
        base: the folder of the YAML file; lists are looked for here first, then in `root`.

    Raises:
        DataError: no folder, no pictures, no masks.
        PairingError: a picture listed in two parts.
        ConfigError: a template or list that makes no sense.

    """
    by_name = config.images is not None or any(isinstance(getattr(config, part), PartConfig) for part in PARTS)
    layout = _from_config(config, root) if by_name else _from_folders(root)
    lists = find_lists(config, root, base)
    if lists:
        layout = divide_by_lists(layout, lists, root)
    return _without_partners(layout, root)


def _from_folders(root: Path) -> Layout:
    parts: dict[str, tuple[Record, ...]] = {}
    problems: list[Problem] = []
    notices: tuple[str, ...] = ()
    outside = {part: _first(root, names) for part, names in PART_FOLDERS.items()}
    folders = {part: (f / "images", _masks(f)) for part, f in outside.items() if f and (f / "images").is_dir()}
    kind = "parts with images and masks"
    if not folders and (root / "images").is_dir():
        masks = _masks(root)
        inside = {part: _first(root / "images", names) for part, names in PART_FOLDERS.items()}
        folders = {part: (f, masks / f.name) for part, f in inside.items() if f}
        kind = "images and masks with parts inside"
        beside = _beside_parts(root / "images", folders)
        if beside:
            first = f"{short(beside[0], root)}{', …' if len(beside) > 1 else ''}"
            notices = (f"{len(beside)} below images/ are in no folder of a part and are left out ({first})",)
        if not folders:
            folders, kind = {"pool": (root / "images", masks)}, "images and masks"
    elif folders:
        lost = [f.name for part, f in outside.items() if f and part not in folders and _by_stem(f)]
        notices = tuple(f"{name}/ holds pictures, but no images/ with masks beside, and is left out" for name in lost)
    if not folders:
        raise _nothing_here(root)
    for part, (images, masks) in folders.items():
        pictures = _by_stem(images)
        parts[part], odd = _pair(pictures, _by_stem(masks) if masks.is_dir() else {}, root)
        problems += odd
        if not pictures:
            raise DataError(
                images,
                expected=f"pictures ({', '.join(IMAGE_SUFFIXES)})",
                found="none",
                do="Put them there, or name them in a data.yaml.",
            )
    return Layout(kind, parts, tuple(problems), notices)


def _beside_parts(images: Path, folders: Mapping[str, tuple[Path, Path]]) -> list[Path]:
    """Find pictures below images/ that are in none of the folders of parts in there."""
    parts = [folder for folder, _ in folders.values()]
    found = [paths[0] for paths in _by_stem(images).values()] if parts else []
    return [path for path in found if not any(path.is_relative_to(part) for part in parts)]


def _nothing_here(root: Path) -> DataError:
    loose = sum(path.suffix.lower() in IMAGE_SUFFIXES for path in root.iterdir())
    if loose:
        found = f"{loose} loose pictures"
    else:
        names = sorted(path.name for path in root.iterdir())
        found = f"{', '.join(names[:5])}{', …' if len(names) > 5 else ''}" if names else "an empty folder"
    return DataError(
        root,
        expected="images/ and masks/, or train/, val/ and test/ with those inside",
        found=found,
        do="Arrange the files so, or write a data.yaml with `images:` and `masks:` that names them.",
    )


def _first(folder: Path, names: Iterable[str]) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_dir()), None)


def _masks(folder: Path) -> Path:
    masks = _first(folder, MASK_FOLDERS)
    if masks is None:
        raise DataError(
            folder,
            expected=f"masks beside images/, in one of {', '.join(f'{name}/' for name in MASK_FOLDERS)}",
            found="images/ alone",
            do="Add the masks, or name them in a data.yaml with `masks:`.",
        )
    return masks


def _by_stem(folder: Path) -> dict[str, list[Path]]:
    """Find the pictures below a folder by their path without suffix."""
    files: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(walk(folder)):
        if path.suffix.lower() in IMAGE_SUFFIXES:
            files[path.relative_to(folder).with_suffix("").as_posix()].append(path)
    return files


def _pair(images: Files, masks: Files, root: Path) -> tuple[tuple[Record, ...], list[Problem]]:
    """Pair by equal keys; a picture without a mask stays, with None, until lists have been looked at."""
    records, problems = [], []
    for key, paths in images.items():
        own = masks.get(key, ())
        for twice, what in ((paths, "pictures"), (own, "masks")):
            if len(twice) > 1:
                others = ", ".join(path.name for path in twice[1:])
                problems.append(Problem(short(twice[0], root), f"several {what} of the same name (also {others})"))
        if len(paths) == 1 and len(own) < 2:
            records.append(Record(key, paths[0], own[0] if own else None))
    orphans = [paths[0] for key, paths in masks.items() if key not in images]
    problems += [Problem(short(path, root), ORPHAN) for path in orphans]
    return tuple(records), problems


_UNMASKED = "picture without a mask"
_INVALID = "picture without its mask of valid pixels"


# What a data.yaml names ----------------------------------------------------------------------------------------------


def _from_config(config: DataConfig, root: Path) -> Layout:
    named = {part: getattr(config, part) for part in PARTS if isinstance(getattr(config, part), PartConfig)}
    if config.images is not None:
        if "train" in named:
            raise ConfigError(
                "data", expected="either `images` or `train.images`", found="both", do="Remove one of the two."
            )
        named["pool"] = PartConfig(images=config.images)
    parts: dict[str, tuple[Record, ...]] = {}
    problems: list[Problem] = []
    expected: dict[Path, str] = {}
    known: set[Path] = set()
    for name, part in named.items():
        key = "data" if name == "pool" else f"data.{name}"
        masks, valid = part.masks or config.masks, part.valid or config.valid
        if masks is None:
            raise ConfigError(
                f"{key}.masks", expected="where the masks are", found="nothing", do="Add masks: 'masks/{stem}.png'."
            )
        images = _glob(part.images, root, f"{key}.images")
        records, odd = _pair(images, {}, root)
        problems += odd
        records, orphans = _attach(records, masks, root, f"{key}.masks", "mask")
        problems += orphans
        known |= {path for record in records for path in (record.image, record.mask) if path}
        if valid is not None:
            records, _ = _attach(records, valid, root, f"{key}.valid", "valid")
            problems += [Problem(short(r.image, root), _INVALID) for r in records if r.valid is None]
            known |= {record.valid for record in records if record.valid}
            records = tuple(record for record in records if record.valid is not None)
        parts[name] = records
        expected |= {record.mask: masks for record in records if record.mask and "{" in masks}
    problems += [Problem(short(path, root), ORPHAN) for path in _left_over(expected, known)]
    return Layout("named by globs", parts, tuple(problems))


def _glob(patterns: str | list[str], root: Path, where: str) -> dict[str, list[Path]]:
    files: dict[str, list[Path]] = defaultdict(list)
    patterns = [patterns] if isinstance(patterns, str) else patterns
    for path in sorted({path for pattern in patterns for path in _matches(root, pattern, where)}):
        files[path.relative_to(root).with_suffix("").as_posix()].append(path)
    if not files:
        found = f"none that match {', '.join(patterns)} in {root}"
        raise DataError(where, expected="pictures", found=found, do="Check the pattern, and data.root.")
    return files


def _matches(root: Path, pattern: str, where: str) -> list[Path]:
    try:
        return [path for path in root.glob(pattern) if path.is_file() and not path.name.startswith(".")]
    except (ValueError, NotImplementedError) as error:
        raise ConfigError(
            where, expected="a pattern relative to the root", found=f"{pattern!r} ({error})", do="Correct it."
        ) from error


def _attach(
    records: tuple[Record, ...], pattern: str, root: Path, where: str, field: str
) -> tuple[tuple[Record, ...], list[Problem]]:
    """Give each record the file that a template or glob names, as its mask or its mask of valid pixels."""
    if "{" in pattern:
        paths = [_fill(pattern, record.image, root, where) for record in records]
        several = sorted(path for path, n in Counter(paths).items() if n > 1 and path.is_file())
        if several and field == "mask":  # one mask of valid pixels may well serve all pictures of a camera
            raise PairingError(
                where,
                expected="a mask of its own for every picture",
                found=f"{short(several[0], root)} for several",
                do="Use {parent} in the template.",
            )
        return _filled(records, [path if path.is_file() else None for path in paths], field), []
    stems: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(_matches(root, pattern, where)):
        stems[path.stem].append(path)
    if not stems:
        raise DataError(where, expected="masks", found=f"none that match {pattern} in {root}", do="Check the pattern.")
    twice = sorted(path for paths in stems.values() if len(paths) > 1 for path in paths)
    shared = _shared_stems(records)
    if twice or shared:
        first = ", ".join(short(path, root) for path in (twice or shared)[:3])
        raise PairingError(
            where,
            expected="every file name once, since masks are found by name",
            found=f"several files of the same name ({first})",
            do="Use a template with the folder: '{parent}/{stem}.png'.",
        )
    own = [stems.get(record.image.stem, [None])[0] for record in records]
    orphans = sorted(set(stems) - {record.image.stem for record in records})
    return _filled(records, own, field), [Problem(short(stems[stem][0], root), ORPHAN) for stem in orphans]


def _shared_stems(records: Iterable[Record]) -> list[Path]:
    stems: dict[str, list[Path]] = defaultdict(list)
    for record in records:
        stems[record.image.stem].append(record.image)
    return [path for paths in stems.values() if len(paths) > 1 for path in paths]


def _filled(records: Sequence[Record], paths: Sequence[Path | None], field: str) -> tuple[Record, ...]:
    if field == "mask":
        return tuple(replace(record, mask=path) for record, path in zip(records, paths, strict=True))
    return tuple(replace(record, valid=path) for record, path in zip(records, paths, strict=True))


def _fill(template: str, image: Path, root: Path, where: str) -> Path:
    inside = PurePosixPath(short(image, root))
    try:
        text = template.format(stem=inside.stem, name=inside.name, parent=inside.parent.as_posix())
    except (KeyError, IndexError, ValueError, AttributeError, TypeError) as error:
        raise ConfigError(
            where, expected="a template with {stem}, {name} or {parent}", found=repr(template), do="Correct it."
        ) from error
    return root / text


def _left_over(expected: Mapping[Path, str], known: set[Path]) -> list[Path]:
    """Find files that lie where a template puts masks and are named as it names them, but belong to no picture."""
    names: dict[Path, set[str]] = defaultdict(set)
    for path, template in expected.items():
        pieces = re.split(r"\{\w+\}", PurePosixPath(template).name)
        names[path.parent].add(".+".join(map(re.escape, pieces)))
    found = []
    for folder, patterns in names.items():
        joined = re.compile("|".join(sorted(patterns)))
        found += [p for p in folder.iterdir() if joined.fullmatch(p.name) and p.is_file() and p not in known]
    return sorted(found)


def _without_partners(layout: Layout, root: Path) -> Layout:
    """Turn the pictures that still have no mask into problems."""
    lost = [record for records in layout.parts.values() for record in records if record.mask is None]
    problems = tuple(Problem(short(record.image, root), _UNMASKED) for record in lost)
    parts = {part: tuple(r for r in records if r.mask is not None) for part, records in layout.parts.items()}
    return Layout(layout.kind, parts, problems + layout.problems, layout.notices)


def _read(place: Place) -> Found:
    return Found(find_records(place.config, place.root, place.base))


class _Writer:
    """Write pictures and palette masks, in two folders for each part."""

    def __init__(self, out: Path, labels: Labels) -> None:
        self.out, self.labels = out, labels

    def add(self, picture: Picture) -> Path:
        """Write a mask as PNG that keeps the ids."""
        target = self.out / picture.part / "images" / f"{picture.id}{picture.image.suffix.lower()}"
        copy_picture(picture, target)
        mask = self.out / picture.part / "masks" / f"{picture.id}.png"
        mask.parent.mkdir(parents=True, exist_ok=True)
        write_mask(mask, picture.mask, self.labels)
        return target

    def close(self) -> dict[str, Any]:
        """Need no more than the folders."""
        return {"format": "masks"}


FORMAT = Format("masks", "folders of masks", lambda place: None, _read, _Writer)
