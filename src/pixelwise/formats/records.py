"""The files of a data set before any is opened: a record per image, and what found no partner.

Comes in and goes out: paths and words. Knows nothing of how they were found.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from unicodedata import normalize

from numpy.typing import NDArray

from pixelwise.imageio.volumes import Plane
from pixelwise.labels import Labels

SPLIT_FOLDERS = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}
SPLITS = tuple(SPLIT_FOLDERS)
ORPHAN = "mask without an image"


class MaskSource(Protocol):
    """Make a mask from what an annotation says of one image: frozen, small, fit to be sent to worker processes."""

    @property
    def size(self) -> tuple[int, int] | None:
        """Give (H, W) as the annotation has it; None where it fits any image."""

    @property
    def names(self) -> frozenset[str]:
        """Name the classes that occur."""

    def draw(self, labels: Labels, size: tuple[int, int]) -> NDArray[Any]:
        """Make the mask (H, W) of class indices; classes are found in `labels` by name.

        Raises:
            MaskError: what the annotation holds cannot be understood.
        """

    def digest(self) -> str:
        """Give a hash over all that makes the mask."""


Window = tuple[int, int, int, int]


@dataclass(frozen=True)
class Record:
    """Name the files of one image.

    Args:
        id: the image's path without suffix, relative to its images/ folder, or to the root where globs name it.
        image: the image.
        mask: the file of its mask; where `source` is given, the file that the annotation stands in.
        group: what must stay together in one part; None where images stand alone.
        valid: a mask that is zero where pixels do not count.
        source: makes the mask where a file does not hold it as it is: shapes, run lengths, segments.
        plane: which slice is meant, where image and mask are volumes.
        window: top, left, height and width of the piece of the image that is meant; None: all of it.
        nodata: value of the image that stands for "nothing was measured here"; such pixels count in nothing.

    """

    id: str
    image: Path
    mask: Path | None
    group: str | None = None
    valid: Path | None = None
    source: MaskSource | None = None
    plane: Plane | None = None
    window: Window | None = None
    nodata: float | None = None


@dataclass(frozen=True)
class Problem:
    """Say which file found no partner, and why; and what to do about it, where the format knows better than anybody else."""

    file: str
    why: str
    do: str = ""


@dataclass(frozen=True)
class Layout:
    """Hold what was found: records per part ("train", "val", "test", or "pool" where nothing is divided yet)."""

    kind: str
    splits: Mapping[str, tuple[Record, ...]]
    problems: tuple[Problem, ...] = ()
    notices: tuple[str, ...] = ()


def composed(name: str) -> str:
    """Write letters with accents as one sign each: macOS, and archives made there, have them as two, and others as they are typed."""
    return name if name.isascii() else normalize("NFC", name)


def short(path: Path, root: Path) -> str:
    """Name a file as it lies below the root."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
