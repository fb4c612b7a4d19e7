"""Pair the images and masks that a configuration names by globs and templates."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from pixelwise.errors import ConfigError, DataError, PairingError
from pixelwise.formats.dataset_root import DatasetRoot, fill_template, glob_files
from pixelwise.formats.folders.names import pair
from pixelwise.formats.folders.search import UNREADABLE
from pixelwise.formats.records import ORPHAN, Layout, Problem, Record, short
from pixelwise.imageio.file_formats import IMAGE_SUFFIXES

INVALID = "image without its mask of valid pixels"


def find_by_globs(dataset: DatasetRoot) -> Layout:
    """Find the images that globs name, and their masks by templates or globs.

    Raises:
        DataError: a pattern matches nothing (PairingError: a mask for several images).
        ConfigError: an invalid template or pattern.
    """
    config, root = dataset.config, dataset.root
    if {"train", "pool"} <= dataset.named_splits.keys():
        do = "Remove one of the two."
        raise ConfigError("data", expected="either `images` or `train.images`", found="both", do=do)
    splits: dict[str, tuple[Record, ...]] = {}
    problems: list[Problem] = []
    templates: dict[Path, str] = {}
    known: set[Path] = set()
    for name, split in dataset.named_splits.items():
        key = "data" if name == "pool" else f"data.{name}"
        masks = split.masks or config.masks
        valid = split.valid or config.valid
        if masks is None:
            do = "Add masks: 'masks/{stem}.png'."
            raise ConfigError(f"{key}.masks", expected="where the masks are", found="nothing", do=do)
        paired = pair(_find_images(split.images, root, f"{key}.images"), {})
        problems += [Problem(short(path, root), why) for path, why in paired.problems]
        records = paired.records
        files, orphans = _find_partners(records, masks, root, f"{key}.masks", unique=True)
        problems += orphans
        records = [replace(record, mask=path) for record, path in zip(records, files, strict=True)]
        if valid is not None:
            files, _ = _find_partners(records, valid, root, f"{key}.valid", unique=False)
            records = [replace(record, valid=path) for record, path in zip(records, files, strict=True)]
            problems += [Problem(short(record.image, root), INVALID) for record in records if record.valid is None]
        known |= {path for r in records for path in (r.image, r.mask, r.valid) if path}
        splits[name] = tuple(record for record in records if valid is None or record.valid is not None)
        templates |= {record.mask: masks for record in records if record.mask and "{" in masks}
    problems += [Problem(short(path, root), ORPHAN) for path in _unused_masks(templates, known)]
    return Layout("named by globs", splits, tuple(problems))


def _find_images(patterns: str | list[str], root: Path, where: str) -> dict[str, list[Path]]:
    files: dict[str, list[Path]] = defaultdict(list)
    patterns = [patterns] if isinstance(patterns, str) else patterns
    for path in sorted({path for pattern in patterns for path in _matches(root, pattern, where)}):
        files[path.relative_to(root).with_suffix("").as_posix()].append(path)
    if not files:
        found = f"none that match {', '.join(patterns)} in {root}"
        raise DataError(where, expected="images", found=found, do="Check the pattern, and data.root.")
    return files


def _matches(root: Path, pattern: str, where: str) -> list[Path]:
    """Return the files that a pattern matches; if it has no suffix, only those with the suffix of an image."""
    suffix = PurePosixPath(pattern).suffix
    any_suffix = suffix and not set("*?[") & set(suffix)
    return [
        path
        for path in glob_files(root, pattern, where)
        if (any_suffix or path.suffix.lower() in (*IMAGE_SUFFIXES, *UNREADABLE, "")) and path.is_file()
    ]


def _find_partners(
    records: Sequence[Record], pattern: str, root: Path, where: str, *, unique: bool
) -> tuple[Sequence[Path | None], list[Problem]]:
    """Return the file of each record that a template or glob names, and files that belong to no record."""
    if "{" in pattern:
        paths = [_fill(pattern, record.image, root, where) for record in records]
        shared = sorted(path for path, n in Counter(paths).items() if n > 1 and path.is_file())
        if shared and unique:  # a mask of valid pixels may serve all images of a camera
            raise PairingError(
                where,
                expected="a separate mask for every image",
                found=f"{short(shared[0], root)} for several",
                do="Use {parent} in the template.",
            )
        return [path if path.is_file() else None for path in paths], []
    by_stem = _by_stem(sorted(_matches(root, pattern, where)))
    if not by_stem:
        raise DataError(where, expected="masks", found=f"none that match {pattern} in {root}", do="Check the pattern.")
    image_stems = _by_stem(record.image for record in records)
    repeated = [
        path for stems in (by_stem, image_stems) for paths in stems.values() if len(paths) > 1 for path in paths
    ]
    if repeated:
        raise PairingError(
            where,
            expected="every file name once, since masks are found by name",
            found=f"several files of the same name ({', '.join(short(path, root) for path in repeated[:3])})",
            do="Use a template with the folder: '{parent}/{stem}.png'.",
        )
    orphans = sorted(by_stem.keys() - image_stems.keys())
    files = [by_stem.get(record.image.stem, [None])[0] for record in records]
    return files, [Problem(short(by_stem[stem][0], root), ORPHAN) for stem in orphans]


def _by_stem(paths: Iterable[Path]) -> dict[str, list[Path]]:
    stems: dict[str, list[Path]] = defaultdict(list)
    for path in paths:
        stems[path.stem].append(path)
    return stems


def _fill(template: str, image: Path, root: Path, where: str) -> Path:
    path = PurePosixPath(short(image, root))
    return root / fill_template(template, path.stem, image, path.parent.as_posix(), where)


def _unused_masks(templates: Mapping[Path, str], known: set[Path]) -> list[Path]:
    """Return files that match a template of masks, in the folders where it found masks, but belong to no image."""
    patterns: dict[Path, set[str]] = defaultdict(set)
    for path, template in templates.items():
        pieces = re.split(r"\{\w+\}", PurePosixPath(template).name)
        patterns[path.parent].add(".+".join(map(re.escape, pieces)))
    return sorted(
        path
        for folder, names in patterns.items()
        for path in folder.iterdir()
        if re.fullmatch("|".join(names), path.name) and path.is_file() and path not in known
    )
