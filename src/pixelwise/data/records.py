"""The files of a data set before any is opened: a record per picture, and what found no partner.

Comes in and goes out: paths and words. Knows nothing of how they were found.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

PART_FOLDERS = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}
PARTS = tuple(PART_FOLDERS)
ORPHAN = "mask without a picture"


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


def short(path: Path, root: Path) -> str:
    """Name a file as it lies below the root."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
