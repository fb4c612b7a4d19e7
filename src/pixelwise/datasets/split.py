"""Divide images into train, val and test so that what belongs together stays together, reproducibly.

Comes in: names of images, the rule that names their groups, the shares that were asked for, a seed. Goes out: a group
or a part per image. Knows nothing of pixels, masks or classes.

The place of a group is drawn from SHA-256 over (seed, name of the group): it depends on no order of files, and a file
that is added later moves at most the groups at the border between two parts.
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
    """Name the group of each image.

    Args:
        paths: one path per image, relative to the data set's root, with forward slashes.
        rule: a regular expression whose first group names the group; or the name of a .csv table with the columns
            `image` (path, file name or stem) and `group`, for what file names do not tell (patients, parts, places).
        folders: where the table is looked for, in this order.

    Raises:
        ConfigError: a broken expression, one without a group, or a table that is missing or lacks a column.
        DataError: images that the rule gives no group.

    """
    if rule.lower().endswith(".csv"):
        table, path = _read_table(rule, folders)
        where = str(path)
        found = [_look_up(table, name) for name in paths]
        do = "Add a row for each of them."
    else:
        where = f"data.group {rule!r}"
        pattern = _compile(rule)
        matches = [pattern.search(path) for path in paths]
        found = [match.group(1) if match else None for match in matches]
        do = "Correct the expression; it is searched for in the path relative to the data set's root."
    lost = [path for path, group in zip(paths, found, strict=True) if group is None]
    if lost:
        raise DataError(
            where,
            expected="a group for every image",
            found=f"none for {len(lost)} of {len(paths)} ({', '.join(lost[:3])})",
            do=do,
        )
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
        looked = " and ".join(str(folder) for folder in folders) or "no folder"
        raise ConfigError(
            "data.group", expected=f"the table {name}", found=f"no such file in {looked}", do="Check the path."
        )
    try:
        rows = csv.DictReader(read_text(path).splitlines())
        missing = [column for column in ("image", "group") if column not in (rows.fieldnames or ())]
        given = [] if missing else [(_plain(row["image"]), str(row["group"]).strip()) for row in rows if row["group"]]
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
    for image, group in given:
        if table.setdefault(image, group) != group:
            raise ConfigError(
                path,
                expected="one group for every image",
                found=f"{image} in {table[image]} and in {group}",
                do="Write the images with their folders, or remove one of the rows.",
            )
    return table, path


def _plain(image: object) -> str:
    """Write an image's path as `_look_up` asks for it, whichever way the slashes of its table lean."""
    return str(image).strip().replace("\\", "/").removeprefix("./")


def _look_up(table: Mapping[str, Group], path: str) -> Group | None:
    pure = PurePosixPath(path)
    names = (path, str(pure.with_suffix("")), pure.name, pure.stem)
    return next((table[name] for name in names if name in table), None)


def split_groups(
    ids: Sequence[str], groups: Sequence[Group], val: float, test: float, seed: int, where: object = "data.split"
) -> dict[str, str]:
    """Divide images into "train", "val" and "test", whole groups at a time.

    Groups are taken in the order of SHA-256(seed, group), first for test, then for val, each where it brings the part
    nearer to its share of the images; what is left is train. So the share of val does not move the test part.

    Args:
        ids: one name per image.
        groups: one group per image; groups of one are fine.
        val: share of the images asked for, 0…1; 0 for none.
        test: likewise.
        seed: another seed, another division.
        where: what an error names.

    Returns:
        The part per image id. Every part asked for has at least one group.

    Raises:
        PairingError: fewer groups than parts.

    """
    sizes = Counter(groups)
    asked = [(name, share) for name, share in (("test", test), ("val", val)) if share > 0]
    if len(sizes) < len(asked) + 1 or val + test >= 1:
        splits = ", ".join(["train", *sorted(name for name, _ in asked)])
        raise PairingError(
            where,
            expected=f"at least {len(asked) + 1} groups of images and shares below 1 for {splits}",
            found=f"{len(sizes)} ({len(ids)} images), shares {val:g} and {test:g}",
            do="Add images, name the parts yourself (val: …), or set split.val and split.test to 0.",
        )
    left = sorted(sizes, key=lambda group: _draw(seed, group))
    place = dict.fromkeys(sizes, "train")
    for number, (name, share) in enumerate(asked):
        keep = len(asked) - number  # groups that the later parts and train need
        taken = dict.fromkeys(_take(left, sizes, share * len(ids), keep), name)
        place |= taken
        left = [group for group in left if group not in taken]
    return {id_: place[group] for id_, group in zip(ids, groups, strict=True)}


def _draw(seed: int, group: Group) -> bytes:
    return hashlib.sha256(f"{seed}:{group}".encode("utf-8", "surrogateescape")).digest()


def _take(order: Sequence[Group], sizes: Mapping[Group, int], target: float, keep: int) -> list[Group]:
    """Choose groups, in order, that come nearest to `target` images; at least one, and leave `keep`."""
    taken: list[Group] = []
    total = 0
    for group in order:
        if len(order) - len(taken) <= keep:
            break
        if abs(total + sizes[group] - target) < abs(total - target):
            taken.append(group)
            total += sizes[group]
    return taken or [min(order, key=lambda group: sizes[group])]
