"""The interface of an annotation format (detect, read, write), and what several formats share."""

from __future__ import annotations

import json
import mmap
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pixelwise.errors import DataError, MaskError
from pixelwise.formats.dataset_root import DatasetRoot
from pixelwise.formats.records import Layout
from pixelwise.geometry.contours import Contour, components, fill, trace
from pixelwise.imageio.masks import MaskRule
from pixelwise.imageio.safe_reading import decode, describe_unreadable
from pixelwise.labels import BACKGROUNDS, Colour, Labels

BACKGROUND = "background"
IGNORED = "__ignore__"


@dataclass(frozen=True)
class ReadResult:
    """The annotations of a data set.

    Args:
        layout: records per split, files without a partner, notices.
        labels: the classes, if the format names them; otherwise they come from `labels.yaml` or the masks.
        rule: how values of mask files become ids, if the format defines it; `data.mask_values` overrides it.
    """

    layout: Layout
    labels: Labels | None = None
    rule: MaskRule | None = None


@dataclass(frozen=True)
class ExportImage:
    """One image and its mask, as passed to a writer.

    Args:
        split: "train", "val" or "test".
        id: a name with forward slashes and without suffix, unique in its split.
        image: the image file.
        size: (H, W), upright.
        mask: (H, W) class indices, or `labels.ignore_index`.
    """

    split: str
    id: str
    image: Path
    size: tuple[int, int]
    mask: NDArray[Any]


class Writer(Protocol):
    """Writes a data set image by image."""

    def add(self, image: ExportImage) -> Path:
        """Write the mask of one image and a copy of the image; return the path of the copy."""

    def close(self) -> dict[str, Any]:
        """Write the files common to all images; return the `data` section that reads the data set, without root."""


@dataclass(frozen=True)
class Format:
    """An annotation format.

    Args:
        name: its name in `data.format` and `convert --to`.
        title: its name in messages.
        detect: return the reason why a data set has this format, or None. Looks at file names and into a few files;
            never raises.
        read: read the data set.
        write: return a writer into an empty folder; None if the format is read-only.
        loses: what masks may lose in this format; "" if nothing.
        by_name: whether `data.images` and `data.masks` can name its files.
    """

    name: str
    title: str
    detect: Callable[[DatasetRoot], str | None]
    read: Callable[[DatasetRoot], ReadResult]
    write: Callable[[Path, Labels], Writer] | None = None
    loses: str = ""
    by_name: bool = False


def drawn_labels(
    dataset: DatasetRoot,
    names: Iterable[str],
    *,
    ids: Sequence[int] = (),
    colours: Sequence[Colour] = (),
    things: Iterable[str] | None = None,
) -> tuple[Labels, str | None]:
    """Return the labels of annotated shapes: the named classes without the ignored ones, plus one for unlabelled pixels.

    Args:
        dataset: its `data.unlabelled` and `data.ignored` apply.
        names: all classes in order; `IGNORED` and those in `data.ignored` are removed.
        ids: an id per class; all are increased by one if 0 is among them and a background class is added.
        colours: a colour per class; generated if not given.
        things: the countable classes; None: all but background.

    Returns:
        The labels, and the name of the class of unlabelled pixels (None: they are ignored).

    Raises:
        DataError: `data.unlabelled` names none of the classes; or it is "ignore", and there is no class (background as
            the only class is refused later, when other sources of class names are known).
    """
    names = list(dict.fromkeys(names))
    shown: Sequence[Colour | None] = colours or [None] * len(names)
    rows = list(zip(names, ids or range(1, len(names) + 1), shown, strict=True))
    rows = [row for row in rows if shape_name(dataset, row[0]) is not None]
    present = {row[0] for row in rows}
    requested = dataset.config.unlabelled
    unlabelled: str | None = requested
    if requested == "ignore":
        unlabelled = None
    elif requested.lower() in BACKGROUNDS:
        spelt = {name.lower(): name for name in reversed(names) if name in present} | {name: name for name in present}
        unlabelled = next((spelt[name] for name in (requested, *BACKGROUNDS) if name in spelt), requested)
        if unlabelled not in present:
            rows = [(name, i + (min(row[1] for row in rows) < 1), colour) for name, i, colour in rows]
            rows.insert(0, (unlabelled, 0, (38, 40, 48) if colours else None))
    elif requested not in present:
        raise DataError(
            "data.unlabelled",
            expected=f"background, ignore, or one of {', '.join(sorted(present)[:12]) or 'no classes'}",
            found=repr(requested),
            do="Correct the name.",
        )
    if not rows:
        raise DataError(dataset.root, expected="classes in the annotations", found="none", do="Label some images.")
    kept, numbers, drawn = zip(*rows, strict=True)
    countable = tuple(name != unlabelled if things is None else name in set(things) for name in kept)
    return Labels(kept, numbers, tuple(drawn) if colours else (), countable), unlabelled


def shape_name(dataset: DatasetRoot, name: str) -> str | None:
    """Return the name of a class, or None if its pixels are ignored."""
    return None if name == IGNORED or name in dataset.config.ignored else name


def mentions(path: Path, *words: str) -> bool:
    """Return whether a JSON file contains all words in quotation marks, without parsing it; never raises."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
            encoding = json.detect_encoding(text[:4]).removesuffix("-sig")
            encoding = {"utf-16": "utf-16-le", "utf-32": "utf-32-le"}.get(encoding, encoding)
            encoding = "utf-16-be" if text[:2] == b"\xfe\xff" else encoding
            return all(text.find(f'"{word}"'.encode(encoding)) >= 0 for word in words)
    except (OSError, ValueError):  # an empty file cannot be mapped
        return False


def load_json(
    path: Path, hook: Callable[[dict[str, Any]], Any] | None = None, dataset: DatasetRoot | None = None
) -> Any:
    """Read a JSON file.

    Args:
        path: the file.
        hook: replaces each object as it is parsed (`object_hook`).
        dataset: notes the file's encoding if it is not Unicode.

    Raises:
        MaskError: the file cannot be read or is not JSON.
    """
    try:
        text = decode(path.read_bytes())[0] if dataset is None else dataset.decode(path)
        return json.loads(text.removeprefix("\ufeff"), object_hook=hook)
    except UnicodeError as error:
        found = describe_unreadable(error)
        raise MaskError(path, expected="a JSON file in UTF-8", found=found, do="Save it as UTF-8.") from error
    except (OSError, ValueError, RecursionError) as error:
        found = describe_unreadable(error)
        raise MaskError(path, expected="a JSON file", found=found, do="Export the annotations again.") from error


def painted(mask: NDArray[Any], labels: Labels) -> tuple[list[tuple[str, Contour]], str]:
    """Convert a mask to contours that reproduce it when painted in order, each over those before; holes need no rings.

    Args:
        mask: (H, W) class indices, or `labels.ignore_index`.
        labels: the classes.

    Returns:
        Name and contour per region that must be painted, largest first, with ignored pixels as `IGNORED`; and the value
        for `data.unlabelled`: the background class, which is not painted where nothing is below, or "ignore".
    """
    background = next((name for name in BACKGROUNDS if name in labels.names), None)
    initial = labels.ignore_index if background is None else labels.names.index(background)
    canvas = np.full(mask.shape, initial, mask.dtype)
    regions: list[tuple[str, Contour]] = []
    for contour in trace(mask):
        top, left, box = fill((contour.outer,), (mask.shape[0], mask.shape[1]))
        view = canvas[top : top + box.shape[0], left : left + box.shape[1]]
        if (view[box] == contour.id).all():
            continue
        view[box] = contour.id
        regions.append((IGNORED if contour.id == labels.ignore_index else labels.names[contour.id], contour))
    return regions, background or "ignore"


def segments(mask: NDArray[Any], labels: Labels) -> tuple[NDArray[np.int32], list[int]]:
    """Divide a mask into segments: one per connected region of a countable class, one per other class.

    Args:
        mask: (H, W) class indices, or `labels.ignore_index`.
        labels: the classes and which are countable. Ignored pixels are one segment.

    Returns:
        The segment numbers from 0 (H, W), and the mask value of each segment.
    """
    countable = np.zeros(labels.ignore_index + 1, bool)
    countable[: labels.num_classes] = labels.countable
    regions, count = components(mask)
    values = np.zeros(count, np.int64)
    values[regions] = mask
    keys = np.where(countable[values], labels.ignore_index + 1 + np.arange(count), values)
    _, first, numbers = np.unique(keys, return_index=True, return_inverse=True)
    return numbers.astype(np.int32)[regions], values[first].tolist()


def copy_image(image: ExportImage, target: Path) -> None:
    """Copy an image file unchanged; missing folders are created."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(image.image, target)


def png_bytes(image: Image.Image) -> bytes:
    """Encode an image as PNG."""
    buffer = BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
