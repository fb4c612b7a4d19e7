"""The files of a data set before any is opened: one record per image, and the files that cannot be used."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol
from unicodedata import normalize

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import DataError, GridMismatchError, SizeMismatchError
from pixelwise.imageio.volumes import Plane
from pixelwise.labels import Labels

SPLIT_FOLDERS = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}
SPLITS = tuple(SPLIT_FOLDERS)
ORPHAN = "mask without an image"
UNMASKED = "image without a mask"

Window = tuple[int, int, int, int]


class MaskSource(Protocol):
    """Make the mask of one image from its annotation; frozen, small and picklable for worker processes."""

    @property
    def size(self) -> tuple[int, int] | None:
        """(H, W) according to the annotation; None if it fits any image."""

    @property
    def names(self) -> frozenset[str]:
        """Names of the classes that occur."""

    def draw(self, labels: Labels, size: tuple[int, int]) -> NDArray[Any]:
        """Return the mask (H, W) of class indices; classes are looked up in `labels` by name.

        Raises:
            MaskError: the annotation is invalid.
        """

    def digest(self) -> str:
        """Return a hash over everything that determines the mask."""


@dataclass(frozen=True)
class StackedMask:
    """The mask of a whole volume from those of its slices: a `MaskSource` of masks (D, H, W)."""

    slices: tuple[MaskSource, ...]

    @property
    def size(self) -> tuple[int, int] | None:
        """(H, W) of a slice according to the annotation; None if it fits any."""
        return self.slices[0].size

    @property
    def names(self) -> frozenset[str]:
        """Names of the classes that occur."""
        return frozenset().union(*(each.names for each in self.slices))

    def draw(self, labels: Labels, size: tuple[int, int]) -> NDArray[Any]:
        """Return the mask (D, H, W) of class indices, of slices of size (H, W); see `MaskSource.draw`."""
        return np.stack([each.draw(labels, size) for each in self.slices])

    def digest(self) -> str:
        """Return a hash over everything that determines the mask."""
        return hashlib.sha256("".join(each.digest() for each in self.slices).encode()).hexdigest()


@dataclass(frozen=True)
class Record:
    """The files of one image.

    Args:
        id: path of the image without suffix, relative to its images/ folder, or to the root if it was named by a glob.
        image: the image file.
        mask: the mask file; with `source`, the file that holds the annotation.
        group: images of one group must be in the same split; None if the image stands alone.
        valid: a mask that is zero where pixels are ignored.
        source: makes the mask if it is not stored as an image: shapes, run lengths, segments.
        plane: the slice, if image and mask are volumes.
        window: top, left, height and width of the part of the image to read; None for all of it.
        nodata: stored value of pixels without data, besides the value that the image file defines.
        stack: the files of a whole volume: one, or those of the slices of a series, in order; () for slices and images.
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
    stack: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Problem:
    """A file that cannot be used.

    Args:
        file: the file, or the place in it.
        why: the reason.
        do: the fix, if the format has a specific one.
        kind: what is wrong.
    """

    file: str
    why: str
    do: str = ""
    kind: Literal["unpaired", "size", "grid", "unreadable"] = "unpaired"

    def __str__(self) -> str:
        """Return "file: reason"."""
        return f"{self.file}: {self.why}"

    @classmethod
    def from_error(cls, error: DataError, file: str = "", do: str = "") -> Problem:
        """Describe an error; `file` is that of the error by default."""
        is_size, is_grid = isinstance(error, SizeMismatchError), isinstance(error, GridMismatchError)
        kind: Literal["size", "grid", "unreadable"] = "size" if is_size else "grid" if is_grid else "unreadable"
        return cls(file or error.where, f"expected {error.expected}, found {error.found}", do, kind)


@dataclass(frozen=True)
class Layout:
    """The records per split ("train", "val", "test", or "pool" if nothing is divided yet), problems and notices."""

    kind: str
    splits: Mapping[str, tuple[Record, ...]]
    problems: tuple[Problem, ...] = ()
    notices: tuple[str, ...] = ()

    @property
    def records(self) -> list[Record]:
        """The records of all splits."""
        return [record for records in self.splits.values() for record in records]

    @property
    def masks(self) -> list[Path]:
        """The mask files of all splits."""
        return [record.mask for record in self.records if record.mask is not None]


def composed(name: str) -> str:
    """Return a name in Unicode form NFC; macOS and archives made there store accents as separate characters."""
    return name if name.isascii() else normalize("NFC", name)


def short(path: Path, root: Path) -> str:
    """Return a path relative to the root, with forward slashes, or as it is if it is not below the root."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
