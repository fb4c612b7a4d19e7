"""The files of a data set before any is opened: a record per picture, and what found no partner.

Comes in and goes out: paths and words. Knows nothing of how they were found.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol
from unicodedata import normalize

from numpy.typing import NDArray

from pixelwise.labels import Labels

PART_FOLDERS = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}
PARTS = tuple(PART_FOLDERS)
ORPHAN = "mask without a picture"


class MaskSource(Protocol):
    """Make a mask from what an annotation says of one picture: frozen, small, fit to be sent to worker processes."""

    @property
    def size(self) -> tuple[int, int] | None:
        """Give (H, W) as the annotation has it; None where it fits any picture."""

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


Across = Literal["axial", "coronal", "sagittal"]
Window = tuple[int, int, int, int]


@dataclass(frozen=True)
class Plane:
    """Name one slice of a volume.

    Args:
        index: its number; see `volumes` for where it begins. A file that holds one slice is read as a whole.
        across: the direction that the slices are stacked along: "axial" from the feet up, say.
        dtype: numpy name of the pixel type to read as, where the volumes of a set differ; None: the file's own.
        more: further volumes whose values are the next bands.
    """

    index: int
    across: Across = "axial"
    dtype: str | None = None
    more: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Record:
    """Name the files of one picture.

    Args:
        id: the picture's path without suffix, relative to its images/ folder, or to the root where globs name it.
        image: the picture.
        mask: the file of its mask; where `source` is given, the file that the annotation stands in.
        group: what must stay together in one part; None where pictures stand alone.
        valid: a mask that is zero where pixels do not count.
        source: makes the mask where a file does not hold it as it is: shapes, run lengths, segments.
        plane: which slice is meant, where picture and mask are volumes.
        window: top, left, height and width of the piece of the picture that is meant; None: all of it.
        nodata: value of the picture that stands for "nothing was measured here"; such pixels count in nothing.

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
    parts: Mapping[str, tuple[Record, ...]]
    problems: tuple[Problem, ...] = ()
    notices: tuple[str, ...] = ()


def composed(name: str) -> str:
    """Write letters with accents as one sign each: macOS, and archives made there, have them as two, and others as they are typed."""
    return name if name.isascii() else normalize("NFC", name)


def short(path: Path, root: Path) -> str:
    """Name a file as it lies below the root."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
