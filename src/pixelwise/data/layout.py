"""Find the pictures and masks of a data set in the folders people have, and pair them up.

Comes in: the `data` section of a configuration and a root folder. Goes out: records (paths) per part, and every file
that has no partner. Knows nothing of pixels, classes or random division: no file is opened here, lists apart.

What is understood without a word of configuration, `masks` standing for any of `MASK_FOLDERS`:

    images/ masks/                          one pool (divided later)
    images/ masks/ splits/{train,val,test}.txt
    {train,val,test}/images/ {train,val,test}/masks/
    images/{train,val,test}/ masks/{train,val,test}/

Pictures and masks belong together where their paths below images/ and masks/ are equal up to the suffix.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from pixelwise.config import DataConfig, PartConfig
from pixelwise.data.images import IMAGE_SUFFIXES
from pixelwise.errors import ConfigError, DataError, PairingError

MASK_FOLDERS = ("masks", "labels", "annotations", "gt", "groundtruth")
PART_FOLDERS = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}
PARTS = tuple(PART_FOLDERS)

Files = Mapping[str, Sequence[Path]]


@dataclass(frozen=True)
class Record:
    """Name the files of one picture.

    Args:
        id: the picture's path without suffix, relative to its images/ folder, or to the root where globs name it.
        image: the picture.
        mask: its mask.
        group: what must stay together in one part; None where pictures stand alone.
        valid: a mask that is zero where pixels do not count.

    """

    id: str
    image: Path
    mask: Path | None
    group: str | None = None
    valid: Path | None = None


@dataclass(frozen=True)
class Problem:
    """Say which file found no partner, and why."""

    file: str
    why: str


@dataclass(frozen=True)
class Layout:
    """Hold what was found: records per part ("train", "val", "test", or "pool" where nothing is divided yet)."""

    kind: str
    parts: Mapping[str, tuple[Record, ...]]
    problems: tuple[Problem, ...] = ()
    notices: tuple[str, ...] = ()


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
    if not root.is_dir():
        found = "a file" if root.exists() else "nothing"
        raise DataError(root, expected="the data set's folder", found=found, do="Check the path, and data.root.")
    by_name = config.images is not None or any(isinstance(getattr(config, part), PartConfig) for part in PARTS)
    layout = _from_config(config, root) if by_name else _from_folders(root)
    lists = _lists(config, root, base)
    if lists:
        layout = _divide(layout, lists, root)
    return _without_partners(layout, root)


def _from_folders(root: Path) -> Layout:
    parts: dict[str, tuple[Record, ...]] = {}
    problems: list[Problem] = []
    outside = {part: _first(root, names) for part, names in PART_FOLDERS.items()}
    folders = {part: (f / "images", _masks(f)) for part, f in outside.items() if f and (f / "images").is_dir()}
    kind = "parts with images and masks"
    if not folders and (root / "images").is_dir():
        masks = _masks(root)
        inside = {part: _first(root / "images", names) for part, names in PART_FOLDERS.items()}
        folders = {part: (f, masks / f.name) for part, f in inside.items() if f}
        kind = "images and masks with parts inside"
        if not folders:
            folders, kind = {"pool": (root / "images", masks)}, "images and masks"
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
    return Layout(kind, parts, tuple(problems))


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
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        if path.suffix.lower() in IMAGE_SUFFIXES and not any(part.startswith(".") for part in inside.parts):
            files[inside.with_suffix("").as_posix()].append(path)
    return files


def _pair(images: Files, masks: Files, root: Path) -> tuple[tuple[Record, ...], list[Problem]]:
    """Pair by equal keys; a picture without a mask stays, with None, until lists have been looked at."""
    records, problems = [], []
    for key, paths in images.items():
        own = masks.get(key, ())
        for twice, what in ((paths, "pictures"), (own, "masks")):
            if len(twice) > 1:
                others = ", ".join(path.name for path in twice[1:])
                problems.append(Problem(_short(twice[0], root), f"several {what} of the same name (also {others})"))
        if len(paths) == 1 and len(own) < 2:
            records.append(Record(key, paths[0], own[0] if own else None))
    orphans = [paths[0] for key, paths in masks.items() if key not in images]
    problems += [Problem(_short(path, root), _ORPHAN) for path in orphans]
    return tuple(records), problems


_ORPHAN = "mask without a picture"
_UNMASKED = "picture without a mask"
_INVALID = "picture without its mask of valid pixels"


def _short(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


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
            problems += [Problem(_short(r.image, root), _INVALID) for r in records if r.valid is None]
            known |= {record.valid for record in records if record.valid}
            records = tuple(record for record in records if record.valid is not None)
        parts[name] = records
        expected |= {record.mask: masks for record in records if record.mask and "{" in masks}
    problems += [Problem(_short(path, root), _ORPHAN) for path in _left_over(expected, known)]
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
        return _filled(records, [path if path.is_file() else None for path in paths], field), []
    stems: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(_matches(root, pattern, where)):
        stems[path.stem].append(path)
    if not stems:
        raise DataError(where, expected="masks", found=f"none that match {pattern} in {root}", do="Check the pattern.")
    twice = sorted(path for paths in stems.values() if len(paths) > 1 for path in paths)
    shared = _shared_stems(records)
    if twice or shared:
        first = ", ".join(_short(path, root) for path in (twice or shared)[:3])
        raise PairingError(
            where,
            expected="every file name once, since masks are found by name",
            found=f"several files of the same name ({first})",
            do="Use a template with the folder: '{parent}/{stem}.png'.",
        )
    own = [stems.get(record.image.stem, [None])[0] for record in records]
    orphans = sorted(set(stems) - {record.image.stem for record in records})
    return _filled(records, own, field), [Problem(_short(stems[stem][0], root), _ORPHAN) for stem in orphans]


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
    inside = PurePosixPath(_short(image, root))
    try:
        text = template.format(stem=inside.stem, name=inside.name, parent=inside.parent.as_posix())
    except (KeyError, IndexError, ValueError) as error:
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


# Lists ---------------------------------------------------------------------------------------------------------------


def _lists(config: DataConfig, root: Path, base: Path) -> dict[str, Path]:
    """Find the lists of the parts: those the configuration names, else splits/*.txt."""
    lists: dict[str, Path] = {}
    for part in PARTS:
        name = getattr(config, part)
        if isinstance(name, str):
            path = next((folder / name for folder in (base, root) if (folder / name).is_file()), None)
            if path is None:
                raise ConfigError(
                    f"data.{part}",
                    expected=f"the list {name}",
                    found=f"no such file in {base} or {root}",
                    do="Check the path.",
                )
            lists[part] = path
    if not lists and not any(getattr(config, part) for part in PARTS) and config.images is None:
        for part, names in PART_FOLDERS.items():
            files = (root / "splits" / f"{name}.txt" for name in names)
            found = next((path for path in files if path.is_file()), None)
            if found is not None:
                lists[part] = found
    return lists


def _divide(layout: Layout, lists: Mapping[str, Path], root: Path) -> Layout:
    """Put the pictures of the pool into the parts whose lists name them; without a list of train, the rest is train."""
    pool = layout.parts.get("pool")
    if pool is None:
        raise ConfigError(
            "data", expected="one pool of pictures for the lists", found=layout.kind, do="Name `images` and `masks`."
        )
    names = _names(pool, root)
    place: dict[str, str] = {}
    problems = [problem for problem in layout.problems if problem.why != _ORPHAN]
    for part, path in lists.items():
        for line in _lines(path):
            record = names.get(line) or names.get(PurePosixPath(line).with_suffix("").as_posix())
            if record is None:
                why = "names several pictures" if line in names else "no such picture"
                problems.append(Problem(f"{path.name}: {line}", f"listed, but {why}"))
            elif place.setdefault(record.id, part) != part:
                raise PairingError(
                    path,
                    expected="every picture in one part",
                    found=f"{line} in {place[record.id]} and {part}",
                    do="Remove it from one of the lists.",
                )
    rest = sum(record.id not in place for record in pool)
    notices = layout.notices
    if rest:
        fate = "are left out" if "train" in lists else "make the train part"
        notices += (f"{rest} of {len(pool)} pictures are in no list and {fate}",)
    wanted = [*lists, *([] if "train" in lists or not rest else ["train"])]
    default = None if "train" in lists else "train"
    parts = {part: tuple(r for r in pool if place.get(r.id, default) == part) for part in wanted}
    others = {part: records for part, records in layout.parts.items() if part != "pool"}
    return Layout(f"{layout.kind}, divided by lists", parts | others, tuple(problems), notices)


def _lines(path: Path) -> list[str]:
    lines = (line.strip().replace("\\", "/").removeprefix("./") for line in path.read_text("utf-8-sig").splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def _names(records: Iterable[Record], root: Path) -> dict[str, Record | None]:
    """Give every name by which a list may call a picture; None where a name fits several."""
    names: dict[str, Record | None] = {}
    for record in records:
        path = PurePosixPath(_short(record.image, root))
        mine = {record.id, record.id + path.suffix, str(path), str(path.with_suffix("")), path.name, path.stem}
        for name in mine:
            names[name] = None if name in names else record
    return names


def _without_partners(layout: Layout, root: Path) -> Layout:
    """Turn the pictures that still have no mask into problems."""
    lost = [record for records in layout.parts.values() for record in records if record.mask is None]
    problems = tuple(Problem(_short(record.image, root), _UNMASKED) for record in lost)
    parts = {part: tuple(r for r in records if r.mask is not None) for part, records in layout.parts.items()}
    return Layout(layout.kind, parts, problems + layout.problems, layout.notices)
