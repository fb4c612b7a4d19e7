"""Images of the validation split that are set aside, whole groups at a time.

The order of the groups depends on their names only. So a resumed run sets aside the same images, and so do runs with other seeds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from pixelwise.datasets.dataset import Dataset


@dataclass(frozen=True)
class Division:
    """The validation split, divided.

    Args:
        val: images that choose the checkpoint and are scored.
        sizes: images that calibrate intervals of sizes, whole groups one after the other; None if there are none.
    """

    val: Dataset
    sizes: Dataset | None


def set_aside(val: Dataset, count: int | None) -> Division:
    """Set a number of images, or groups of images, of the validation split aside; `None` stands for 0."""
    names = [f"group {record.group}" if record.group is not None else f"image {record.id}" for record in val.records]
    chosen = drawn_units(names)[: count or 0]
    if not chosen:
        return Division(val, None)
    place = {name: number for number, name in enumerate(chosen)}
    apart = [index for index, name in enumerate(names) if name in place]
    rest = [index for index, name in enumerate(names) if name not in place]
    return Division(val.subset(rest), val.subset(sorted(apart, key=lambda index: place[names[index]])))


def whole_units(images: Dataset, count: int) -> Dataset:
    """Return the first whole groups with at most `count` images in total."""
    if count >= len(images):
        return images
    groups = [record.group for record in images.records]
    while count > 0 and groups[count] is not None and groups[count] == groups[count - 1]:
        count -= 1
    return images.subset(range(count))


def drawn_units(names: Sequence[str]) -> list[str]:
    """Return the different names in an order that depends on nothing but the names: that of their SHA-256."""
    return sorted(
        set(names), key=lambda name: hashlib.sha256(f"sizes:{name}".encode("utf-8", "surrogateescape")).digest()
    )
