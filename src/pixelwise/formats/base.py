"""What an annotation format is to the house: how it is recognised, read and written.

Comes in: a `Place`. Goes out: the records of its images and what the format itself says of the classes. A format knows
nothing of other formats, of division into parts beyond what names tell, or of training.
"""

from __future__ import annotations

import json
import mmap
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import DataError, MaskError
from pixelwise.formats.dataset_root import Place
from pixelwise.formats.records import Layout
from pixelwise.geometry.contours import Contour, components, fill, trace
from pixelwise.imageio.masks import MaskRule
from pixelwise.labels import Colour, Labels

BACKGROUND = "background"
IGNORED = "__ignore__"
BACKGROUNDS = ("background", "_background_", "__background__", "unlabeled", "unlabelled")


@dataclass(frozen=True)
class Found:
    """Hold what was read.

    Args:
        layout: records per part, files without a partner, notices.
        labels: the classes, where the format names them; None: `labels.yaml` does, or the masks are looked at.
        rule: how the values of mask files become ids, where the format says so and `data.mask_values` does not.

    """

    layout: Layout
    labels: Labels | None = None
    rule: MaskRule | None = None


@dataclass(frozen=True)
class ExportImage:
    """Hold what a writer is given: one image and its mask.

    Args:
        part: "train", "val" or "test".
        id: a name with forward slashes and without suffix, unique in its part.
        image: the image's file.
        size: (H, W), upright.
        mask: (H, W) class indices, or `labels.ignore_index`.

    """

    split: str
    id: str
    image: Path
    size: tuple[int, int]
    mask: NDArray[Any]


class Writer(Protocol):
    """Write a data set image by image."""

    def add(self, image: ExportImage) -> Path:
        """Write one image's mask, and a copy of the image; say where the copy is."""

    def close(self) -> dict[str, Any]:
        """Write what stands in one file for all; give the `data` section that reads it back (root left out)."""


@dataclass(frozen=True)
class Format:
    """Describe one format.

    Args:
        name: what `data.format` and `convert --to` call it.
        title: what people call it.
        detect: say in words why a place is of this format, or None. Looks at names, and into a file or two; raises nothing.
        read: find and understand everything.
        write: give a writer into an empty folder, or None where the format is read only.
        loses: what a mask may lose in it, in words; "" where it loses nothing.
        by_name: whether `data.images` and `data.masks` can name its files, too.

    """

    name: str
    title: str
    detect: Callable[[Place], str | None]
    read: Callable[[Place], Found]
    write: Callable[[Path, Labels], Writer] | None = None
    loses: str = ""
    by_name: bool = False


def drawn_labels(
    place: Place,
    names: Iterable[str],
    *,
    ids: Sequence[int] = (),
    colours: Sequence[Colour] = (),
    things: Iterable[str] | None = None,
) -> tuple[Labels, str | None]:
    """Make the labels of shapes: the classes named, without those ignored, and with one for what no shape covers.

    Args:
        place: its `data.unlabelled` and `data.ignored` are followed.
        names: every class, in the order wanted; `IGNORED` and those of `data.ignored` are taken out.
        ids: an id for each, in the same order; all are moved up by one where 0 is among them and background needs it.
        colours: a colour for each; drawn where there are none.
        things: the classes made of objects that can be counted; None: all but background.

    Returns:
        Labels, and the name of the class of unlabelled pixels (None: they count in nothing).

    Raises:
        DataError: `data.unlabelled` names none of them; or it is "ignore", and there is no class (`classes` refuses
            background alone, once it is known whether anybody else names some).

    """
    names = list(dict.fromkeys(names))
    shown: Sequence[Colour | None] = colours or [None] * len(names)
    rows = list(zip(names, ids or range(1, len(names) + 1), shown, strict=True))
    rows = [row for row in rows if row[0] != IGNORED and row[0] not in place.config.ignored]
    given, wanted = {row[0] for row in rows}, place.config.unlabelled
    unlabelled: str | None = wanted
    if wanted == "ignore":
        unlabelled = None
    elif wanted.lower() in BACKGROUNDS:
        called = {name.lower(): name for name in reversed(names) if name in given} | {name: name for name in given}
        unlabelled = next((called[name] for name in (wanted, *BACKGROUNDS) if name in called), wanted)
        if unlabelled not in given:
            rows = [(name, i + (min(row[1] for row in rows) < 1), colour) for name, i, colour in rows]
            rows.insert(0, (unlabelled, 0, (38, 40, 48) if colours else None))
    elif wanted not in given:
        raise DataError(
            "data.unlabelled",
            expected=f"background, ignore, or one of {', '.join(sorted(given)[:12]) or 'no classes'}",
            found=repr(wanted),
            do="Correct the name.",
        )
    if not rows:
        raise DataError(place.root, expected="classes in the annotations", found="none", do="Label some images.")
    own, numbers, drawn = zip(*rows, strict=True)
    countable = tuple(name != unlabelled if things is None else name in set(things) for name in own)
    return Labels(own, numbers, tuple(drawn) if colours else (), countable), unlabelled


def shape_name(place: Place, name: str) -> str | None:
    """Give a class its name, or None where its pixels count in nothing."""
    return None if name == IGNORED or name in place.config.ignored else name


def mentions(path: Path, *words: str) -> bool:
    """Say whether a JSON file holds every one of some words in quotation marks; nothing is parsed, and nothing raised.

    A file of 400 MB is looked through in a fifth of a second.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
            return all(text.find(f'"{word}"'.encode()) >= 0 for word in words)
    except (OSError, ValueError):  # an empty file cannot be mapped
        return False


def load_json(path: Path, hook: Callable[[dict[str, Any]], Any] | None = None) -> Any:
    """Read a JSON file.

    Args:
        path: the file.
        hook: is given every object as it is parsed; what it gives stands in its place.

    Raises:
        MaskError: it cannot be read, or is no JSON.

    """
    try:
        return json.loads(path.read_bytes(), object_hook=hook)
    except (OSError, ValueError, RecursionError) as error:
        found = " ".join(str(getattr(error, "strerror", None) or error).split())[:160]
        raise MaskError(path, expected="a JSON file", found=found, do="Export the annotations again.") from error


def painted(mask: NDArray[Any], labels: Labels) -> tuple[list[tuple[str, Contour]], str]:
    """Turn a mask into outlines that give it again where each is painted over those before: holes need no rings.

    Args:
        mask: (H, W) class indices, or `labels.ignore_index`.
        labels: the classes.

    Returns:
        Name and outline per region that has to be painted, largest first, ignored pixels as `IGNORED`; and what is to
        stand as `data.unlabelled`: the class called background, which is not painted where nothing lies below, else "ignore".

    """
    ground = next((name for name in BACKGROUNDS if name in labels.names), None)
    below = labels.ignore_index if ground is None else labels.names.index(ground)
    canvas = np.full(mask.shape, below, mask.dtype)
    wanted: list[tuple[str, Contour]] = []
    for outline in trace(mask):
        top, left, box = fill((outline.outer,), (mask.shape[0], mask.shape[1]))
        view = canvas[top : top + box.shape[0], left : left + box.shape[1]]
        if (view[box] == outline.id).all():
            continue
        view[box] = outline.id
        wanted.append((IGNORED if outline.id == labels.ignore_index else labels.names[outline.id], outline))
    return wanted, ground or "ignore"


def segments(mask: NDArray[Any], labels: Labels) -> tuple[NDArray[np.int32], list[int]]:
    """Divide a mask into segments: every region of connected pixels of a countable class, and all pixels of any other.

    Args:
        mask: (H, W) class indices, or `labels.ignore_index`.
        labels: the classes; its `countable` is followed. Ignored pixels are one segment.

    Returns:
        The segments' numbers from 0 on (H, W), and the value in the mask of each.

    """
    apart = np.zeros(labels.ignore_index + 1, bool)
    apart[: labels.num_classes] = labels.countable
    regions, count = components(mask)
    values = np.zeros(count, np.int64)
    values[regions] = mask
    keys = np.where(apart[values], labels.ignore_index + 1 + np.arange(count), values)
    _, first, numbers = np.unique(keys, return_index=True, return_inverse=True)
    return numbers.astype(np.int32)[regions], values[first].tolist()


def copy_image(image: ExportImage, target: Path) -> None:
    """Copy an image's file as it is; folders above are made."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(image.image, target)
