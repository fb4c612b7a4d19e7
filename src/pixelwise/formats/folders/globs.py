"""Find and pair the images and masks that a configuration names by globs and templates.

Comes in: the `data` section and a root folder. Goes out: records per part, and every file that has no partner. Knows
nothing of what folders are called.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from pixelwise.config import DataConfig, SplitFilesConfig
from pixelwise.errors import ConfigError, DataError, PairingError
from pixelwise.formats.folders.pairing import pair
from pixelwise.formats.folders.tree import FOREIGN
from pixelwise.formats.records import ORPHAN, SPLITS, Layout, Problem, Record, short
from pixelwise.imageio.images import IMAGE_SUFFIXES

INVALID = "image without its mask of valid pixels"


def find_by_globs(config: DataConfig, root: Path) -> Layout:
    """Find the images that globs name, and the masks that templates or globs give them.

    Raises:
        DataError: a pattern that matches nothing (PairingError: a mask for several images).
        ConfigError: a template or pattern that makes no sense.
    """
    named = {split: getattr(config, split) for split in SPLITS if isinstance(getattr(config, split), SplitFilesConfig)}
    if config.images is not None:
        if "train" in named:
            raise ConfigError(
                "data", expected="either `images` or `train.images`", found="both", do="Remove one of the two."
            )
        named["pool"] = SplitFilesConfig(images=config.images)
    splits: dict[str, tuple[Record, ...]] = {}
    problems: list[Problem] = []
    expected: dict[Path, str] = {}
    known: set[Path] = set()
    for name, split in named.items():
        key = "data" if name == "pool" else f"data.{name}"
        masks, valid = split.masks or config.masks, split.valid or config.valid
        if masks is None:
            raise ConfigError(
                f"{key}.masks", expected="where the masks are", found="nothing", do="Add masks: 'masks/{stem}.png'."
            )
        images = _glob(split.images, root, f"{key}.images")
        paired = pair(images, {})
        problems += [Problem(short(path, root), why) for path, why in paired.odd]
        records, orphans = _attach(tuple(paired.records), masks, root, f"{key}.masks", "mask")
        problems += orphans
        known |= {path for record in records for path in (record.image, record.mask) if path}
        if valid is not None:
            records, _ = _attach(records, valid, root, f"{key}.valid", "valid")
            problems += [Problem(short(r.image, root), INVALID) for r in records if r.valid is None]
            known |= {record.valid for record in records if record.valid}
            records = tuple(record for record in records if record.valid is not None)
        splits[name] = records
        expected |= {record.mask: masks for record in records if record.mask and "{" in masks}
    problems += [Problem(short(path, root), ORPHAN) for path in _left_over(expected, known)]
    return Layout("named by globs", splits, tuple(problems))


def _glob(patterns: str | list[str], root: Path, where: str) -> dict[str, list[Path]]:
    files: dict[str, list[Path]] = defaultdict(list)
    patterns = [patterns] if isinstance(patterns, str) else patterns
    for path in sorted({path for pattern in patterns for path in _matches(root, pattern, where)}):
        files[path.relative_to(root).with_suffix("").as_posix()].append(path)
    if not files:
        found = f"none that match {', '.join(patterns)} in {root}"
        raise DataError(where, expected="images", found=found, do="Check the pattern, and data.root.")
    return files


def _matches(root: Path, pattern: str, where: str) -> list[Path]:
    """Give the files that a pattern matches; where it names no suffix, those that are called as images are."""
    suffix = PurePosixPath(pattern).suffix
    wanted = (*IMAGE_SUFFIXES, *FOREIGN, "") if not suffix or set("*?[") & set(suffix) else None
    try:
        return [
            path
            for path in root.glob(pattern)
            if (wanted is None or path.suffix.lower() in wanted) and path.is_file() and not path.name.startswith(".")
        ]
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
        if several and field == "mask":  # one mask of valid pixels may well serve all images of a camera
            raise PairingError(
                where,
                expected="a mask of its own for every image",
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
    """Find files that lie where a template puts masks and are named as it names them, but belong to no image."""
    names: dict[Path, set[str]] = defaultdict(set)
    for path, template in expected.items():
        pieces = re.split(r"\{\w+\}", PurePosixPath(template).name)
        names[path.parent].add(".+".join(map(re.escape, pieces)))
    found = []
    for folder, patterns in names.items():
        joined = re.compile("|".join(sorted(patterns)))
        found += [p for p in folder.iterdir() if joined.fullmatch(p.name) and p.is_file() and p not in known]
    return sorted(found)
