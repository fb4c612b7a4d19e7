"""Divide images into train, val and test reproducibly, keeping groups together.

Groups are ordered by SHA-256 over (seed, name of the group). The order of the files does not matter, and a file
that is added later moves at most the groups at the border between two splits.
"""

from __future__ import annotations

import csv
import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from pixelwise.errors import ConfigError, DataError, PairingError
from pixelwise.imageio.safe_reading import read_text

Group = str


def name_groups(paths: Sequence[str], rule: str, folders: Sequence[Path] = ()) -> list[Group]:
    """Return the group of each image.

    Args:
        paths: one path per image, relative to the data set's root, with forward slashes.
        rule: a regular expression whose first group names the group; or the name of a .csv table with the columns
            `image` (path, file name or stem) and `group`, for information that is not in file names.
        folders: folders in which the table is searched, in this order.

    Raises:
        ConfigError: an invalid expression, one without a group, or a table that is missing or lacks a column.
        DataError: images without a group.
    """
    found: list[Group | None]
    if rule.lower().endswith(".csv"):
        table, path = _read_table(rule, folders)
        where = str(path)
        found = [_look_up(table, name) for name in paths]
        do = "Add a row for each of them."
    else:
        where = f"data.group {rule!r}"
        matches = [_compile(rule).search(path) for path in paths]
        found = [match.group(1) if match else None for match in matches]
        do = "Correct the expression; it is searched for in the path relative to the data set's root."
    missing = [path for path, group in zip(paths, found, strict=True) if group is None]
    if missing:
        listed = f"none for {len(missing)} of {len(paths)} ({', '.join(missing[:3])})"
        raise DataError(where, expected="a group for every image", found=listed, do=do)
    return [group for group in found if group is not None]


def _compile(rule: str) -> re.Pattern[str]:
    try:
        pattern = re.compile(rule)
    except re.error as error:
        raise ConfigError(
            "data.group", expected="a regular expression", found=f"{rule!r} ({error})", do="Correct it."
        ) from error
    if not pattern.groups:
        raise ConfigError(
            "data.group",
            expected="a regular expression with a group in parentheses",
            found=repr(rule),
            do="Put parentheses around the part that names the group: '(patient[0-9]+)_'.",
        )
    return pattern


def _read_table(name: str, folders: Sequence[Path]) -> tuple[dict[str, Group], Path]:
    path = next((folder / name for folder in folders if (folder / name).is_file()), None)
    if path is None:
        found = f"no such file in {' and '.join(map(str, folders)) or 'no folder'}"
        raise ConfigError("data.group", expected=f"the table {name}", found=found, do="Check the path.")
    try:
        rows = csv.DictReader(read_text(path).splitlines())
        missing = [column for column in ("image", "group") if column not in (rows.fieldnames or ())]
        pairs = [] if missing else [(_normalized(row["image"]), row["group"].strip()) for row in rows if row["group"]]
    except csv.Error as error:
        raise ConfigError(path, expected="a .csv table", found=str(error), do="Save it as CSV again.") from error
    if missing:
        raise ConfigError(
            path,
            expected="the columns image and group",
            found=f"no column {' and '.join(missing)}",
            do="Name the columns in the first line.",
        )
    table: dict[str, Group] = {}
    for image, group in pairs:
        if table.setdefault(image, group) != group:
            raise ConfigError(
                path,
                expected="one group for every image",
                found=f"{image} in {table[image]} and in {group}",
                do="Write the images with their folders, or remove one of the rows.",
            )
    return table, path


def _normalized(image: object) -> str:
    """Return an image's path with forward slashes, as used by `_look_up`."""
    return str(image).strip().replace("\\", "/").removeprefix("./")


def _look_up(table: Mapping[str, Group], path: str) -> Group | None:
    pure = PurePosixPath(path)
    names = (path, str(pure.with_suffix("")), pure.name, pure.stem)
    return next((table[name] for name in names if name in table), None)


def split_groups(
    ids: Sequence[str], groups: Sequence[Group], val: float, test: float, seed: int, where: object = "data.split"
) -> dict[str, str]:
    """Divide images into "train", "val" and "test", whole groups at a time.

    Groups are assigned in the order of SHA-256(seed, group), first to test, then to val, each if it brings the split
    closer to its share of the images; the rest is train. The share of val therefore does not affect the test split.

    Args:
        ids: one id per image.
        groups: one group per image, possibly of this image only.
        val: share of the images requested, 0…1; 0 for none.
        test: likewise.
        seed: random seed.
        where: named in errors.

    Returns:
        The split of each image id. Every requested split has at least one group.

    Raises:
        PairingError: fewer groups than splits.
    """
    sizes = Counter(groups)
    requested = [(name, share) for name, share in (("test", test), ("val", val)) if share > 0]
    if len(sizes) < len(requested) + 1 or val + test >= 1:
        splits = ", ".join(["train", *sorted(name for name, _ in requested)])
        raise PairingError(
            where,
            expected=f"at least {len(requested) + 1} groups of images and shares below 1 for {splits}",
            found=f"{len(sizes)} ({len(ids)} images), shares {val:g} and {test:g}",
            do="Add images, name the splits yourself (val: …), or set split.val and split.test to 0.",
        )
    left = sorted(sizes, key=lambda group: _hash(seed, group))
    place = dict.fromkeys(sizes, "train")
    for number, (name, share) in enumerate(requested):
        keep = len(requested) - number  # groups that the remaining splits need
        chosen = dict.fromkeys(_choose(left, sizes, share * len(ids), keep), name)
        place |= chosen
        left = [group for group in left if group not in chosen]
    return {id_: place[group] for id_, group in zip(ids, groups, strict=True)}


def _hash(seed: int, group: Group) -> bytes:
    return hashlib.sha256(f"{seed}:{group}".encode("utf-8", "surrogateescape")).digest()


def _choose(order: Sequence[Group], sizes: Mapping[Group, int], target: float, keep: int) -> list[Group]:
    """Choose groups, in order, that come closest to `target` images; at least one, and leave `keep`."""
    chosen: list[Group] = []
    total = 0
    for group in order:
        if len(order) - len(chosen) <= keep:
            break
        if abs(total + sizes[group] - target) < abs(total - target):
            chosen.append(group)
            total += sizes[group]
    return chosen or [min(order, key=lambda group: sizes[group])]
